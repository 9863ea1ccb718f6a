// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
)

// Found with runc's own test-suite; each case is named after its file there.

func TestEnvironment(t *testing.T) { // env.bats
	b := newBox(t, "env")
	b.spec.Process.Env = []string{"A=1", "PATH=/x", "HOME=", "A=2", "PATH=/bin"}
	if got, _ := b.run(0); got != "A=2\nPATH=/bin\nHOME=/root\n" {
		t.Errorf("got %q", got)
	}
	b.spec.Process.Env = []string{"HOME=/there", "PATH=/bin"}
	if got, _ := b.run(0); got != "HOME=/there\nPATH=/bin\n" {
		t.Errorf("got %q", got)
	}
}

func TestTerminalToFile(t *testing.T) { // env.bats: ends of lines stay as they are
	b := newBox(t, "echo", "hello")
	b.spec.Process.Terminal = true
	if got, _ := b.run(0); got != "hello\n" {
		t.Errorf("got %q", got)
	}
}

func TestHookInside(t *testing.T) { // hooks.bats, seccomp.bats
	b := newBox(t, "true")
	b.spec.Root.Readonly = false
	b.spec.Process.Env = []string{"PATH=/bin", "FOO=bar"}
	b.write("bin/hook", "#!/bin/sh\necho \"FOO=$FOO\"\nmkdir /tmp/x\nexit 3\n")
	if err := os.Chmod(b.in("bin/hook"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("busybox", b.in("bin/mkdir")); err != nil {
		t.Fatal(err)
	}
	h := specs.Hook{Path: "/bin/hook"}
	b.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{h}}
	b.refused("hooks.startContainer[0]: /bin/hook: exit status 3: FOO=bar\n")
	if err := os.Remove(b.in("tmp/x")); err != nil {
		t.Errorf("the hook made no directory: %v", err)
	}
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActKillProcess}}}
	b.refused("exit status 3: FOO=bar")
	if err := os.Remove(b.in("tmp/x")); err == nil {
		t.Error("the container's filter does not hold its hook")
	}
	h.Env = []string{"OTHER=1"}
	b.spec.Hooks.StartContainer[0] = h
	b.refused("exit status 3: FOO=\n")
}

func TestAmbient(t *testing.T) { // capabilities.bats
	b := newBox(t, "grep", "CapAmb", "/proc/self/status")
	b.spec.Process.Capabilities.Inheritable = []string{"CAP_KILL"}
	b.spec.Process.Capabilities.Ambient = []string{"CAP_KILL", "CAP_CHOWN"}
	got, warning := b.run(0)
	if got != "CapAmb:\t0000000000000020\n" || !strings.Contains(warning, "can't raise ambient capability CAP_CHOWN") {
		t.Errorf("got %q %q", got, warning)
	}
}

func TestTmpfsMode(t *testing.T) { // mounts.bats, run.bats
	b := newBox(t, "stat", "-c", "%a", "/old", "/new", "/given")
	b.spec.Root.Readonly = false
	for _, d := range []string{"old", "given"} {
		if err := os.Mkdir(b.in(d), 0o710); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"/old", "/new", "/given"} {
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: d, Type: "tmpfs", Source: "tmpfs", Options: []string{"ro"}})
	}
	b.spec.Mounts[len(b.spec.Mounts)-1].Options = []string{"mode=444"}
	if got, _ := b.run(0); got != "710\n1777\n444\n" {
		t.Errorf("got %q", got)
	}
}

func TestReadonlyDev(t *testing.T) { // mounts.bats
	b := newBox(t, "sh", "-c", "ls /dev; [ -c /dev/null ] && echo y >/dev/x")
	for i := range b.spec.Mounts {
		if b.spec.Mounts[i].Destination == "/dev" {
			b.spec.Mounts[i].Options = append(b.spec.Mounts[i].Options, "ro")
		}
	}
	got, stderr := b.run(1)
	if !strings.Contains(got, "null\nptmx\npts\n") || !strings.Contains(stderr, "Read-only file system") {
		t.Errorf("got %q %q", got, stderr)
	}
}

func TestDanglingLink(t *testing.T) { // mounts.bats
	b := newBox(t, "cat", "/etc/resolv.conf", "/run/a/b/resolv.conf", "/var/f")
	b.spec.Root.Readonly = false
	for name, to := range map[string]string{"etc/resolv.conf": "../jump/b/resolv.conf", "jump": "/run/a", "var": "///../../../srv/var"} {
		if err := os.Symlink(to, b.in(name)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(b.dir, "file")
	if err := os.WriteFile(file, []byte("content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.bind(file, "/etc/resolv.conf")
	b.bind(b.dir, "/var")
	b.spec.Process.Args[3] = "/srv/var/file"
	if got, _ := b.run(0); got != "content\ncontent\ncontent\n" {
		t.Errorf("got %q", got)
	}
}

func TestNoPivot(t *testing.T) { // no_pivot.bats: the host's procfs must not license a new one
	clitest.Need(t, "unshare")
	b := newBox(t, "/bin/unshare", "-mrpf", "/bin/mount", "-t", "proc", "none", "/proc")
	if err := os.Symlink("busybox", b.in("bin/unshare")); err != nil {
		t.Fatal(err)
	}
	b.save()
	_, stderr, status := b.ctr("run", "--no-pivot", "--bundle", b.dir, b.id)
	if status == 0 || !strings.Contains(stderr, "ermission denied") && !strings.Contains(stderr, "not permitted") {
		t.Errorf("exit status %d, %q: want no new procfs", status, stderr)
	}
	b.spec.Process.Args = []string{"ls", "/"}
	b.save()
	if got := b.ok("run", "--no-pivot", "--bundle", b.dir, b.id); got != "bin\ndev\netc\nproc\nsys\ntmp\n" {
		t.Errorf("got %q", got)
	}
}

func TestAllCPUs(t *testing.T) { // cpu_affinity.bats
	clitest.Need(t, "taskset", "nproc")
	if n, err := exec.Command("nproc", "--all").Output(); err != nil || string(n) == "1\n" {
		t.Skip("SKIP: one CPU")
	}
	b := newBox(t, "grep", "Cpus_allowed_list", "/proc/self/status")
	b.save()
	want, err := exec.Command("grep", "Cpus_allowed_list", "/proc/1/status").Output()
	if err != nil {
		t.Fatal(err)
	}
	got, err := exec.Command("taskset", "-c", "0", filepath.Join(clitest.Bin(t), "ctr-run"), "--root", b.root, "run", "--bundle", b.dir, b.id).Output()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %q %v, want %q", got, err, want)
	}
}

// create.bats: a waiting init holds nothing of its creator's.
func TestInheritedDescriptors(t *testing.T) {
	b := newBox(t, "sleep", "1000")
	b.save()
	secret, err := os.Create(filepath.Join(b.dir, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	pid := filepath.Join(b.dir, "pid")
	cmd := exec.Command(filepath.Join(clitest.Bin(t), "ctr-run"), "--root", b.root, "create", "--bundle", b.dir, "--pid-file", pid, b.id)
	cmd.ExtraFiles = []*os.File{nil, nil, secret}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	number, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := filepath.Glob("/proc/" + string(number) + "/fd/*")
	if err != nil || len(fds) < 3 {
		t.Fatal(fds, err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); to == secret.Name() || strings.HasPrefix(to, "/") && to != "/dev/null" {
			t.Errorf("%s is %s", fd, to)
		}
	}
}
