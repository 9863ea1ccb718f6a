// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/cgroup"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/compile"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/hook"
	"github.com/ctr-tools/ctr/pkg/state"
)

// undo is a stack of what takes back the steps that were done.
type undo []func()

func (u *undo) add(f func()) { *u = append(*u, f) }

func (u *undo) run() {
	for i := len(*u) - 1; i >= 0; i-- {
		(*u)[i]()
	}
	*u = nil
}

// A creation is a container that is being made.
type creation struct {
	rt     *Runtime
	o      *CreateOptions
	config *config
	cgroup *cgroup.Cgroup
	state  *state.State
	launch *launch
	undo   undo
	dir    string
	lock   int
	result compile.Result
}

// Create makes a container whose init waits for [Runtime.Start]. Init is a child of the calling process.
func (r *Runtime) Create(ctx context.Context, o CreateOptions) (*Process, error) {
	c, err := r.create(ctx, &o, true)
	if err != nil {
		return nil, err
	}
	c.launch.close()
	return &Process{Pid: c.launch.pid}, nil
}

// create makes a container up to the point where init waits for start, or, without waiting, has executed the
// user's program. On failure nothing is left.
func (r *Runtime) create(ctx context.Context, o *CreateOptions, waitForStart bool) (c *creation, err error) {
	if err := state.CheckID(o.ID); err != nil {
		return nil, err
	}
	made := &creation{rt: r, o: o, lock: -1}
	c = made
	defer func() {
		if err != nil {
			made.undo.run()
		}
		if made.config != nil {
			made.config.fds.close()
		}
		if made.lock >= 0 {
			syscall.Close(made.lock)
		}
	}()
	if c.config = o.config; c.config == nil {
		if c.config, err = readConfig(o.Bundle); err != nil {
			return nil, err
		}
	}
	if err := c.prepare(waitForStart); err != nil {
		return nil, err
	}
	if err := c.compile(); err != nil {
		return nil, err
	}
	if err := c.begin(); err != nil {
		return nil, err
	}
	created, err := c.launch.follow()
	if err != nil {
		return nil, err
	}
	if waitForStart && !created {
		status, _ := wait(c.launch.pid)
		c.launch.reaped = true
		return nil, fmt.Errorf("init ended before it was ready: %s", describe(status))
	}
	if err := c.announce(); err != nil {
		return nil, err
	}
	return c, nil
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "signal " + strconv.Itoa(int(status.Signal())) + " (" + status.Signal().String() + ")"
	}
	return "exit status " + strconv.Itoa(status.ExitStatus())
}

// prepare looks at the host, makes the state directory and the cgroup, and opens all that init will need.
func (c *creation) prepare(waitForStart bool) (err error) {
	o, cfg := c.o, c.config
	s := cfg.spec
	if err := cfg.resolve(o.ID); err != nil {
		return err
	}
	switch {
	case s.Process.Terminal && o.Console == nil && o.ConsoleSocket == "":
		return fault.Usagef("process.terminal is true, but there is no console socket to send the terminal to")
	case !s.Process.Terminal && o.ConsoleSocket != "":
		return fault.Usagef("a console socket is given, but process.terminal is false")
	}
	preserve := o.PreserveFDs
	if n, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err == nil && n > 0 && n < 1<<16 { // sd_listen_fds(3)
		preserve += n
		s.Process.Env = append(s.Process.Env[:len(s.Process.Env):len(s.Process.Env)], "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_PID=1")
	}
	if err := cfg.fds.start(o.Stdio, preserve); err != nil {
		return err
	}
	f := &cfg.facts
	f.FirstFD, f.NoPivot, f.NoNewKeyring, f.PlainNL = 3+preserve, o.NoPivot, o.NoNewKeyring, o.plain
	if f.NoPivot {
		if f.Bare, err = bareMounts(f.Rootfs); err != nil {
			return err
		}
	}
	f.Report = cfg.fds.add(-1, false)
	home(s.Process, func() string { return cfg.homeOnHost(s.Process.User.UID) })
	if err := cfg.namespaces(); err != nil {
		return err
	}

	if c.dir, err = state.MakeDir(c.rt.root, o.ID); err != nil {
		return err
	}
	c.undo.add(func() { state.Remove(c.dir) })
	if c.lock, err = lockDir(c.dir); err != nil {
		return err
	}
	if c.cgroup, err = cfg.findCgroup(o.ID); err != nil {
		return err
	}
	if path := s.Linux.CgroupsPath; path != "" { // should we be killed before there is a state
		if err := syscall.Symlink(path, c.dir+"/"+state.CgroupLink); err != nil {
			return &os.PathError{Op: "symlink", Path: c.dir + "/" + state.CgroupLink, Err: err}
		}
	}
	if err := c.cgroup.Create(s.Linux.Resources); err != nil {
		return err
	}
	c.undo.add(func() { c.cgroup.Remove() })
	f.CgroupWait = len(c.cgroup.Paths()) > 0
	if fd, err := c.cgroup.FD(); err != nil {
		return err
	} else if fd >= 0 {
		f.CgroupFD = cfg.fds.add(fd, true)
		f.CgroupWait = joinsUser(f) // not allowed to clone into it from there
		if f.CgroupWait {
			f.CgroupFD = -1
		}
	}
	if err := cfg.trees(); err != nil {
		return err
	}
	if waitForStart {
		fd, err := listen(c.dir + "/" + state.StartFile)
		if err != nil {
			return err
		}
		f.Start = cfg.fds.add(fd, true)
	}
	if s.Process.Terminal {
		fd, err := consoleFD(o.Console, o.ConsoleSocket)
		if err != nil {
			return err
		}
		f.Console = cfg.fds.add(fd, true)
	}
	return nil
}

func joinsUser(f *compile.Facts) bool {
	for _, j := range f.Joins {
		if j.Type == specs.UserNamespace {
			return true
		}
	}
	return false
}

// lockDir holds a state directory while somebody works on the container; it is released at the end of the
// process at the latest.
func lockDir(dir string) (int, error) {
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	if err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		syscall.Close(fd)
		return -1, fmt.Errorf("%s: another ctr-run works on this container: %w", filepath.Base(dir), fault.ErrBusy)
	}
	return fd, nil
}

// listen makes the socket that init accepts the word to start on. A path longer than a socket address allows
// is reached through a descriptor of its directory.
func listen(path string) (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	err = atSocket(path, func(a *syscall.SockaddrUnix) error { return syscall.Bind(fd, a) })
	if err == nil {
		err = syscall.Listen(fd, 4)
	}
	if err != nil {
		syscall.Close(fd)
		return -1, &os.PathError{Op: "listen", Path: path, Err: err}
	}
	return fd, nil
}

func connect(path string) (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err := atSocket(path, func(a *syscall.SockaddrUnix) error { return syscall.Connect(fd, a) }); err != nil {
		syscall.Close(fd)
		return -1, &os.PathError{Op: "connect", Path: path, Err: err}
	}
	return fd, nil
}

func atSocket(path string, do func(*syscall.SockaddrUnix) error) error {
	if len(path) < 108 {
		return do(&syscall.SockaddrUnix{Name: path})
	}
	dir, err := syscall.Open(filepath.Dir(path), unix.O_PATH|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(dir)
	return do(&syscall.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(dir) + "/" + filepath.Base(path)})
}

// consoleFD is the socket for the terminal's master.
func consoleFD(console *os.File, path string) (int, error) {
	if console != nil {
		fd, err := unix.FcntlInt(console.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return -1, fmt.Errorf("console socket: %w", err)
		}
		return fd, nil
	}
	fd, err := connect(path)
	if err != nil {
		return -1, fmt.Errorf("console socket: %w", err)
	}
	return fd, nil
}

func (c *creation) compile() (err error) {
	c.config.facts.FDs = len(c.config.fds.files)
	c.result, err = compile.Init(c.config.spec, &c.config.facts)
	for _, w := range c.result.Warnings {
		c.rt.warn(w)
	}
	return err
}

func (r *Runtime) warn(message string) {
	if r.Warn != nil {
		r.Warn(message)
	}
}

// begin starts init, gives it ids and cgroup, writes the state, and lets it go.
func (c *creation) begin() (err error) {
	cfg := c.config
	l, err := spawn(c.result, &cfg.fds, cfg.facts.Report, c.rt.root, "/tmp", "/var/tmp", "/dev/shm")
	if err != nil {
		return err
	}
	c.launch = l
	c.undo.add(l.kill)
	l.process = cfg.spec.Process
	l.onHook = c.hook
	l.onCopyUp = func(mount, fd int) error { return copyUp(l.pid, &cfg.facts, cfg.spec.Mounts[mount].Destination, fd) }
	l.onListener = func(fd int) error { return sendListener(l.pid, fd, cfg.spec.Linux.Seccomp, c.state) }
	if err := cfg.mapIDs(l); err != nil {
		return err
	}
	// Meanwhile init mounts. The limits hold before the user's program or a hook is there, and on cgroup v1 before
	// init joins, as some of them have to.
	if err := c.cgroup.Apply(cfg.spec.Linux.Resources); err != nil {
		return err
	}
	if cfg.facts.CgroupWait {
		if err := c.cgroup.Join(l.pid); err != nil {
			return err
		}
	}
	if adj := cfg.spec.Process.OOMScoreAdj; adj != nil {
		err := writeFile("/proc/"+strconv.Itoa(l.pid)+"/oom_score_adj", strconv.Itoa(*adj))
		if err != nil && !(cfg.facts.Rootless && errors.Is(err, os.ErrPermission)) {
			return fmt.Errorf("process.oomScoreAdj: %w", err)
		}
	}
	started, _, err := state.StartTime(l.pid)
	if err != nil {
		return fmt.Errorf("init %d: %w", l.pid, err)
	}
	c.state = &state.State{
		ID: c.o.ID, Pid: l.pid, StartTime: started, Bundle: cfg.bundle, Rootfs: cfg.facts.Rootfs,
		Created: time.Now(), Owner: os.Geteuid(), Hooks: cfg.spec.Hooks != nil,
		SharedPids: !hasOwn(cfg.spec, specs.PIDNamespace), Annotations: cfg.spec.Annotations,
	}
	for _, p := range c.cgroup.Paths() {
		c.state.Cgroups = append(c.state.Cgroups, state.Cgroup{Controller: p.Controller, Dir: p.Dir})
	}
	if err := c.save(); err != nil {
		return err
	}
	return l.release()
}

func hasOwn(s *specs.Spec, t specs.LinuxNamespaceType) bool {
	for _, n := range s.Linux.Namespaces {
		if n.Type == t {
			return n.Path == ""
		}
	}
	return false
}

// save writes what the later verbs need: the state, the configuration as it is now, and what init's last calls
// are for, so that start can name a failure.
func (c *creation) save() error {
	if err := saveFile(c.dir+"/"+state.ConfigFile, c.config.raw); err != nil {
		return err
	}
	if c.config.facts.Start >= 0 {
		p := c.result.Program
		b := make([]byte, 0, 4096)
		for i := c.result.Waits; i < p.Len(); i++ {
			b = strconv.AppendInt(b, int64(i), 10)
			b = append(b, ' ')
			b = append(b, p.What(i)...)
			b = append(b, '\n')
		}
		if err := saveFile(c.dir+"/"+state.CallsFile, b); err != nil {
			return err
		}
	}
	return c.state.Write(c.rt.root)
}

// saveFile writes a file without package os, which would start its poller.
func saveFile(path string, data []byte) error {
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: path, Err: err}
	}
	n, err := syscall.Write(fd, data)
	if e := syscall.Close(fd); err == nil {
		err = e
	}
	if err == nil && n < len(data) {
		err = syscall.ENOSPC
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// mapIDs writes the id mappings of a new user namespace.
func (c *config) mapIDs(l *launch) error {
	if !hasOwn(c.spec, specs.UserNamespace) {
		return nil
	}
	proc := "/proc/" + strconv.Itoa(l.pid)
	text := func(list []specs.LinuxIDMapping) string {
		var b strings.Builder
		for _, m := range list {
			fmt.Fprintf(&b, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
		}
		return b.String()
	}
	write := func(file, helper string, list []specs.LinuxIDMapping) error {
		err := writeFile(proc+"/"+file, text(list))
		if err == nil || !c.facts.Rootless {
			return err
		}
		return runMapHelper(helper, l.pid, list)
	}
	if c.facts.Rootless && len(c.spec.Linux.GIDMappings) == 1 {
		// What user_namespaces(7) wants from who maps but the own group. With newgidmap the container may change its
		// groups, and has to: it would keep ours.
		if err := writeFile(proc+"/setgroups", "deny"); err != nil {
			return err
		}
	}
	if err := write("uid_map", "newuidmap", c.spec.Linux.UIDMappings); err != nil {
		return fmt.Errorf("linux.uidMappings: %w", err)
	}
	if err := write("gid_map", "newgidmap", c.spec.Linux.GIDMappings); err != nil {
		return fmt.Errorf("linux.gidMappings: %w", err)
	}
	return l.release()
}

// runMapHelper has the set-user-ID program of shadow-utils write mappings that a user may not write.
func runMapHelper(helper string, pid int, list []specs.LinuxIDMapping) error {
	args := []string{helper, strconv.Itoa(pid)}
	for _, m := range list {
		args = append(args, fmt.Sprint(m.ContainerID), fmt.Sprint(m.HostID), fmt.Sprint(m.Size))
	}
	child, err := syscall.ForkExec("/usr/bin/"+helper, args, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}, Env: []string{}})
	if err != nil {
		return fmt.Errorf("/usr/bin/%s: %w", helper, err)
	}
	status, err := wait(child)
	if err == nil && status != 0 {
		err = fmt.Errorf("%s: %s", strings.Join(args, " "), describe(status))
	}
	return err
}

// hook runs the hooks whose time has come.
func (c *creation) hook(kind compile.Kind) error {
	h := c.config.spec.Hooks
	if kind == compile.HookRuntime {
		//lint:ignore SA1019 deprecated by the specification, but callers still send it
		prestart := h.Prestart
		for _, list := range [...]struct {
			name  string
			hooks []specs.Hook
		}{{"prestart", prestart}, {"createRuntime", h.CreateRuntime}} {
			if err := hook.Run(list.name, list.hooks, c.config.bundle, c.state.OCI(state.Creating)); err != nil {
				return err
			}
		}
		return nil
	}
	if kind == compile.HookContainer {
		return runInside("createContainer", h.CreateContainer, c.config, c.state, state.Creating, true)
	}
	return runInside("startContainer", h.StartContainer, c.config, c.state, state.Created, false)
}

// announce tells who wants to know init's number.
func (c *creation) announce() error {
	if err := writePidFile(c.o.PidFile, c.launch.pid); err != nil {
		return err
	}
	return sendPidfd(c.o.PidfdSocket, c.launch.pid)
}

// writePidFile writes a number through a temporary name, so that a reader sees all of it or nothing and a link
// in the file's place is replaced.
func writePidFile(path string, pid int) error {
	if path == "" {
		return nil
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+strconv.Itoa(os.Getpid()))
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o666)
	if err != nil {
		return fmt.Errorf("pid file: %w", err)
	}
	_, err = f.WriteString(strconv.Itoa(pid))
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("pid file: %w", err)
	}
	return nil
}

// sendPidfd sends a descriptor of a process to a socket.
func sendPidfd(path string, pid int) error {
	if path == "" {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("pidfd of %d: %w", pid, err)
	}
	defer syscall.Close(fd)
	s, err := connect(path)
	if err != nil {
		return fmt.Errorf("pidfd socket: %w", err)
	}
	defer syscall.Close(s)
	if err := syscall.Sendmsg(s, []byte("pidfd"), syscall.UnixRights(fd), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("pidfd socket: %w", err)
	}
	return nil
}
