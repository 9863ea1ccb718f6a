// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// Join moves a process into the container's cgroups. The writes go out back to back: on v1 the first one waits for a
// grace period of the kernel (10 ms), those right behind it for nothing.
func (c *Cgroup) Join(pid int) error {
	s := strconv.Itoa(pid)
	for i := range c.paths {
		if err := join(c.paths[i].Dir, s); err != nil {
			return err
		}
	}
	return nil
}

func join(dir, pid string) error {
	for try := 0; ; try++ {
		err := writeFile(dir, "cgroup.procs", pid)
		// EINVAL: the process is new and not on a run queue yet.
		if err == nil || !errors.Is(err, unix.EINVAL) || try == 10 {
			return joinHint(err, dir)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func joinHint(err error, dir string) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return fault.Hint(err, "%s passes controllers on to cgroups below it and cannot hold processes itself; choose a cgroupsPath below a cgroup without any", dir)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fault.Hint(err, "%s is in an invalid domain: a cgroup above it is threaded or holds processes", dir)
	}
	return err
}

// FD opens the container's cgroup for CLONE_INTO_CGROUP (clone3(2)); the descriptor is close-on-exec. It is -1 where
// that is not enough, on v1 and hybrid machines: Join there.
func (c *Cgroup) FD() (int, error) {
	if !c.V2() {
		return -1, nil
	}
	fd, err := openAt(c.paths[0].Dir, "", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", c.paths[0].Dir, err)
	}
	return fd, nil
}

// Sub is the cgroup at path below c, in the hierarchies named, or in all if controllers is empty. It exists already
// or Join fails (exec --cgroup).
func (c *Cgroup) Sub(controllers, path string) (*Cgroup, error) {
	for e := range strings.SplitSeq(path, "/") {
		if e == ".." {
			return nil, fmt.Errorf("cgroup %q must stay below the container's", path)
		}
	}
	for name := range strings.SplitSeq(controllers, ",") {
		known := controllers == ""
		for _, p := range c.paths {
			known = known || has(p.Controller, name)
		}
		if !known {
			return nil, fmt.Errorf("cgroup %s:%s: unknown controller %q", controllers, path, name)
		}
	}
	s := &Cgroup{paths: make([]Path, 0, len(c.paths))}
	for _, p := range c.paths {
		if controllers == "" || p.Controller != "" && hasAny(p.Controller, controllers) {
			p.Dir = strings.TrimSuffix(p.Dir+"/"+strings.Trim(path, "/"), "/")
		}
		s.paths = append(s.paths, p)
	}
	return s, nil
}

func hasAny(list, names string) bool {
	for n := range strings.SplitSeq(names, ",") {
		if has(list, n) {
			return true
		}
	}
	return false
}

// census is the directory whose processes stand for the container's: v2 where there is one.
func (c *Cgroup) census() string {
	if u := c.unified(); u != "" {
		return u
	}
	for _, k := range [...]string{"freezer", "devices", "pids", "memory"} {
		if d := c.dir(k); d != "" {
			return d
		}
	}
	if len(c.paths) > 0 {
		return c.paths[0].Dir
	}
	return ""
}

// Pids lists the processes in the container's cgroup and below it. A cgroup that is gone has none.
func (c *Cgroup) Pids() ([]int, error) {
	d := c.census()
	if d == "" {
		return nil, nil
	}
	return pids(nil, d)
}

func pids(list []int, dir string) ([]int, error) {
	b, err := readFile(dir, "cgroup.procs")
	if errors.Is(err, unix.EOPNOTSUPP) {
		b, err = readFile(dir, "cgroup.threads")
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	for f := range strings.FieldsSeq(string(b)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("%s/cgroup.procs: %w", dir, err)
		}
		if pid > 0 { // 0: a process of another pid namespace
			list = append(list, pid)
		}
	}
	err = children(dir, func(sub string) error {
		list, err = pids(list, sub)
		return err
	})
	return list, err
}

// children calls f for every cgroup right below dir.
func children(dir string, f func(sub string) error) error {
	fd, err := openAt(dir, "", unix.O_RDONLY|unix.O_DIRECTORY)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(fd)
	// A cgroup's links are itself, its entry above, and its children's "..": most have none, which ends it here.
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Nlink == 2 {
		return nil
	}
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return err
		}
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		for _, name := range names {
			sub := dir + "/" + name
			if unix.Lstat(sub, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
				continue
			}
			if err := f(sub); err != nil {
				return err
			}
		}
	}
}

// Freeze stops all processes and returns when they stand.
func (c *Cgroup) Freeze() error { return c.setFrozen(true) }

// Thaw lets them go on.
func (c *Cgroup) Thaw() error { return c.setFrozen(false) }

func (c *Cgroup) setFrozen(want bool) error {
	if d := c.dir("freezer"); d != "" {
		return freezeV1(d, want)
	}
	d := c.unified()
	if d == "" {
		return fault.Hint(errors.New("freeze: the container has no freezer cgroup"), "mount the freezer controller, or run as root")
	}
	v := "0"
	if want {
		v = "1"
	}
	if err := writeFile(d, "cgroup.freeze", v); err != nil {
		return err
	}
	return poll(freezePatience, func() (bool, error) {
		frozen, err := c.Frozen()
		return frozen == want, err
	})
}

const freezePatience = 10 * time.Second

func freezeV1(d string, want bool) error {
	if !want {
		return writeFile(d, "freezer.state", "THAWED")
	}
	err := poll(freezePatience, func() (bool, error) {
		// A process that was just being made may have slipped past: the kernel looks again at each write.
		if err := writeFile(d, "freezer.state", "FROZEN"); err != nil {
			return false, err
		}
		b, err := readFile(d, "freezer.state")
		return string(b) == "FROZEN\n", err
	})
	if err != nil {
		_ = writeFile(d, "freezer.state", "THAWED")
	}
	return err
}

// poll calls f in growing distances until it is true.
func poll(patience time.Duration, f func() (bool, error)) error {
	for pause, waited := 50*time.Microsecond, time.Duration(0); ; pause = min(2*pause, 20*time.Millisecond) {
		done, err := f()
		if done || err != nil {
			return err
		}
		if waited >= patience {
			return fmt.Errorf("processes of the container did not stop within %v", patience)
		}
		time.Sleep(pause)
		waited += pause
	}
}

// Frozen says whether all processes stand.
func (c *Cgroup) Frozen() (bool, error) {
	if d := c.dir("freezer"); d != "" {
		b, err := readFile(d, "freezer.state")
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		return string(b) == "FROZEN\n", err
	}
	d := c.unified()
	if d == "" {
		return false, nil
	}
	b, err := readFile(d, "cgroup.events")
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	v, _ := field(b, "frozen")
	return v == 1, err
}

// Signal sends sig to every process of the container; those that start meanwhile are missed unless sig is KILL.
func (c *Cgroup) Signal(sig unix.Signal) error {
	if sig == unix.SIGKILL {
		return c.Kill()
	}
	list, err := c.Pids()
	if err != nil {
		return err
	}
	for _, pid := range list {
		if err := unix.Kill(pid, sig); err != nil && err != unix.ESRCH {
			return fmt.Errorf("signal %d to process %d: %w", sig, pid, err)
		}
	}
	return nil
}

// Kill ends every process of the container, also frozen and multiplying ones. It returns when the signals are sent;
// Remove waits for the ends.
func (c *Cgroup) Kill() error {
	u := c.unified()
	if u != "" {
		switch err := writeFile(u, "cgroup.kill", "1"); {
		case err == nil:
			if d := c.dir("freezer"); d != "" { // the v1 freezer holds even the killed
				_ = writeFile(d, "freezer.state", "THAWED")
			}
			return nil
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV): // before Linux 5.14, or gone
		case !errors.Is(err, unix.EOPNOTSUPP):
			return err
		}
	}
	// Frozen, a fork bomb cannot outrun us.
	frozen := c.setFrozen(true) == nil
	list, err := c.Pids()
	for _, pid := range list {
		if e := unix.Kill(pid, unix.SIGKILL); e != nil && e != unix.ESRCH && err == nil {
			err = fmt.Errorf("kill process %d: %w", pid, e)
		}
	}
	if frozen {
		if e := c.Thaw(); e != nil && !errors.Is(e, unix.ENOENT) && err == nil {
			err = e
		}
	}
	return err
}

// removePatience covers processes that are dying: their cgroup is busy until the kernel has freed their memory.
const removePatience = 10 * time.Second

// Remove takes the directories away, with cgroups the container made below them. It waits for processes that are
// ending; one that lives on is an error. What is gone already is fine.
func (c *Cgroup) Remove() error {
	var first error
	for i := range c.paths {
		if err := remove(c.paths[i].Dir, removePatience); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func remove(dir string, patience time.Duration) error {
	pause, waited := 50*time.Microsecond, time.Duration(0)
	for {
		err := unix.Rmdir(dir)
		switch err {
		case nil, unix.ENOENT:
			return nil
		case unix.EBUSY, unix.ENOTEMPTY, unix.EINTR:
		default:
			var st unix.Stat_t
			if unix.Lstat(dir, &st) == unix.ENOENT { // a read-only mount refuses before it looks
				return nil
			}
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		if e := children(dir, func(sub string) error { return remove(sub, patience-waited) }); e != nil {
			return e
		}
		if waited >= patience {
			err = fault.As(fault.ErrBusy, fmt.Errorf("remove cgroup %s: %w", dir, err))
			if list, e := pids(nil, dir); e == nil && len(list) > 0 {
				return fault.Hint(err, "process %d is still in it: kill it, or look at its state with ps -o pid,stat,wchan,args %[1]d", list[0])
			}
			return err
		}
		time.Sleep(pause)
		waited += pause
		pause = min(2*pause, 10*time.Millisecond)
	}
}
