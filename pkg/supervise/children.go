// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// children waits for the processes that the supervisor started and for those it became the parent of: as
// subreaper it inherits the container's init from "ctr-run create", and a health check from "ctr-run exec --detach".
//
// Zombies that nobody asked for yet stay while a runtime process is at work, whose pid file will name one of them;
// so a pid cannot be used again before its status was fetched.
type children struct {
	mu    sync.Mutex
	known map[int]chan syscall.WaitStatus
	busy  int // runtime processes at work that may leave us a child
	stop  chan os.Signal
}

func newChildren() (*children, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, os.NewSyscallError("prctl subreaper", err)
	}
	c := &children{known: map[int]chan syscall.WaitStatus{}, stop: make(chan os.Signal, 1)}
	signal.Notify(c.stop, unix.SIGCHLD)
	go func() {
		for range c.stop {
			c.reap()
		}
	}()
	return c, nil
}

func (c *children) close() {
	signal.Stop(c.stop)
	close(c.stop)
}

func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for pid := range c.known {
		c.fetch(pid)
	}
	for c.busy == 0 && c.fetch(-1) {
	}
}

// fetch takes the status of a child (-1: any) that ended, and says whether there was one.
func (c *children) fetch(pid int) bool {
	var status syscall.WaitStatus
	got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
	for err == syscall.EINTR {
		got, err = syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
	}
	if err != nil || got <= 0 {
		return false
	}
	if ch := c.known[got]; ch != nil {
		ch <- status
		delete(c.known, got)
	}
	return true
}

// adopt returns where the status of a child will be: of one that we started, or that a runtime process left us.
func (c *children) adopt(pid int) <-chan syscall.WaitStatus {
	ch := make(chan syscall.WaitStatus, 1)
	c.mu.Lock()
	c.known[pid] = ch
	c.mu.Unlock()
	c.reap() // it may have ended already
	return ch
}

// hold keeps unknown zombies until release.
func (c *children) hold() {
	c.mu.Lock()
	c.busy++
	c.mu.Unlock()
}

func (c *children) release() {
	c.mu.Lock()
	c.busy--
	c.mu.Unlock()
	c.reap()
}

// kill kills a child unless its status was fetched, when its pid may be another process's.
func (c *children) kill(pid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[pid] != nil {
		unix.Kill(pid, unix.SIGKILL)
	}
}

// self is the program of this process, also after its file was replaced or removed.
const self = "/proc/self/exe"

// start starts a program with exactly the descriptors of files.
func (c *children) start(argv []string, files ...uintptr) (pid int, status <-chan syscall.WaitStatus, err error) {
	path := argv[0]
	if path == self {
		argv = append([]string{filepath.Base(os.Args[0])}, argv[1:]...)
	}
	ch := make(chan syscall.WaitStatus, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	pid, err = syscall.ForkExec(path, argv, &syscall.ProcAttr{Env: environ(), Files: files})
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w", argv[0], err)
	}
	c.known[pid] = ch
	return pid, ch, nil
}

// leanEnvironment is what the supervisor itself is started with: one thread of Go code, a small heap, and no
// files of its cgroup kept open.
var leanEnvironment = []string{"GOMAXPROCS=1", "GOGC=25", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"}

// environ is the environment without leanEnvironment.
func environ() (env []string) {
	for _, e := range os.Environ() {
		if !slices.Contains(leanEnvironment, e) {
			env = append(env, e)
		}
	}
	return env
}

// closeOnExec keeps descriptors that the caller happened to have open from everything that is started.
func closeOnExec() error {
	return os.NewSyscallError("close_range", unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC))
}

// exitCode is a process's status as the shell counts.
func exitCode(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

func readPid(path string) (int, error) {
	data, err := readSmall(path)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("%s: %q, want a pid", path, data)
	}
	return pid, nil
}
