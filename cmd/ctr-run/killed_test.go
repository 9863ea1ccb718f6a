// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
)

// Whenever ctr-run is killed, "delete --force" leaves nothing; newBox's clean looks for what is left.
func TestKilled(t *testing.T) {
	t.Cleanup(func() { // fails if the container's cgroup is still below
		for _, pattern := range []string{"/sys/fs/cgroup/ctr-killed", "/sys/fs/cgroup/*/ctr-killed"} {
			parents, _ := filepath.Glob(pattern)
			for _, p := range parents {
				if err := syscall.Rmdir(p); err != nil {
					t.Errorf("left over: %s: %v", p, err)
				}
			}
		}
	})
	for _, verb := range []string{"create", "run", "start", "exec", "delete"} {
		for delay := 500 * time.Microsecond; delay < 20*time.Millisecond; delay = delay * 3 / 2 {
			t.Run(fmt.Sprint(verb, delay.Microseconds()), func(t *testing.T) {
				t.Parallel()
				b := newBox(t, "sleep", "1000")
				b.spec.Linux.CgroupsPath = "/ctr-killed/" + b.id
				b.save()
				args := []string{verb, b.id}
				switch verb {
				case "create", "run":
					args = []string{verb, "--bundle", b.dir, b.id}
				case "start":
					b.detached("create", "--bundle", b.dir, b.id)
				case "exec":
					args = append(args, "sleep", "1000")
					fallthrough
				case "delete":
					b.detached("run", "--detach", "--bundle", b.dir, b.id)
				}
				cmd := exec.Command(filepath.Join(clitest.Bin(t), "ctr-run"), append([]string{"--root", b.root}, args...)...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(delay)
				cmd.Process.Kill()
				cmd.Wait()
				b.ok("delete", "--force", b.id)
			})
		}
	}
}
