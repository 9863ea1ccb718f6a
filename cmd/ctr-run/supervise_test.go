// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
)

func TestScripts(t *testing.T) { clitest.Scripts(t, "testdata") }

// A container that is started again and again is in every list, and never as one that has ended.
func TestListNeverMissesARestart(t *testing.T) {
	clitest.Root(t)
	clitest.Need(t, "busybox", "jq")
	dir := t.TempDir()
	bin := clitest.Bin(t)
	env := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "CTR_RUN="+dir+"/run")
	run := func(args ...string) (string, error) {
		cmd := exec.Command(args[0], args[1:]...)
		if strings.HasPrefix(args[0], "ctr-") {
			cmd.Path = filepath.Join(bin, args[0])
			cmd.Err = nil
		}
		cmd.Env, cmd.Dir = env, dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(args ...string) {
		t.Helper()
		if out, err := run(args...); err != nil {
			t.Fatalf("%s: %v: %s", args, err, out)
		}
	}
	must("sh", "-c", `mkdir -p b/rootfs/bin b/rootfs/proc b/rootfs/dev b/rootfs/sys && cp $(command -v busybox) b/rootfs/bin/ &&
		ctr-run spec --bundle b && jq '.process.args=["/bin/busybox","false"] | .process.terminal=false' b/config.json >b/new && mv b/new b/config.json`)
	id := fmt.Sprintf("flicker%d", os.Getpid())
	must("ctr-run", "supervise", "--detach", "--restart", "on-failure:4", "--bundle", "b", id)
	defer run("ctr-run", "delete", "--force", id)
	ended := make(chan error)
	go func() {
		_, err := run("ctr-run", "wait", id)
		ended <- err
	}()
	var watchers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		watchers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				out, err := run("ctr-run", "list", "--format", "json")
				var final error
				if _, e := os.Stat(filepath.Join(dir, "run/containers/.supervised", id, "attach.sock")); errors.Is(e, fs.ErrNotExist) {
					final = e // the supervisor is through with it
				}
				if err != nil || !strings.Contains(out, id) || final == nil && strings.Contains(out, `"status":"stopped"`) {
					t.Errorf("%v %s", err, out)
					return
				}
			}
		})
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	close(stop)
	watchers.Wait()
	out, err := run("ctr-run", "list", "--format", "json")
	if err != nil || !strings.Contains(out, `"status":"stopped"`) || !strings.Contains(out, `"restarts":4`) {
		t.Errorf("%v %s", err, out)
	}
}
