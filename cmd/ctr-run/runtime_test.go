// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
	"github.com/ctr-tools/ctr/pkg/runtime"
)

// A box is a bundle with busybox, a state root of its own and ids that nobody else uses.
type box struct {
	t    *testing.T
	dir  string
	root string
	id   string
	spec *specs.Spec
}

func newBox(t *testing.T, args ...string) *box {
	clitest.Root(t)
	clitest.Need(t, "busybox")
	b := &box{t: t, dir: t.TempDir(), id: fmt.Sprintf("t%d-%s", os.Getpid(), regexp.MustCompile(`\W`).ReplaceAllString(t.Name(), "-"))}
	b.root = filepath.Join(b.dir, "state")
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp"} {
		if err := os.MkdirAll(b.in(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.in("bin/busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields("sh cat ls id sleep true false echo grep stat env mount readlink touch tty kill wc pwd hostname") {
		if err := os.Symlink("busybox", b.in("bin/"+name)); err != nil {
			t.Fatal(err)
		}
	}
	b.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
	b.spec = runtime.DefaultSpec()
	b.spec.Version = "1.0.2" // so that older runtimes read it, too
	b.spec.Process.Terminal = false
	b.spec.Process.Args = args
	t.Cleanup(b.clean)
	return b
}

func (b *box) in(path string) string { return filepath.Join(b.dir, "rootfs", path) }

func (b *box) write(path, text string) {
	b.t.Helper()
	if err := os.WriteFile(b.in(path), []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// clean checks that nothing is left: no state, no cgroup, no mount.
func (b *box) clean() {
	b.ctr("delete", "--force", b.id)
	if left, _ := filepath.Glob(filepath.Join(b.root, "*")); len(left) > 0 {
		b.t.Errorf("left over: %q", left)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup/*/*"} {
		if left, _ := filepath.Glob(filepath.Join(pattern, b.id)); len(left) > 0 {
			b.t.Errorf("left over: %q", left)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		b.t.Error(err)
	}
	if strings.Contains(string(mounts), b.dir) {
		b.t.Error("a mount is left over")
	}
}

func (b *box) save() {
	b.t.Helper()
	data, err := json.Marshal(b.spec)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "config.json"), data, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) ctr(args ...string) (stdout, stderr string, status int) {
	b.t.Helper()
	return clitest.Tool(b.t, nil, append([]string{"ctr-run", "--root", b.root}, args...)...)
}

// ok runs a verb that has to succeed.
func (b *box) ok(args ...string) string {
	b.t.Helper()
	stdout, stderr, status := b.ctr(args...)
	if status != 0 {
		b.t.Fatalf("%q: exit status %d: %s", args, status, stderr)
	}
	return stdout
}

// detached runs a verb whose container outlives it: it must not hold the pipes that the test reads.
func (b *box) detached(args ...string) {
	b.t.Helper()
	cmd := exec.Command(filepath.Join(clitest.Bin(b.t), "ctr-run"), append([]string{"--root", b.root}, args...)...)
	errors, err := os.Create(filepath.Join(b.dir, "stderr"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer errors.Close()
	cmd.Stderr = errors
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(errors.Name())
		b.t.Fatalf("%q: %v: %s", args, err, text)
	}
}

// run runs the container and returns all it prints.
func (b *box) run(want int) (stdout, stderr string) {
	b.t.Helper()
	b.save()
	stdout, stderr, status := b.ctr("run", "--bundle", b.dir, b.id)
	if status != want {
		b.t.Fatalf("exit status %d, want %d: %s%s", status, want, stdout, stderr)
	}
	return stdout, stderr
}

func (b *box) refused(want string) {
	b.t.Helper()
	b.save()
	_, stderr, status := b.ctr("run", "--bundle", b.dir, b.id)
	if status == 0 || !strings.Contains(stderr, want) {
		b.t.Errorf("exit status %d, %q: want a failure that says %q", status, stderr, want)
	}
}

func TestRun(t *testing.T) {
	b := newBox(t, "sh", "-c", "id; echo $HOME; pwd; hostname; exit 7")
	stdout, stderr := b.run(7)
	if want := "uid=0(root) gid=0\n/root\n/\nctr\n"; stdout != want || stderr != "" {
		t.Errorf("got %q %q, want %q", stdout, stderr, want)
	}
	b.spec.Process.Args = []string{"sh", "-c", "kill -9 $$"}
	b.spec.Linux.Namespaces = b.spec.Linux.Namespaces[1:] // init of a pid namespace ignores its own KILL
	b.run(137)
}

// What a process sees has to be what it sees under runc.
func TestAsRunc(t *testing.T) {
	clitest.Need(t, "runc")
	b := newBox(t, "sh", "-c", `grep -v -e ^Pid -e Vm -e Rss -e ctxt -e ^NS -e ^T -e ^PPid -e Speculation /proc/self/status
cat /proc/self/limits /proc/self/oom_score_adj; ls -A /dev | grep -v core; id; env; pwd; stat -c "%a %u %n" /dev /proc /sys /dev/shm
grep -v -e cgroup -e ' /null ' -e 'tmpfs ro' /proc/self/mountinfo | while read a b c root point options rest; do echo "$root $point $options ${rest#*- }"; done
ls /proc/acpi /sys/firmware; cat /proc/keys; echo 1 > /proc/sys/kernel/sysrq; echo 1 > /x; ls /proc/self/fd | wc -l; readlink /proc/self/fd/9`)
	u := uint32(0o27)
	b.spec.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{7, 8}, Umask: &u}
	b.spec.Process.Cwd = "/tmp"
	adj := 100
	b.spec.Process.OOMScoreAdj = &adj
	b.spec.Linux.Sysctl = map[string]string{"kernel.msgmax": "4096", "net.ipv4.ip_forward": "1"}
	got, gotErr := b.run(1)
	cmd := exec.Command("runc", "--root", b.root+"-runc", "run", "--bundle", b.dir, b.id)
	var wantErr strings.Builder
	cmd.Stderr = &wantErr
	want, _ := cmd.Output()
	if got != string(want) || gotErr != wantErr.String() {
		t.Errorf("ctr-run:\n%s%s\nrunc:\n%s%s", got, gotErr, want, wantErr.String())
	}
}

func TestLifecycle(t *testing.T) {
	b := newBox(t, "sleep", "1000")
	b.save()
	pidFile := filepath.Join(b.dir, "pid")
	b.detached("create", "--bundle", b.dir, "--pid-file", pidFile, b.id)
	status := func() string {
		var s struct {
			Status string
			Pid    int
		}
		if err := json.Unmarshal([]byte(b.ok("state", b.id)), &s); err != nil {
			t.Fatal(err)
		}
		if pid, _ := os.ReadFile(pidFile); s.Pid != 0 && fmt.Sprint(s.Pid) != string(pid) {
			t.Errorf("pid %d, pid file %s", s.Pid, pid)
		}
		return s.Status
	}
	want := func(w string) {
		t.Helper()
		if got := status(); got != w {
			t.Errorf("status %s, want %s", got, w)
		}
	}
	want("created")
	if _, stderr, st := b.ctr("create", "--bundle", b.dir, b.id); st != 4 || !strings.Contains(stderr, "exists") {
		t.Errorf("second create: %d %s", st, stderr)
	}
	b.ok("start", b.id)
	want("running")
	if _, _, st := b.ctr("start", b.id); st == 0 {
		t.Error("second start succeeds")
	}
	if _, stderr, st := b.ctr("delete", b.id); st != 4 || !strings.Contains(stderr, "not stopped") {
		t.Errorf("delete of a running container: %d %s", st, stderr)
	}
	if got := b.ok("exec", b.id, "sh", "-c", "echo $$ $(id -u)"); !strings.HasSuffix(got, " 0\n") {
		t.Errorf("exec: %q", got)
	}
	if _, _, st := b.ctr("exec", b.id, "sh", "-c", "exit 9"); st != 9 {
		t.Errorf("exec: exit status %d, want 9", st)
	}
	if _, stderr, st := b.ctr("exec", b.id, "nosuch"); st != 255 || !strings.Contains(stderr, "executable file not found in $PATH") {
		t.Errorf("exec: %d %s", st, stderr)
	}
	got := b.ok("exec", "--user", "1000:5", "--additional-gids", "6", "--cwd", "/tmp", "--env", "A=b", b.id, "sh", "-c", "id; pwd; echo $A $HOME; grep Cap /proc/self/status")
	if !strings.Contains(got, "uid=1000(user) gid=5 groups=6") || !strings.Contains(got, "/tmp\nb /home/user\n") || !strings.Contains(got, "CapEff:\t0000000000000000") {
		t.Errorf("exec as a user: %q", got)
	}
	b.ok("pause", b.id)
	want("paused")
	if _, _, st := b.ctr("exec", b.id, "true"); st != 255 {
		t.Errorf("exec in a paused container: %d", st)
	}
	b.ok("resume", b.id)
	if got := b.ok("list", "--quiet"); got != b.id+"\n" {
		t.Errorf("list: %q", got)
	}
	var list []map[string]any
	if err := json.Unmarshal([]byte(b.ok("list", "--format", "json")), &list); err != nil || len(list) != 1 || list[0]["status"] != "running" {
		t.Errorf("list: %v %v", list, err)
	}
	var pids []int
	if err := json.Unmarshal([]byte(b.ok("ps", "--format", "json", b.id)), &pids); err != nil || len(pids) != 1 {
		t.Errorf("ps: %v %v", pids, err)
	}
	b.ok("kill", b.id, "SIGKILL")
	clitest.Eventually(t, func() error {
		if s := status(); s != "stopped" {
			return fmt.Errorf("status %s", s)
		}
		return nil
	})
	b.ok("delete", b.id)
	if _, stderr, st := b.ctr("delete", b.id); st != 3 || !strings.Contains(stderr, "container does not exist") {
		t.Errorf("second delete: %d %s", st, stderr)
	}
	b.ok("delete", "--force", b.id)
}

func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*box)
		want   string
	}{
		"missing":     {func(b *box) { b.spec.Process.Args = []string{"nosuch"} }, `exec: "nosuch": executable file not found in $PATH (/usr`},
		"absolute":    {func(b *box) { b.spec.Process.Args = []string{"/nosuch"} }, `exec: "/nosuch": stat /nosuch: no such file or directory`},
		"interpreter": {func(b *box) { b.script("#!/no/such\n", 0o755) }, `its interpreter /no/such: no such file`},
		"mode":        {func(b *box) { b.script("#!/bin/sh\n", 0o644) }, `mode 0644 has no x: permission denied`},
		"format":      {func(b *box) { b.script("hello\n", 0o755) }, `neither a program (ELF) nor a script`},
		"directory":   {func(b *box) { b.spec.Process.Args = []string{"/bin"} }, `is a directory`},
		"namespace": {func(b *box) {
			b.spec.Linux.Namespaces[1].Path = "/proc/self/ns/pid"
		}, "network: found no such namespace at /proc/self/ns/pid"},
		"mount option": {func(b *box) {
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"nosuchoption"}})
		}, "mount tmpfs on /x with option nosuchoption: invalid argument"},
		"source":   {func(b *box) { b.bind("/nosuch", "/x") }, "mount /x: source: stat /nosuch"},
		"sysctl":   {func(b *box) { b.spec.Linux.Sysctl = map[string]string{"kernel.panic": "1"} }, `linux.sysctl: found "kernel.panic"`},
		"apparmor": {func(b *box) { b.spec.Process.ApparmorProfile = "x" }, "AppArmor is not enabled"},
		"proc cover": {func(b *box) {
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/proc/self", Type: "tmpfs"})
		}, "cover the container's procfs"},
		"cwd fd":   {func(b *box) { b.spec.Process.Cwd = "/proc/self/fd/7" }, "/proc/self/fd"},
		"cgroup":   {func(b *box) { b.spec.Linux.CgroupsPath = "/../../x" }, "linux.cgroupsPath"},
		"terminal": {func(b *box) { b.spec.Process.Args = nil }, "process.args: found nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "true")
			c.change(b)
			b.refused(c.want)
		})
	}
}

func (b *box) script(text string, mode os.FileMode) {
	if err := os.WriteFile(b.in("bin/script"), []byte(text), mode); err != nil {
		b.t.Fatal(err)
	}
	b.spec.Process.Args = []string{"/bin/script"}
}

func (b *box) bind(source, destination string, options ...string) {
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: destination, Type: "bind", Source: source, Options: append(options, "bind")})
}

// A link in the image must lead nowhere on the host, whatever is mounted or made through it.
func TestLinks(t *testing.T) {
	for name, c := range map[string]struct {
		path   string // in the rootfs, becomes a link to the canary directory
		change func(*box)
		want   string // "" where the container may run
	}{
		"proc":         {"proc", func(*box) {}, "/proc: too many levels of symbolic links"},
		"sys":          {"sys", func(*box) {}, "/sys: too many levels of symbolic links"},
		"dev":          {"dev", func(*box) {}, "/dev: too many levels of symbolic links"},
		"dev no tmpfs": {"dev", func(b *box) { b.spec.Mounts = b.spec.Mounts[:1] }, "/dev: too many levels of symbolic links"},
		"destination":  {"data", func(b *box) { b.bind("/etc", "/data/new/dir") }, ""},
		"file":         {"data", func(b *box) { b.bind("/etc/passwd", "/data/new") }, ""},
		"cwd":          {"data", func(b *box) { b.spec.Process.Cwd = "/data" }, "/data"},
		"masked":       {"data", func(b *box) { b.spec.Linux.MaskedPaths = append(b.spec.Linux.MaskedPaths, "/data") }, ""},
		"device": {"data", func(b *box) {
			b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/data/null", Type: "c", Major: 1, Minor: 3}}
		}, "/data"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "true")
			b.spec.Root.Readonly = false
			canary := t.TempDir()
			os.Remove(b.in(c.path))
			if err := os.Symlink(canary, b.in(c.path)); err != nil {
				t.Fatal(err)
			}
			c.change(b)
			if c.want == "" {
				b.run(0)
			} else {
				b.refused(c.want)
			}
			if entries, err := os.ReadDir(canary); err != nil || len(entries) > 0 {
				t.Errorf("outside the root filesystem: %v %v", entries, err)
			}
		})
	}
}

func TestMounts(t *testing.T) {
	clitest.UserNS(t)
	b := newBox(t, "sh", "-c", "cat /f; cat /d/a; echo x > /d/b; echo y > /ro/c; cat /t/passwd; cat /sh; grep ' /idle' /proc/self/mountinfo; stat -c %u:%g /mapped/a")
	b.spec.Root.Readonly = false
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("a\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.bind(filepath.Join(dir, "a"), "/f", "ro")
	b.bind(dir, "/d")
	b.bind(dir, "/ro", "rro")
	b.write("sh", "relative\n")
	b.bind("rootfs/sh", "/sh")
	if err := os.Mkdir(b.in("t"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.write("t/passwd", "copied up\n")
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}},
		specs.Mount{Destination: "/mapped", Type: "bind", Source: dir, Options: []string{"bind", "idmap"},
			UIDMappings: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 5000, Size: 10}}, GIDMappings: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 6000, Size: 10}}})
	stdout, stderr := b.run(0)
	if want := "a\na\ncopied up\nrelative\n5000:6000\n"; stdout != want {
		t.Errorf("got %q, want %q", stdout, want)
	}
	if !strings.Contains(stderr, "/ro/c: Read-only file system") {
		t.Errorf("got %q, want a read-only file system", stderr)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "b")); string(got) != "x\n" {
		t.Errorf("through the bind mount: %q", got)
	}
}

func TestOverlay(t *testing.T) {
	b := newBox(t, "sh", "-c", "cat /etc/x; echo new > /etc/y")
	b.spec.Root = &specs.Root{Path: "merged"}
	for _, d := range []string{"merged", "upper", "work", "top/etc"} {
		if err := os.MkdirAll(filepath.Join(b.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b.write("etc/x", "below\n")
	if err := os.WriteFile(filepath.Join(b.dir, "top/etc/x"), []byte("top\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.spec.Annotations = map[string]string{"dev.ctr.rootfs.overlay": `{"lower":["top","rootfs"],"upper":"upper","work":"work","options":["xino=off"]}`}
	if stdout, _ := b.run(0); stdout != "top\n" {
		t.Errorf("got %q", stdout)
	}
	if got, _ := os.ReadFile(filepath.Join(b.dir, "upper/etc/y")); string(got) != "new\n" {
		t.Errorf("upper: %q", got)
	}
	// one layer, read-only
	b.spec.Annotations["dev.ctr.rootfs.overlay"] = `{"lower":["rootfs"]}`
	if stdout, stderr := b.run(1); stdout != "below\n" || !strings.Contains(stderr, "Read-only") {
		t.Errorf("got %q %q", stdout, stderr)
	}
}

func TestUserNamespace(t *testing.T) {
	clitest.UserNS(t)
	b := newBox(t, "sh", "-c", "id; while read a b c; do echo $a $b $c; done < /proc/self/uid_map; echo x > /dev/null && cat /secret; sleep 0.1")
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	b.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	b.spec.Linux.GIDMappings = b.spec.Linux.UIDMappings
	secret := filepath.Join(t.TempDir(), "secret") // in a directory that the container's root may not enter
	if err := os.WriteFile(secret, []byte("secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(secret), 0o700); err != nil {
		t.Fatal(err)
	}
	b.bind(secret, "/secret", "ro")
	for _, d := range []string{b.dir, filepath.Dir(b.dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b.write("secret", "")
	if stdout, _ := b.run(0); stdout != "uid=0(root) gid=0\n0 100000 65536\nsecret\n" {
		t.Errorf("got %q", stdout)
	}
}

func TestHooks(t *testing.T) {
	b := newBox(t, "sh", "-c", "cat /log")
	b.spec.Root.Readonly = false
	log := filepath.Join(b.dir, "log")
	hook := func(name string) []specs.Hook {
		script := fmt.Sprintf(`read a; read b; read c; echo "%s ${c%%,} $X$LEAK $(pwd)" >> %s`, name, log)
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"X=1"}}}
	}
	b.spec.Hooks = &specs.Hooks{CreateRuntime: hook("createRuntime"), CreateContainer: hook("createContainer"),
		StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "read a; read b; echo startContainer $b > /log"}}},
		Poststart:      hook("poststart"), Poststop: hook("poststop")}
	t.Setenv("LEAK", "leaked")
	stdout, _ := b.run(0)
	if want := "startContainer \"ociVersion\": \"1.3.0\",\n"; stdout != want {
		t.Errorf("got %q, want %q", stdout, want)
	}
	got, _ := os.ReadFile(log)
	want := fmt.Sprintf("createRuntime \"id\": %[1]q 1 %[2]s\ncreateContainer \"id\": %[1]q 1 /\npoststart \"id\": %[1]q 1 %[2]s\npoststop \"id\": %[1]q 1 %[2]s\n", b.id, b.dir)
	if string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	one := 1
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "100"}, Timeout: &one}}}
	b.refused("hooks.createRuntime[0]: /bin/sleep: not done within 1 s")
	b.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "100"}, Timeout: &one}}}
	b.refused("hooks.createContainer[0]: /bin/sleep: not done within 1 s")
}

// The terminal's master comes over the console socket.
func TestConsole(t *testing.T) {
	b := newBox(t, "sh", "-c", "tty; stat -c %t /dev/console; read x; echo got $x")
	b.spec.Process.Terminal = true
	b.save()
	path := filepath.Join(b.dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b.detached("create", "--bundle", b.dir, "--console-socket", path, b.id)
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	control := make([]byte, 64)
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 64), control)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := syscall.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		t.Fatal(messages, err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	master := os.NewFile(uintptr(fds[0]), "master")
	defer master.Close()
	b.ok("start", b.id)
	if _, err := master.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	buf := make([]byte, 512)
	for {
		n, err := master.Read(buf)
		out.Write(buf[:n])
		if err != nil {
			break
		}
	}
	// The echo of the input comes before, between or after the first lines.
	if got := strings.Replace(out.String(), "hello\r\n", "", 1); got != "/dev/pts/0\r\n88\r\ngot hello\r\n" {
		t.Errorf("got %q", got)
	}
}

// Nothing of the caller's reaches the program but what was asked for.
func TestDescriptors(t *testing.T) {
	b := newBox(t, "sh", "-c", "ls /proc/self/fd | wc -l; readlink /proc/self/fd/3; cat <&3")
	b.save()
	f, err := os.CreateTemp(b.dir, "x")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteString("inherited\n")
	f.Seek(0, 0)
	secret, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	cmd := exec.Command(filepath.Join(clitest.Bin(t), "ctr-run"), "--root", b.root, "run", "--bundle", b.dir, "--preserve-fds", "1", b.id)
	cmd.ExtraFiles = []*os.File{f, secret}
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "5\n"+f.Name()+"\ninherited\n" && !strings.HasPrefix(string(out), "5\n") || !strings.HasSuffix(string(out), "inherited\n") {
		t.Errorf("got %q %v", out, err)
	}
}

func TestLog(t *testing.T) {
	b := newBox(t, "true")
	log := filepath.Join(b.dir, "log.json")
	_, _, status := b.ctr("--log", log, "--log-format", "json", "start", b.id)
	data, _ := os.ReadFile(log)
	var line struct{ Level, Msg, Time string }
	if err := json.Unmarshal(data, &line); status != 3 || err != nil || line.Level != "error" || !strings.Contains(line.Msg, "container does not exist") {
		t.Errorf("status %d, %v, %s", status, err, data)
	}
	for _, id := range []string{"", ".", "..", "../x", "a/b", "a\nb", strings.Repeat("a", 256)} {
		if _, _, status := b.ctr("run", "--bundle", b.dir, "--", id); status != 2 {
			t.Errorf("id %q: exit status %d, want 2", id, status)
		}
	}
}
