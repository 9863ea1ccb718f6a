// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/log"
)

// The test binary is also the supervisor process that Start makes.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "supervisor" {
		if Main(os.Args[3], os.Args[4], testCommand(os.Args[2], os.Args[3])) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func testCommand(program, root string) []string { return []string{program, "--root", root} }

// A place is a state root with everything that runs below it gone at the end of the test.
type testPlace struct {
	testing.TB
	root    string
	tool    string // ctr-run
	program string // the runtime under the supervisor
	seq     int
}

func newPlace(t testing.TB) *testPlace {
	t.Helper()
	clitest.Root(t)
	clitest.Need(t, "busybox")
	tool := filepath.Join(clitest.Bin(t), "ctr-run")
	p := &testPlace{TB: t, root: filepath.Join(t.TempDir(), "state"), tool: tool, program: tool}
	t.Cleanup(func() {
		ids, _ := IDs(p.root)
		for _, id := range ids {
			zero := 0
			if err := Stop(context.Background(), p.root, id, 9, &zero); err != nil {
				t.Error(err)
			}
			p.runtime("delete", "--force", id)
			if _, err := Forget(p.root, id); err != nil {
				t.Error(err)
			}
			if r, err := Load(p.root, id); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v %v after delete", r, err)
			}
		}
		if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), filepath.Dir(p.root)) {
			t.Errorf("mounts left: %v %s", err, mounts)
		}
		for _, depth := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
			if left, _ := filepath.Glob(depth + idPrefix() + "*"); len(left) > 0 {
				t.Errorf("cgroups left: %v", left)
			}
		}
	})
	return p
}

func (p *testPlace) runtime(args ...string) (string, error) {
	argv := append(testCommand(p.program, p.root), args...)
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	return string(out), err
}

// idPrefix starts the ids of this process's containers.
func idPrefix() string { return "sup" + strconv.Itoa(os.Getpid()) + "-" }

// bundle makes a bundle that runs a busybox shell script, and an id.
func (p *testPlace) bundle(script string) (id, dir string) {
	p.Helper()
	p.seq++
	id = idPrefix() + strconv.Itoa(p.seq)
	dir = filepath.Join(p.TempDir(), "bundle")
	p.check(os.MkdirAll(filepath.Join(dir, "rootfs", "bin"), 0o755))
	for _, d := range []string{"proc", "dev", "sys", "tmp"} {
		p.check(os.MkdirAll(filepath.Join(dir, "rootfs", d), 0o777))
	}
	busybox, err := exec.LookPath("busybox")
	p.check(err)
	data, err := os.ReadFile(busybox)
	p.check(err)
	p.check(os.WriteFile(filepath.Join(dir, "rootfs/bin/busybox"), data, 0o755))
	for _, a := range strings.Fields("sh echo cat sleep true kill dd seq test touch rm stty tr head stat id") {
		p.check(os.Symlink("busybox", filepath.Join(dir, "rootfs/bin", a)))
	}
	if out, err := exec.Command(p.tool, "spec", "--bundle", dir).CombinedOutput(); err != nil {
		p.Fatalf("%v: %s", err, out)
	}
	p.edit(dir, func(c map[string]any) {
		process := c["process"].(map[string]any)
		process["args"] = []string{"/bin/sh", "-c", script}
		process["terminal"] = false
		c["root"].(map[string]any)["readonly"] = false
		c["linux"].(map[string]any)["cgroupsPath"] = "/" + id
	})
	return id, dir
}

func (p *testPlace) edit(dir string, f func(map[string]any)) {
	p.Helper()
	path := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(path)
	p.check(err)
	var c map[string]any
	p.check(json.Unmarshal(data, &c))
	f(c)
	data, err = json.Marshal(c)
	p.check(err)
	p.check(os.WriteFile(path, data, 0o600))
}

func (p *testPlace) check(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p *testPlace) container(script string, o Options) Container {
	p.Helper()
	id, dir := p.bundle(script)
	return Container{Root: p.root, ID: id, Bundle: dir, Options: o,
		Runtime: testCommand(p.program, p.root), Self: []string{"test", "supervisor", p.program, p.root}}
}

// start supervises a script and returns its id.
func (p *testPlace) start(script string, o Options) Container {
	p.Helper()
	c := p.container(script, o)
	p.check(Start(c))
	return c
}

// ended waits for the end for good.
func (p *testPlace) ended(c Container) *Record {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), 30*time.Second)
	defer cancel()
	r, err := Wait(ctx, c.Root, c.ID, UntilStopped)
	p.check(err)
	return r
}

func (p *testPlace) logged(c Container) map[log.Stream]string {
	p.Helper()
	got := map[log.Stream][]byte{}
	p.check(log.Read(p.Context(), filepath.Join(c.Bundle, "log"), log.ReadOptions{}, func(r log.Record) error {
		got[r.Stream] = r.AppendRaw(got[r.Stream])
		return nil
	}))
	return map[log.Stream]string{log.Stdout: string(got[log.Stdout]), log.Stderr: string(got[log.Stderr])}
}

// printed waits until a container has written that to stdout.
func (p *testPlace) printed(c Container, want string) {
	p.Helper()
	clitest.Eventually(p, func() error {
		if got := p.logged(c)[log.Stdout]; got != want {
			return fmt.Errorf("stdout is %q, want %q", got, want)
		}
		return nil
	})
}

func TestExitStatus(t *testing.T) {
	p := newPlace(t)
	for _, code := range []int{0, 1, 127, 255} {
		r := p.ended(p.start(fmt.Sprintf("exit %d", code), Options{}))
		if r.Exit == nil || r.Exit.Code != code || r.Exit.Signal != 0 || r.Exit.OOMKilled || r.Status != StatusStopped {
			t.Errorf("exit %d: %+v", code, r.Exit)
		}
	}
	// Only SIGKILL from outside ends an init without handlers.
	c := p.start("exec sleep 1000", Options{})
	zero := 0
	p.check(Stop(t.Context(), c.Root, c.ID, 0, &zero))
	r := p.ended(c)
	if r.Exit.Code != 137 || r.Exit.Signal != 9 || !r.Stopped {
		t.Errorf("%+v", r.Exit)
	}
	var e Exit
	data, err := os.ReadFile(filepath.Join(c.Bundle, "exit.json"))
	p.check(err)
	p.check(json.Unmarshal(data, &e))
	if e != *r.Exit {
		t.Errorf("exit.json %+v, want %+v", e, r.Exit)
	}
}

// Any runtime with runc's command line can be supervised.
func TestOtherRuntimes(t *testing.T) {
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			clitest.Need(t, name)
			p.program, _ = exec.LookPath(name)
			c := p.container("echo run; exit 3", Options{Restart: Policy{Name: "on-failure", Max: 1}})
			p.edit(c.Bundle, func(c map[string]any) { c["ociVersion"] = "1.0.2" }) // crun 1.8 knows no newer one
			if err := Start(c); err != nil && strings.Contains(err.Error(), "hybrid") {
				t.Skipf("SKIP: %v", err)
			} else if err != nil {
				t.Fatal(err)
			}
			if r := p.ended(c); r.Exit.Code != 3 || r.Restarts != 1 || p.logged(c)[log.Stdout] != "run\nrun\n" {
				t.Errorf("%+v %q", r, p.logged(c))
			}
		})
	}
}

// The streams arrive whole, apart from each other, also what comes right before the exit.
func TestOutputIsExact(t *testing.T) {
	p := newPlace(t)
	c := p.start("seq 1 300000; echo end >&2; dd if=/dev/zero bs=1000 count=3000 2>/dev/null | tr '\\0' x; printf tail", Options{LogFiles: 20, LogBytes: 2 << 20})
	p.ended(c)
	var want bytes.Buffer
	for i := 1; i <= 300000; i++ {
		fmt.Fprintln(&want, i)
	}
	want.WriteString(strings.Repeat("x", 3_000_000) + "tail")
	got := p.logged(c)
	if got[log.Stdout] != want.String() {
		t.Errorf("stdout: %d bytes, want %d the same", len(got[log.Stdout]), want.Len())
	}
	if got[log.Stderr] != "end\n" {
		t.Errorf("stderr %q", got[log.Stderr])
	}
}

func TestForeground(t *testing.T) {
	p := newPlace(t)
	c := p.container("cat; echo err >&2; exit 5", Options{Interactive: true})
	dir := t.TempDir()
	p.check(os.WriteFile(dir+"/in", []byte("hello\nworld"), 0o600))
	in, err := os.Open(dir + "/in")
	p.check(err)
	out, err := os.Create(dir + "/out")
	p.check(err)
	e, err := os.Create(dir + "/err")
	p.check(err)
	exit, err := Run(c, in, out, e)
	p.check(err)
	gotOut, _ := os.ReadFile(dir + "/out")
	gotErr, _ := os.ReadFile(dir + "/err")
	if exit.Code != 5 || string(gotOut) != "hello\nworld" || string(gotErr) != "err\n" {
		t.Errorf("%d %q %q", exit.Code, gotOut, gotErr)
	}
}

func TestRestart(t *testing.T) {
	p := newPlace(t)
	always, err := ParsePolicy("always")
	p.check(err)
	twice, err := ParsePolicy("on-failure:2")
	p.check(err)

	c := p.start("echo run; exit 3", Options{Restart: twice})
	r := p.ended(c)
	if got := p.logged(c)[log.Stdout]; got != "run\nrun\nrun\n" || r.Restarts != 2 || r.Exit.Code != 3 {
		t.Errorf("%q, %d restarts, %+v", got, r.Restarts, r.Exit)
	}
	if r := p.ended(p.start("exit 0", Options{Restart: twice})); r.Restarts != 0 {
		t.Errorf("%d restarts of what succeeded", r.Restarts)
	}
	// A stop ends it, during a run and during a pause. It never looks absent meanwhile.
	for _, script := range []string{"exit 1", "trap 'exit 0' TERM; echo up; while :; do sleep 0.02; done"} {
		c = p.start(script, Options{Restart: always})
		until := time.Now().Add(400 * time.Millisecond)
		for time.Now().Before(until) {
			if _, status, _, err := Merge(p.root, c.ID, ""); err != nil || status == StatusStopped {
				t.Fatalf("status %q: %v", status, err)
			}
		}
		p.check(Stop(t.Context(), c.Root, c.ID, 0, nil))
		if r = p.ended(c); !r.Stopped || r.Status != StatusStopped {
			t.Errorf("%+v", r)
		}
	}
	if r.Exit.Code != 0 || r.Restarts != 0 {
		t.Errorf("%d restarts, exit %+v", r.Restarts, r.Exit)
	}
}

func TestBackoff(t *testing.T) {
	var pause time.Duration
	for _, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000} {
		if pause = backoff(pause, time.Second); pause != want*time.Millisecond {
			t.Errorf("%v, want %v ms", pause, int(want))
		}
	}
	if pause = backoff(pause, healthyRun); pause != firstBackoff {
		t.Errorf("%v after a long run", pause)
	}
}

func TestHealth(t *testing.T) {
	p := newPlace(t)
	test, err := ParseHealthTest("echo looked; test -e /tmp/ok")
	p.check(err)
	h := HealthConfig{Test: test, Interval: 100 * time.Millisecond, Retries: 2, StartPeriod: time.Hour, StartInterval: 50 * time.Millisecond}
	c := p.start("trap 'exit 0' TERM; while test ! -e /tmp/go; do sleep 0.05; done; touch /tmp/ok; while test -e /tmp/ok; do sleep 0.05; done; while :; do sleep 0.05; done", Options{Health: &h})
	clitest.Eventually(t, func() error {
		if h, err := LoadHealth(p.root, c.ID); err != nil || len(h.Log) == 0 || h.Status != Starting || h.FailingStreak != 0 {
			return fmt.Errorf("%+v %v", h, err)
		}
		return nil
	})
	os.WriteFile(filepath.Join(c.Bundle, "rootfs/tmp/go"), nil, 0o600)
	r, err := Wait(t.Context(), p.root, c.ID, UntilHealthy)
	p.check(err)
	state, err := LoadHealth(p.root, c.ID)
	p.check(err)
	if last := state.Log[len(state.Log)-1]; last.Output != "looked\n" || last.ExitCode != 0 || r.Status != StatusRunning {
		t.Errorf("%+v", last)
	}
	os.Remove(filepath.Join(c.Bundle, "rootfs/tmp/ok"))
	clitest.Eventually(t, func() error {
		if f, _, _, err := Merge(p.root, c.ID, "running"); err != nil || f.Health != Unhealthy {
			return fmt.Errorf("%+v %v", f, err)
		}
		return nil
	})
	if _, err := Wait(t.Context(), p.root, c.ID, UntilHealthy); err == nil {
		t.Error("waited for an unhealthy container without an error")
	}
	p.check(Stop(t.Context(), p.root, c.ID, 0, nil))
	if _, err := Wait(t.Context(), p.root, c.ID, UntilHealthy); err == nil {
		t.Error("waited for the health of a container that ended")
	}
}

// A check that hangs is killed, counts as failed, and an unhealthy container is dealt with as asked.
func TestHealthTimeout(t *testing.T) {
	p := newPlace(t)
	h := HealthConfig{Test: []string{"CMD-SHELL", "test ! -e /tmp/ready || exec sleep 1000"}, Interval: 20 * time.Millisecond, Timeout: time.Second, Retries: 1}
	c := p.start("trap 'exit 9' TERM; touch /tmp/ready; while :; do sleep 0.05; done", Options{Health: &h, OnUnhealthy: "stop", Restart: Policy{Name: "always"}})
	if r := p.ended(c); r.Exit.Code != 9 || r.Restarts != 0 {
		t.Errorf("%+v", r)
	}
	h = HealthConfig{Test: []string{"CMD", "/no/such"}, Interval: 20 * time.Millisecond, Retries: 1}
	c = p.start("trap 'exit 0' TERM; while :; do sleep 0.05; done", Options{Health: &h, OnUnhealthy: "restart", StopTimeout: new(int), Restart: Policy{Name: "always"}})
	clitest.Eventually(t, func() error {
		if r, err := Load(p.root, c.ID); err != nil || r.Restarts < 2 {
			return fmt.Errorf("%+v %v", r, err)
		}
		return nil
	})
}

// After kill -9 of its supervisor a container lives on, writes without dying, and can be stopped and deleted.
func TestSupervisorKilled(t *testing.T) {
	p := newPlace(t)
	c := p.start("trap 'exit 0' TERM; while :; do echo alive; sleep 0.02; done", Options{})
	r, err := Load(p.root, c.ID)
	p.check(err)
	p.check(unix.Kill(r.Pid, unix.SIGKILL))
	clitest.Eventually(t, func() error {
		if r.Alive() {
			return errors.New("the supervisor lives")
		}
		return nil
	})
	time.Sleep(200 * time.Millisecond) // it writes meanwhile
	f, status, _, err := Merge(p.root, c.ID, "running")
	if err != nil || status != StatusRunning || !f.Supervised || !f.Lost || !r.initAlive() {
		t.Errorf("%+v %s %v", f, status, err)
	}
	p.check(Stop(t.Context(), p.root, c.ID, 0, nil))
	if r.initAlive() {
		t.Error("it was not stopped")
	}
	if _, status, _, _ := Merge(p.root, c.ID, "stopped"); status != StatusStopped {
		t.Error(status)
	}
}

// Without its directory nobody could find a container again: it is stopped.
func TestDirectoryRemoved(t *testing.T) {
	p := newPlace(t)
	c := p.start("trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done", Options{Restart: Policy{Name: "always"}})
	p.printed(c, "ready\n")
	r, err := Load(p.root, c.ID)
	p.check(err)
	clitest.Eventually(t, func() error { return os.RemoveAll(Dir(p.root, c.ID)) })
	clitest.Eventually(t, func() error {
		if r.Alive() || r.initAlive() {
			return errors.New("it runs on")
		}
		return nil
	})
	if out, err := p.runtime("delete", "--force", c.ID); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// A start that fails says why and leaves nothing.
func TestStartFails(t *testing.T) {
	p := newPlace(t)
	c := p.container("true", Options{})
	p.edit(c.Bundle, func(c map[string]any) { c["process"].(map[string]any)["args"] = []string{"/no/such/program"} })
	err := Start(c)
	var exit fault.Exit
	if err == nil || !errors.As(err, &exit) || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("%v", err)
	}
	ids, _ := IDs(p.root)
	if _, err := os.Lstat(filepath.Join(p.root, c.ID)); len(ids) != 0 || err == nil {
		t.Errorf("left: %v %v", ids, err)
	}
	c.Bundle = t.TempDir()
	if err := Start(c); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no bundle: %v", err)
	}
	c = p.start("exec sleep 1000", Options{})
	if err := Start(c); !errors.Is(err, fs.ErrExist) {
		t.Errorf("twice: %v", err)
	}
	if err := BeforeDelete(t.Context(), p.root, c.ID, false); !errors.Is(err, fault.ErrBusy) {
		t.Errorf("delete of a running one: %v", err)
	}
	p.check(BeforeDelete(t.Context(), p.root, c.ID, true))
	if r := p.ended(c); r.Exit.Code != 137 {
		t.Errorf("%+v", r.Exit)
	}
	if err := BeforeDelete(t.Context(), p.root, "unknown", true); err != nil {
		t.Error(err)
	}
}

func TestKillEndsRestarts(t *testing.T) {
	p := newPlace(t)
	c := p.start("trap 'echo hup' HUP; echo ready; while :; do sleep 0.02; done", Options{Restart: Policy{Name: "always"}})
	r, err := Load(p.root, c.ID)
	p.check(err)
	p.printed(c, "ready\n")
	for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGKILL} {
		p.check(BeforeKill(p.root, c.ID, int(sig)))
		p.check(unix.Kill(r.InitPid, sig))
		if sig == unix.SIGHUP {
			p.printed(c, "ready\nhup\n")
		}
	}
	if r := p.ended(c); r.Exit.Code != 137 || r.Restarts != 0 || !r.Stopped {
		t.Errorf("%+v", r)
	}
}

// Several clients see the same output; one of them types; the descriptor limit and a slow client harm nobody.
func TestAttach(t *testing.T) {
	p := newPlace(t)
	c := p.start("cat; echo over >&2; exit 6", Options{Interactive: true})
	type result struct {
		out, err string
		status   int
		e        error
	}
	results := make(chan result, 2)
	dir := t.TempDir()
	attach := func(n int, stdin *os.File) {
		out, err := os.Create(fmt.Sprintf("%s/out%d", dir, n))
		p.check(err)
		errs, err := os.Create(fmt.Sprintf("%s/err%d", dir, n))
		p.check(err)
		go func() {
			status, err := Attach(p.root, c.ID, AttachOptions{Stdin: stdin, Stdout: out, Stderr: errs})
			o, _ := os.ReadFile(out.Name())
			e, _ := os.ReadFile(errs.Name())
			results <- result{string(o), string(e), status, err}
		}()
	}
	r, w, err := os.Pipe()
	p.check(err)
	attach(1, nil)
	attach(2, r)
	w.WriteString("first\n")
	clitest.Eventually(t, func() error { // both are there
		for n := 1; n <= 2; n++ {
			if b, _ := os.ReadFile(fmt.Sprintf("%s/out%d", dir, n)); len(b) == 0 {
				w.WriteString("more\n")
				return errors.New("a client got nothing")
			}
		}
		return nil
	})
	big := strings.Repeat("0123456789abcdef", 20_000)
	w.WriteString(big)
	w.Close()
	for range 2 {
		got := <-results
		if got.e != nil || got.status != 6 || got.err != "over\n" || !strings.HasSuffix(got.out, big) {
			t.Errorf("%d %v %q, %d bytes", got.status, got.e, got.err, len(got.out))
		}
	}
	st, err := os.Stat(filepath.Dir(Dir(p.root, c.ID)))
	p.check(err)
	if st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", st.Mode())
	}
	if _, err := Attach(p.root, c.ID, AttachOptions{}); err == nil {
		t.Error("attached to what has ended")
	}
}

func TestTerminal(t *testing.T) {
	p := newPlace(t)
	c := p.container("read x; stty size; echo got $x; exit 4", Options{})
	p.edit(c.Bundle, func(c map[string]any) { c["process"].(map[string]any)["terminal"] = true })
	p.check(Start(c))
	conn, err := dial(p.root, c.ID)
	p.check(err)
	defer conn.Close()
	for _, packet := range []string{"w30 100", "ihello\r"} {
		_, err := conn.Write([]byte(packet))
		p.check(err)
	}
	out, err := os.Create(t.TempDir() + "/out")
	p.check(err)
	status, err := receive(conn, out, nil)
	p.check(err)
	if got := p.logged(c)[log.Stdout]; status != 4 || !strings.Contains(got, "30 100\r\ngot hello\r\n") {
		t.Errorf("%d %q", status, got)
	}
}

// A user who is not root may open /dev/stdout again, and no descriptor of the supervisor's caller leaks.
func TestPipesBelongToTheUser(t *testing.T) {
	p := newPlace(t)
	c := p.container("id -u; echo again >/dev/stdout; echo bad >/dev/stderr; echo /proc/self/fd/*", Options{})
	p.edit(c.Bundle, func(c map[string]any) {
		c["process"].(map[string]any)["user"] = map[string]any{"uid": 1234, "gid": 1234}
	})
	leak, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // not close-on-exec
	p.check(err)
	defer unix.Close(leak)
	p.check(Start(c))
	p.ended(c)
	got := p.logged(c)
	if got[log.Stdout] != "1234\nagain\n/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3\n" || got[log.Stderr] != "bad\n" {
		t.Errorf("%q", got)
	}
}

func TestOOM(t *testing.T) {
	p := newPlace(t)
	c := p.container("x=$(dd if=/dev/zero bs=1000000 count=200 2>/dev/null | tr '\\0' x)", Options{})
	p.edit(c.Bundle, func(c map[string]any) {
		c["linux"].(map[string]any)["resources"] = map[string]any{"memory": map[string]any{"limit": 16 << 20}}
	})
	p.check(Start(c))
	if r := p.ended(c); !r.Exit.OOMKilled || r.Exit.Code != 137 || r.Exit.Signal != 9 {
		t.Errorf("%+v", r.Exit)
	}
}
