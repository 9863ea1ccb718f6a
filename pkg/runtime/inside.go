// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/runtime/internal/compile"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/hook"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/seccomp"
	"github.com/ctr-tools/ctr/pkg/state"
)

// namespacesOf is the CLONE_NEW flags that lead into a container: all types of its configuration, but the user
// namespace only if it is another one than ours, because joining one's own is an error.
func namespacesOf(s *specs.Spec, pid int) (flags uint64, user bool) {
	for _, n := range s.Linux.Namespaces {
		if n.Type == specs.UserNamespace {
			user = !sameNamespace(pid, "user")
			if !user {
				continue
			}
		}
		flags |= compile.NamespaceFlag(n.Type)
	}
	return flags, user
}

func sameNamespace(pid int, name string) bool {
	var a, b syscall.Stat_t
	return syscall.Stat("/proc/"+strconv.Itoa(pid)+"/ns/"+name, &a) == nil && syscall.Stat("/proc/self/ns/"+name, &b) == nil &&
		a.Ino == b.Ino && a.Dev == b.Dev
}

// rootOf gives a child the root directory of a process and returns its number there. Where we may not open it,
// as a user who is not root, it is -1: the root of the process's mount namespace has to do.
func rootOf(fds *fdTable, pid int) int {
	fd, err := syscall.Open("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fds.add(fd, true)
}

// runInside runs hooks in the namespaces of a container whose init waits. Before the change of root their paths
// are the host's and they are as privileged as init; after it they are the container's and run as its process
// does.
func runInside(name string, hooks []specs.Hook, c *config, st *state.State, status state.Status, beforePivot bool) error {
	for i := range hooks {
		h := &hooks[i]
		if err := runHookInside(h, c, st, status, beforePivot); err != nil {
			return hook.Error(name, i, h, err)
		}
	}
	return nil
}

func runHookInside(h *specs.Hook, c *config, st *state.State, status state.Status, beforePivot bool) error {
	s := *c.spec
	p := *c.spec.Process
	s.Process = &p
	p.Args = h.Args
	if len(p.Args) == 0 {
		p.Args = []string{h.Path}
	}
	if h.Env != nil || beforePivot { // a startContainer hook that names none has the process's, as with runc
		p.Env = h.Env
	}
	p.Terminal, p.Cwd = false, "/"
	if beforePivot {
		p.NoNewPrivileges, p.Rlimits = false, nil
		p.ApparmorProfile, p.SelinuxLabel = "", ""
	}
	stdin, err := stdinOf(st.OCI(status))
	if err != nil {
		return err
	}
	defer stdin.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	defer write.Close()
	pidfd, err := unix.PidfdOpen(st.Pid, 0)
	if err != nil {
		return err
	}
	var fds fdTable
	defer fds.close()
	if err := fds.start(Stdio{stdin, write, write}, 0); err != nil {
		return err
	}
	f := compile.Facts{ID: st.ID, Start: -1, Console: -1, CgroupFD: -1, FirstFD: 3, LastCap: c.facts.LastCap}
	f.Report = fds.add(-1, false)
	flags, user := namespacesOf(&s, st.Pid)
	f.UserNS = user
	e := compile.Exec{PidFD: fds.add(pidfd, true), Root: rootOf(&fds, st.Pid), Namespaces: flags, Program: h.Path, Privileged: beforePivot}
	if s.Linux.Seccomp != nil && !beforePivot { // it is the container's program, so it is held as tight
		filter, err := seccomp.Compile(s.Linux.Seccomp)
		if err != nil {
			return err
		}
		f.Seccomp, f.SeccompFlags, f.SeccompNotify = filter.Prog, filter.Flags, filter.Notify
	}
	f.FDs = len(fds.files)
	result, err := compile.Process(&s, &f, e)
	if err != nil {
		return err
	}
	l, err := spawn(result, &fds, f.Report, "/tmp", "/dev/shm")
	if err != nil {
		return err
	}
	l.process = &specs.Process{Args: []string{h.Path}, Cwd: "/"}
	l.onListener = func(fd int) error { return sendListener(l.pid, fd, s.Linux.Seccomp, st) }
	output := make(chan []byte, 1)
	go func() { output <- hook.Tail(read) }()
	if err := l.release(); err != nil {
		l.kill()
		return err
	}
	if _, err := l.follow(); err != nil {
		l.kill()
		return err
	}
	l.close()
	var expired *time.Timer
	late := make(chan bool, 1)
	if d := hook.Timeout(h); d > 0 {
		expired = time.AfterFunc(d, func() {
			late <- true
			syscall.Kill(-l.pid, syscall.SIGKILL) // it leads a session of its own
		})
		defer expired.Stop()
	}
	ws, err := wait(l.pid)
	write.Close()
	read.SetReadDeadline(time.Now().Add(time.Second)) // a child of the hook may hold the pipe for ever
	said := <-output
	select {
	case <-late:
		return fmt.Errorf("not done within %d s", *h.Timeout)
	default:
	}
	if err == nil && ws != 0 {
		err = errors.New(describe(ws))
	}
	if err != nil && len(said) > 0 {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return err
}

// stdinOf is a file that reads as data, through memory: a pipe could fill up.
func stdinOf(data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("state", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "state")
	if _, err := f.Write(data); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.Seek(0, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
