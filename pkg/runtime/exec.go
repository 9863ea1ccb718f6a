// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/cgroup"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/compile"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/console"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/seccomp"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/spec"
	"github.com/ctr-tools/ctr/pkg/state"
)

// StartExec starts a process in a running container, as a child of the calling process.
func (r *Runtime) StartExec(ctx context.Context, id string, o ExecOptions) (*Process, error) {
	st, cfg, err := r.execConfig(id, &o)
	if err != nil {
		return nil, err
	}
	return r.startExec(st, cfg, &o)
}

// Exec is StartExec and, unless Detach, Wait with signals passed on; the status is as Run's.
func (r *Runtime) Exec(ctx context.Context, id string, o ExecOptions) (status int, err error) {
	st, cfg, err := r.execConfig(id, &o)
	if err != nil {
		return 0, err
	}
	var foreground *console.Foreground
	if cfg.spec.Process.Terminal && !o.Detach && o.Console == nil && o.ConsoleSocket == "" {
		o.plain = !isTerminal(1)
		if foreground, err = openForeground(&o.Console); err != nil {
			return 0, err
		}
		defer foreground.Close()
	}
	p, err := r.startExec(st, cfg, &o)
	if err != nil || o.Detach {
		return 0, err
	}
	return attend(p.Pid, foreground)
}

// ParseProcess reads a process.json (exec --process).
func ParseProcess(data []byte) (*specs.Process, error) { return spec.ParseProcess(data) }

// execConfig reads the container's state and configuration and puts the process to start into it.
func (r *Runtime) execConfig(id string, o *ExecOptions) (*state.State, *config, error) {
	st, err := state.Read(r.root, id)
	if err != nil {
		return nil, nil, err
	}
	if !st.Alive() {
		return nil, nil, fmt.Errorf("%s: cannot exec in a stopped container", id)
	}
	g := cgroupOf(st)
	if !o.IgnorePaused {
		if frozen, err := g.Frozen(); err == nil && frozen {
			return nil, nil, fault.Hint(fmt.Errorf("%s: cannot exec in a paused container (use --ignore-paused to override)", id), "ctr-run resume %s", id)
		}
	}
	cfg, err := r.savedConfig(st)
	if err != nil {
		return nil, nil, err
	}
	if o.Process != nil {
		cfg.spec.Process = o.Process
	} else {
		o.apply(cfg.spec.Process)
	}
	if err := spec.CheckProcess(cfg.spec.Process); err != nil {
		return nil, nil, fault.As(fault.ErrUsage, fmt.Errorf("process.%w", err))
	}
	return st, cfg, nil
}

// apply changes the container's own process into the one that the options describe.
func (o *ExecOptions) apply(p *specs.Process) {
	p.Args = o.Args
	p.Env = append(p.Env[:len(p.Env):len(p.Env)], o.Env...)
	p.Terminal, p.ConsoleSize = false, nil
	if o.Cwd != "" {
		p.Cwd = o.Cwd
	}
	if o.Terminal != nil {
		p.Terminal = *o.Terminal
	}
	if o.User != nil {
		umask := p.User.Umask
		p.User = *o.User
		if p.User.Umask == nil {
			p.User.Umask = umask
		}
	}
	p.User.AdditionalGids = append(p.User.AdditionalGids[:len(p.User.AdditionalGids):len(p.User.AdditionalGids)], o.AdditionalGids...)
	if o.NoNewPrivs != nil {
		p.NoNewPrivileges = *o.NoNewPrivs
	}
	if len(o.Capabilities) > 0 {
		var c specs.LinuxCapabilities
		if p.Capabilities != nil {
			c = *p.Capabilities
		}
		add := func(list []string) []string { return append(list[:len(list):len(list)], o.Capabilities...) }
		c.Bounding, c.Effective, c.Permitted = add(c.Bounding), add(c.Effective), add(c.Permitted)
		if len(c.Inheritable) > 0 { // without, nothing can be ambient
			c.Ambient = add(c.Ambient)
		}
		p.Capabilities = &c
	}
}

func cgroupOf(st *state.State) *cgroup.Cgroup {
	paths := make([]cgroup.Path, len(st.Cgroups))
	for i, c := range st.Cgroups {
		paths[i] = cgroup.Path{Controller: c.Controller, Dir: c.Dir}
	}
	return cgroup.Open(paths)
}

func (r *Runtime) startExec(st *state.State, cfg *config, o *ExecOptions) (_ *Process, err error) {
	s, f := cfg.spec, &cfg.facts
	switch {
	case s.Process.Terminal && o.Console == nil && o.ConsoleSocket == "":
		return nil, fault.Usagef("the process wants a terminal, but there is no console socket to send it to")
	case !s.Process.Terminal && o.ConsoleSocket != "":
		return nil, fault.Usagef("a console socket is given, but the process wants no terminal")
	}
	pidfd, err := unix.PidfdOpen(st.Pid, 0)
	if err != nil || !st.Alive() { // asked again: from here on the number cannot be another process's
		return nil, errors.Join(fmt.Errorf("%s: container not running", st.ID), err)
	}
	defer cfg.fds.close()
	if err := cfg.fds.start(o.Stdio, o.PreserveFDs); err != nil {
		syscall.Close(pidfd)
		return nil, err
	}
	f.ID, f.Rootless = st.ID, os.Geteuid() != 0
	f.Start, f.Console, f.CgroupFD = -1, -1, -1
	f.FirstFD, f.PlainNL = 3+o.PreserveFDs, o.plain
	f.Report = cfg.fds.add(-1, false)
	e := compile.Exec{PidFD: cfg.fds.add(pidfd, true), Root: rootOf(&cfg.fds, st.Pid)}
	e.Namespaces, f.UserNS = namespacesOf(s, st.Pid)

	home(s.Process, func() string {
		root, err := syscall.Open("/proc/"+strconv.Itoa(st.Pid)+"/root", unix.O_PATH|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return ""
		}
		defer syscall.Close(root)
		dir, _ := homeIn(root, s.Process.User.UID)
		return dir
	})
	if s.Linux.Seccomp != nil {
		filter, err := seccomp.Compile(s.Linux.Seccomp)
		if err != nil {
			return nil, err
		}
		f.Seccomp, f.SeccompFlags, f.SeccompNotify = filter.Prog, filter.Flags, filter.Notify
	}
	var initial []byte
	if a := s.Process.ExecCPUAffinity; a != nil {
		if initial, err = compile.CPUMask(a.Initial); err != nil {
			return nil, fmt.Errorf("process.execCPUAffinity.initial: %w", err)
		}
		if e.CPUs, err = compile.CPUMask(a.Final); err != nil {
			return nil, fmt.Errorf("process.execCPUAffinity.final: %w", err)
		}
	}
	g, err := execCgroup(st, o.Cgroup)
	if err != nil {
		return nil, err
	}
	fd, err := g.FD()
	if err != nil && len(o.Cgroup) == 0 {
		g = initCgroup(st)
		fd, err = g.FD()
	}
	if err != nil {
		return nil, err
	}
	join := len(g.Paths()) > 0
	if fd >= 0 {
		f.CgroupFD = cfg.fds.add(fd, true)
		join = false
	}
	if s.Process.Terminal {
		fd, err := consoleFD(o.Console, o.ConsoleSocket)
		if err != nil {
			return nil, err
		}
		f.Console = cfg.fds.add(fd, true)
	}
	f.FDs = len(cfg.fds.files)
	result, err := compile.Process(s, f, e)
	if err != nil {
		return nil, err
	}
	for _, w := range result.Warnings {
		r.warn(w)
	}
	l, err := spawn(result, &cfg.fds, f.Report, r.root, "/tmp", "/var/tmp", "/dev/shm")
	if errors.Is(err, syscall.EBUSY) && f.CgroupFD >= 0 && len(o.Cgroup) == 0 {
		// The container has given controllers to cgroups below, so its own may hold no process (cgroups(7)).
		if fd, e := initCgroup(st).FD(); e == nil {
			cfg.fds.own = append(cfg.fds.own, fd)
			cfg.fds.files[f.CgroupFD] = uintptr(fd)
			l, err = spawn(result, &cfg.fds, f.Report, r.root, "/tmp", "/var/tmp", "/dev/shm")
		}
	}
	if err != nil {
		return nil, err
	}
	l.process = s.Process
	l.onListener = func(fd int) error { return sendListener(l.pid, fd, s.Linux.Seccomp, st) }
	if err := r.admit(l, g, join, initial, s.Process, st.ID); err != nil {
		l.kill()
		return nil, err
	}
	l.close()
	err = writePidFile(o.PidFile, l.pid)
	if err == nil {
		err = sendPidfd(o.PidfdSocket, l.pid)
	}
	if err != nil {
		syscall.Kill(l.pid, syscall.SIGKILL)
		wait(l.pid)
		return nil, err
	}
	return &Process{Pid: l.pid}, nil
}

// admit puts a new process into the container's cgroup and lets it execute its program.
func (r *Runtime) admit(l *launch, g *cgroup.Cgroup, join bool, cpus []byte, p *specs.Process, id string) error {
	if len(cpus) > 0 {
		var set unix.CPUSet
		for i := range 8 * len(cpus) {
			if cpus[i/8]&(1<<(i%8)) != 0 {
				set.Set(i)
			}
		}
		if err := unix.SchedSetaffinity(l.pid, &set); err != nil {
			return fmt.Errorf("process.execCPUAffinity.initial: %w", err)
		}
	}
	if join {
		if err := g.Join(l.pid); err != nil {
			return err
		}
	}
	if adj := p.OOMScoreAdj; adj != nil {
		if err := writeFile("/proc/"+strconv.Itoa(l.pid)+"/oom_score_adj", strconv.Itoa(*adj)); err != nil && os.Geteuid() == 0 {
			return fmt.Errorf("process.oomScoreAdj: %w", err)
		}
	}
	if err := l.release(); err != nil {
		return err
	}
	_, err := l.follow()
	return err
}

// execCgroup is where the new process goes: for each [CONTROLLERS:]PATH below the container's cgroup, else the
// container's own.
func execCgroup(st *state.State, subs []string) (g *cgroup.Cgroup, err error) {
	g = cgroupOf(st)
	for _, sub := range subs {
		controllers, path, ok := strings.Cut(sub, ":")
		if !ok {
			controllers, path = "", sub
		}
		if g, err = g.Sub(controllers, path); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// initCgroup is where init is now, on cgroup v2: a container may move its processes.
func initCgroup(st *state.State) *cgroup.Cgroup {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(st.Pid) + "/cgroup")
	if err == nil && len(st.Cgroups) == 1 {
		for line := range strings.Lines(string(b)) {
			if path, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "0::/"); ok {
				return cgroup.Open([]cgroup.Path{{Dir: "/sys/fs/cgroup/" + path}})
			}
		}
	}
	return cgroupOf(st)
}
