// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
)

const stubborn = `services:
  a: {image: busybox, command: ["sh", "-c", "echo begun; exec sleep 600"], stop_grace_period: 0s}
  b: {image: busybox, command: sleep 600, stop_grace_period: 600s, depends_on: [a]}
`

// newProject makes private places with a busybox image and a Compose file, and takes the project down at the
// test's end.
func newProject(t *testing.T, file string) (dir string, tool func(args ...string) *exec.Cmd) {
	clitest.Root(t)
	clitest.Need(t, "busybox")
	bin := clitest.Bin(t)
	dir = t.TempDir()
	name := fmt.Sprintf("s%d%s", os.Getpid(), strings.ToLower(t.Name()))
	env := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "COMPOSE_PROJECT_NAME="+name,
		"CTR_ROOT="+filepath.Join(dir, "root"), "CTR_RUN="+filepath.Join(dir, "run"))
	tool = func(args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, args[0]), args[1:]...)
		cmd.Dir, cmd.Env = dir, env
		return cmd
	}
	script := exec.Command("sh", "-ec", `cp -r "$0/examples/guestbook/base" ctx; cp "$(command -v busybox)" ctx/busybox; ctr-build -q -t busybox ctx`, clitest.Source())
	script.Dir, script.Env = dir, env
	if out, err := script.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := tool("ctr-compose", "down", "-v", "-t", "0").CombinedOutput(); err != nil {
			t.Errorf("down: %v: %s", err, out)
		}
		for _, d := range []string{"root/projects", "run/containers", "run/netns"} {
			left, _ := filepath.Glob(filepath.Join(dir, d, "[^.]*"))
			if len(left) > 0 {
				t.Errorf("%v is left", left)
			}
		}
	})
	return dir, tool
}

// The first Ctrl-C stops, the second kills; the status is that of an interrupt.
func TestInterruptTwice(t *testing.T) {
	_, tool := newProject(t, stubborn)
	up := tool("ctr-compose", "up")
	var out, errs bytes.Buffer
	up.Stdout, up.Stderr = &out, &errs
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	running := func(n int) func() error {
		return func() error {
			ids, err := tool("ctr-compose", "ps", "-q").Output()
			if got := len(strings.Fields(string(ids))); err != nil || got != n {
				return fmt.Errorf("%d containers run, want %d: %v", got, n, err)
			}
			return nil
		}
	}
	clitest.Eventually(t, running(2))
	clitest.Eventually(t, func() error { // up is showing logs, so signals are its own
		if s, err := tool("ctr-compose", "logs").Output(); err != nil || !strings.Contains(string(s), "begun") {
			return fmt.Errorf("no log: %q, %v", s, err)
		}
		return nil
	})
	time.Sleep(300 * time.Millisecond)
	if err := up.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if err := up.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := up.Wait()
	var ee *exec.ExitError
	if !errors.As(err, &ee) || ee.ExitCode() != 130 {
		t.Errorf("up: %v, want exit status 130\n%s", err, errs.String())
	}
	if !strings.Contains(out.String(), "a-1 | begun\n") || strings.Contains(errs.String(), "begun") {
		t.Errorf("stdout %q, stderr %q", out.String(), errs.String())
	}
	clitest.Eventually(t, running(0))
}

// Killed at any moment, up leaves what the next up finishes.
func TestKilled(t *testing.T) {
	_, tool := newProject(t, strings.ReplaceAll(stubborn, "600s", "0s"))
	for d := 5 * time.Millisecond; d < 300*time.Millisecond; d = d * 3 / 2 {
		up := tool("ctr-compose", "up", "-d")
		if err := up.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(d)
		_ = up.Process.Signal(syscall.SIGKILL)
		_ = up.Wait()
	}
	if out, err := tool("ctr-compose", "up", "-d", "--wait").CombinedOutput(); err != nil {
		t.Fatalf("up: %v: %s", err, out)
	}
	if out, err := tool("ctr-compose", "plan").CombinedOutput(); err != nil || !strings.Contains(string(out), "Nothing to do") {
		t.Errorf("plan: %v: %s", err, out)
	}
}
