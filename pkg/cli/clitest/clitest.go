// SPDX-License-Identifier: Apache-2.0

// Package clitest runs command-line tests (testscript) and tests that need the real binaries.
package clitest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/toolkit"
)

// Source is the root of the source tree.
func Source() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

var build = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("CTR_BIN"); dir != "" {
		return dir, nil
	}
	dir := filepath.Join(Source(), "out", "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	// Packages are tested in parallel processes: one builds, the others wait and find it built.
	lock, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	cmd := exec.Command("make", "-s", "-C", Source(), "all")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New("make all: " + err.Error() + "\n" + string(out))
	}
	return dir, nil
})

// Bin builds the tools (make all) and returns the directory of the seven binaries; $CTR_BIN names one that
// is built already.
func Bin(t testing.TB) string {
	t.Helper()
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Root skips the test unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIP: needs root")
	}
}

// UserNS skips the test where no user namespace can be made (in a chroot, or where it is forbidden).
func UserNS(t testing.TB) {
	t.Helper()
	if err := exec.Command("unshare", "-U", "true").Run(); err != nil {
		t.Skipf("SKIP: needs user namespaces: unshare -U: %v", err)
	}
}

// Need skips the test unless the programs are installed.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIP: needs %s", p)
		}
	}
}

// Scripts runs testdata/*.txtar with the real binaries in PATH and CTR_ROOT and CTR_RUN inside the script's
// own directory. Conditions: [root], [userns], and testscript's own ([exec:NAME], [linux] …). Commands beside
// testscript's: "status N command…" runs a command and wants exactly exit status N; "eventually command…"
// repeats it until it succeeds, for at most 20 s.
func Scripts(t *testing.T, dir string) {
	bin := Bin(t)
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			e.Setenv("CTR_ROOT", filepath.Join(e.WorkDir, "ctr-root"))
			e.Setenv("CTR_RUN", filepath.Join(e.WorkDir, "ctr-run"))
			e.Setenv("SOURCE", Source())
			e.Setenv("HOME", e.WorkDir)
			e.Defer(func() { cleanUp(bin, e.WorkDir) })
			// Names that reach the kernel (interfaces, cgroups) have to differ between scripts at work.
			e.Setenv("UNIQUE", "t"+strconv.Itoa(os.Getpid())+filepath.Base(e.WorkDir)[max(0, len(filepath.Base(e.WorkDir))-3):])
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Geteuid() == 0, nil
			case "userns":
				return exec.Command("unshare", "-Ur", "true").Run() == nil, nil
			}
			return false, errors.New("no condition " + cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":     status,
			"eventually": eventually,
		},
	})
}

// cleanUp ends what a script that failed half-way left at work: its containers, networks and mounts.
func cleanUp(bin, dir string) {
	script := `
	ctr-run list -q | xargs -r -n1 ctr-run delete -f
	for b in $(find "$CTR_ROOT" . -name network.json 2>/dev/null); do ctr-net detach "$(dirname "$b")"; done
	ctr-net gc
	ctr-net list -z | xargs -r -0 -n1 ctr-net rm
	for m in $(awk -v d="$PWD/" 'index($2, d) == 1 {print $2}' /proc/self/mounts | sort -r); do umount -l "$m"; done`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "CTR_ROOT="+filepath.Join(dir, "ctr-root"), "CTR_RUN="+filepath.Join(dir, "ctr-run"))
	cmd.Run() // best effort: a test that failed has said so already
}

func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		got = toolkit.ExitStatus(ee.ProcessState)
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s: exit status %d, want %d", toolkit.Quote(args[1:]), got, want)
	}
}

// Tool runs a command with the real binaries in PATH and returns stdout, stderr and the exit status.
func Tool(t testing.TB, env []string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	bin := Bin(t)
	path := args[0]
	if strings.HasPrefix(path, "ctr-") {
		path = filepath.Join(bin, path)
	}
	cmd := exec.Command(path, args[1:]...)
	cmd.Env = append(append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH")), env...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		t.Fatal(err)
	}
	return o.String(), e.String(), toolkit.ExitStatus(cmd.ProcessState)
}
