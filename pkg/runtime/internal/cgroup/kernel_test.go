// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/cli/clitest"
	"github.com/ctr-tools/ctr/pkg/fault"
)

// inV2 is set in the copy of the test that TestOnV2 runs.
const inV2 = "CTR_TEST_CGROUP_V2"

// TestOnV2 runs the tests against the kernel again where /sys/fs/cgroup is a v2 mount, whatever the machine has.
func TestOnV2(t *testing.T) {
	clitest.Root(t)
	clitest.Need(t, "unshare")
	if os.Getenv(inV2) != "" {
		return
	}
	cmd := exec.Command("unshare", "-m", "sh", "-c",
		`umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$0" -test.run '^TestKernel' -test.v`, "/proc/self/exe")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args[len(cmd.Args)-1] = exe
	cmd.Env = append(os.Environ(), inV2+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// fresh makes a cgroup of the test's own, and sees to it that nothing is left.
func fresh(t *testing.T, r *specs.LinuxResources) *Cgroup {
	t.Helper()
	clitest.Root(t)
	top := fmt.Sprintf("/ctr-test-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))
	c, err := Find(top+"/mid/leaf", "id")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range c.Paths() {
			if _, err := os.Stat(p.Dir); err == nil {
				t.Errorf("%s is left", p.Dir)
			}
			for d := filepath.Dir(p.Dir); strings.Contains(d, top); d = filepath.Dir(d) {
				if err := unix.Rmdir(d); err != nil && err != unix.ENOENT {
					t.Errorf("%s: %v", d, err)
				}
			}
		}
	})
	if err := c.Create(r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Kill(); err != nil {
			t.Error(err)
		}
		if err := c.Remove(); err != nil {
			t.Error(err)
		}
	})
	if (os.Getenv(inV2) != "") != c.V2() {
		t.Fatalf("V2 is %v", c.V2())
	}
	return c
}

// start runs a shell script in c; the function waits for it and returns its output.
func start(t *testing.T, c *Cgroup, script string) (*exec.Cmd, func() (string, error)) {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read go; "+script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	fd, err := c.FD()
	if err != nil {
		t.Fatal(err)
	}
	if fd >= 0 {
		defer unix.Close(fd)
		cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd.WaitDelay = time.Second
	t.Cleanup(func() { _ = c.Kill(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if fd < 0 {
		if err := c.Join(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = io.WriteString(in, "\n")
	return cmd, func() (string, error) { err := cmd.Wait(); return out.String(), err }
}

func TestKernelLife(t *testing.T) {
	c := fresh(t, nil)
	if err := c.Apply(nil); err != nil {
		t.Fatal(err)
	}
	cmd, _ := start(t, c, "sleep 100 & sleep 100 & wait")
	// The process is where it should be in every hierarchy.
	clitest.Eventually(t, func() error {
		list, err := c.Pids()
		if err == nil && len(list) != 3 {
			err = fmt.Errorf("%d processes, want 3", len(list))
		}
		return err
	})
	own, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range c.Paths() {
		if !strings.Contains(string(own), ":"+p.Controller+":/ctr-test-") {
			t.Errorf("hierarchy %q: process is elsewhere:\n%s", p.Controller, own)
		}
	}
	s, err := c.Stats()
	if err != nil || s.Pids.Current != 3 || s.CPU.Total == 0 && !c.V2() {
		t.Errorf("stats %+v, %v", s, err)
	}
	// Saved and opened again it is the same.
	c2 := FromPaths(c.Map())
	if list, err := c2.Pids(); err != nil || !slices.Contains(list, cmd.Process.Pid) {
		t.Errorf("after FromPaths: %v, %v", list, err)
	}
	if err := c2.Freeze(); err != nil {
		t.Fatal(err)
	}
	if f, err := c2.Frozen(); err != nil || !f {
		t.Errorf("frozen: %v, %v", f, err)
	}
	if err := c2.Thaw(); err != nil {
		t.Fatal(err)
	}
	if f, err := c2.Frozen(); err != nil || f {
		t.Errorf("thawed, frozen: %v, %v", f, err)
	}
	// A second container may not use it.
	if c3, err := Find(strings.TrimPrefix(c.paths[0].Dir, c.paths[0].mount), "id"); err != nil {
		t.Error(err)
	} else if err := c3.Create(nil); !errors.Is(err, fault.ErrBusy) {
		t.Errorf("second Create: %v, want %v", err, fault.ErrBusy)
	}
	// Frozen processes die as well, also in cgroups that the container made itself.
	sub := c.census() + "/sub"
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := c.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := c.Remove(); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(); err != nil {
		t.Errorf("second Remove: %v", err)
	}
	if list, err := c.Pids(); err != nil || len(list) != 0 {
		t.Errorf("after Remove: %v, %v", list, err)
	}
	if _, err := c.Stats(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stats after Remove: %v", err)
	}
}

func TestKernelDevices(t *testing.T) {
	if _, err := os.Stat("/dev/kmsg"); err != nil {
		t.Skip("SKIP: needs /dev/kmsg")
	}
	n := func(v int64) *int64 { return &v }
	try := `t() { if eval "$2"; then echo "$1 yes"; else echo "$1 no"; fi 2>/dev/null; }
t null 'true <>/dev/null'; t kmsg-r 'true </dev/kmsg' 2>/dev/null; t kmsg-w 'true >>/dev/kmsg' 2>/dev/null`
	for name, d := range map[string]struct {
		rules []specs.LinuxDeviceCgroup
		want  string
	}{
		"default":   {nil, "null yes, kmsg-r no, kmsg-w no"},
		"read":      {[]specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: n(1), Minor: n(11), Access: "r"}}, "null yes, kmsg-r yes, kmsg-w no"},
		"major":     {[]specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: n(1), Access: "rw"}}, "null yes, kmsg-r yes, kmsg-w yes"},
		"all":       {[]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, "null yes, kmsg-r yes, kmsg-w yes"},
		"all but":   {[]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}, {Type: "c", Major: n(1), Minor: n(11), Access: "w"}}, "null yes, kmsg-r yes, kmsg-w no"},
		"back":      {[]specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: n(1), Minor: n(11), Access: "rw"}, {Type: "c", Major: n(1), Minor: n(11), Access: "w"}}, "null yes, kmsg-r yes, kmsg-w no"},
		"block too": {[]specs.LinuxDeviceCgroup{{Allow: true, Type: "b", Major: n(1), Minor: n(11), Access: "rw"}}, "null yes, kmsg-r no, kmsg-w no"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			c := fresh(t, nil)
			if err := c.Apply(&specs.LinuxResources{Devices: d.rules}); err != nil {
				t.Fatal(err)
			}
			_, wait := start(t, c, try)
			out, err := wait()
			if got := strings.Join(strings.Split(strings.TrimSpace(out), "\n"), ", "); got != d.want {
				t.Errorf("got %s, %v; want %s", got, err, d.want)
			}
			// An update while it lives: all rules go.
			if err := c.Update(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}}); err != nil {
				t.Fatal(err)
			}
			_, wait = start(t, c, try)
			out, err = wait()
			if got := strings.Join(strings.Split(strings.TrimSpace(out), "\n"), ", "); got != "null yes, kmsg-r no, kmsg-w no" {
				t.Errorf("after update: %s, %v", got, err)
			}
		})
	}
}

func TestKernelLimits(t *testing.T) {
	c := fresh(t, nil)
	if c.V2() {
		b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
		if err != nil || !strings.Contains(string(b), "memory") {
			// The controllers are with v1 here: what is asked for must be refused, by name.
			err := c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(1 << 30))}})
			if err == nil || !strings.Contains(err.Error(), "controller memory is missing in /sys/fs/cgroup") {
				t.Errorf("memory.limit without the controller: %v", err)
			}
			if strings.Contains(string(b), "hugetlb") {
				r := &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}}
				if err := c.Update(r); err != nil {
					t.Error(err)
				}
				if b, _ := os.ReadFile(c.paths[0].Dir + "/hugetlb.2MB.max"); strings.TrimSpace(string(b)) != "4194304" {
					t.Errorf("hugetlb.2MB.max %s", b)
				}
			}
			t.Skip("SKIP: memory, cpu and pids limits: v1 hierarchies hold the controllers")
		}
	}
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: p(int64(32 << 20)), Swap: p(int64(32 << 20))},
		Pids:   &specs.LinuxPids{Limit: p(int64(5))},
		CPU:    &specs.LinuxCPU{Shares: p(uint64(512)), Quota: p(int64(50000)), Period: p(uint64(100000)), Cpus: "0", Mems: "0"},
	}
	if err := c.Apply(r); err != nil {
		t.Fatal(err)
	}
	_, wait := start(t, c, "tail /dev/zero; echo $?")
	if out, err := wait(); !strings.HasSuffix(strings.TrimSpace(out), "137") {
		t.Errorf("memory: %s, %v", out, err)
	}
	if n, err := c.OOMKills(); n == 0 || err != nil {
		t.Errorf("OOMKills: %d, %v", n, err)
	}
	_, wait = start(t, c, "for i in 1 2 3 4 5 6 7 8; do sleep 10 & done; wait")
	clitest.Eventually(t, func() error {
		s, err := c.Stats()
		if err == nil && (s.Pids.Limit != 5 || s.Memory.Limit != 32<<20 || s.Memory.OOMKills == 0) {
			err = fmt.Errorf("stats %+v", s)
		}
		return err
	})
	// The kernel counts the forks that it refused.
	clitest.Eventually(t, func() error {
		for _, p := range c.Paths() {
			b, err := os.ReadFile(p.Dir + "/pids.events")
			if n, ok := strings.CutPrefix(strings.TrimSpace(string(b)), "max "); err == nil && ok && n != "0" {
				return nil
			}
		}
		return errors.New("pids.events: no fork was refused, with a limit of 5 and 9 processes wanted")
	})
	if err := c.Kill(); err != nil {
		t.Error(err)
	}
	out, _ := wait()
	if out != "" && !strings.HasPrefix(out, "sh: ") { // its complaint that it cannot fork, perhaps cut short by the kill
		t.Errorf("pids: %s", out)
	}
	// Limits move both ways, memory and swap together.
	for _, mem := range []int64{64 << 20, 16 << 20, -1} {
		u := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(mem), Swap: p(mem)}}
		if err := c.Update(u); err != nil {
			t.Errorf("update to %d: %v", mem, err)
		}
	}
	err := c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(1)), CheckBeforeUpdate: p(true)}})
	if s, _ := c.Stats(); err == nil && s.Memory.Usage > 1 {
		t.Error("checkBeforeUpdate took a limit below the usage")
	}
}

func TestKernelForkBomb(t *testing.T) {
	clitest.Need(t, "perl")
	c := fresh(t, nil)
	r := &specs.LinuxResources{}
	if c.dir("pids") != "" {
		r.Pids = &specs.LinuxPids{Limit: p(int64(20))}
	}
	if err := c.Apply(r); err != nil {
		t.Fatal(err)
	}
	if r.Pids == nil {
		t.Skip("SKIP: needs the pids controller")
	}
	start(t, c, `exec perl -e "fork while 1"`)
	clitest.Eventually(t, func() error {
		if list, _ := c.Pids(); len(list) < 15 {
			return errors.New("no bomb")
		}
		return nil
	})
	// Cleanup kills and removes.
}

func TestKernelFind(t *testing.T) {
	clitest.Root(t)
	for path, want := range map[string]string{"/": "top of the hierarchy", "/../..": "top of the hierarchy", "a:b:c": "systemd", "/a\nb": "control character"} {
		if _, err := Find(path, "x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", path, err, want)
		}
	}
	for _, path := range []string{"/../../../etc/x", "../../../../etc/x", "", "rel"} {
		c, err := Find(path, "id")
		if err != nil {
			t.Errorf("%q: %v", path, err)
			continue
		}
		for _, p := range c.Paths() {
			if !strings.HasPrefix(p.Dir, p.mount+"/") || strings.Contains(p.Dir, "..") {
				t.Errorf("%q: %+v", path, p)
			}
			if path == "" && filepath.Base(p.Dir) != "id" {
				t.Errorf("empty path: %+v", p)
			}
		}
	}
}

// A failed Create leaves nothing.
func TestKernelUndo(t *testing.T) {
	clitest.Root(t)
	top := fmt.Sprintf("/ctr-test-%d-undo", os.Getpid())
	c, err := Find(top+"/cgroup.procs", "id")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Create(nil); err == nil {
		t.Error("a cgroup was made where a file is")
	}
	for _, p := range c.Paths() {
		if _, err := os.Stat(p.mount + top); err == nil {
			t.Errorf("%s%s is left", p.mount, top)
		}
	}
}
