// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A healthLoop checks one run. A nil one checks nothing.
type healthLoop struct {
	s    *supervisor
	c    *HealthConfig
	run  *run
	bad  chan struct{} // the container became unhealthy
	quit chan struct{}
	done chan struct{}
}

// startHealth begins the checks that the options ask for.
func (s *supervisor) startHealth(r *run) *healthLoop {
	c := s.record.Options.Health
	if c.disabled() {
		return nil
	}
	h := &healthLoop{s: s, c: c, run: r, bad: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	go h.loop()
	return h
}

func (h *healthLoop) failed() <-chan struct{} {
	if h == nil {
		return nil
	}
	return h.bad
}

// stop ends the checks, one that is at work too.
func (h *healthLoop) stop() {
	close(h.quit)
	<-h.done
}

func (h *healthLoop) loop() {
	defer close(h.done)
	health := Health{Status: Starting, Log: []Probe{}}
	for {
		pause := health.pause(h.c, time.Since(h.run.started))
		if pause >= time.Second {
			releaseMemory() // what the last check took
		}
		t := time.NewTimer(pause)
		select {
		case <-h.quit:
			t.Stop()
			return
		case <-t.C:
		}
		p := Probe{Start: time.Now().UTC()}
		var ok bool
		if p.ExitCode, p.Output, ok = h.exec(h.c.argv(), or(h.c.Timeout, 30*time.Second)); !ok {
			return
		}
		p.End = time.Now().UTC()
		before := health.Status
		health.add(p, h.c, p.End.Sub(h.run.started))
		if !h.s.removed.Load() {
			save(h.s.dir, healthFile, &health)
		}
		if health.Status == Unhealthy && before != Unhealthy {
			select {
			case h.bad <- struct{}{}:
			default:
			}
		}
	}
}

// exec runs a command in the container; not ok: the container ended meanwhile. The command becomes our own child:
// "exec --detach" leaves it to the subreaper. So its status is exact, nothing of the runtime stays while it runs,
// and the timeout kills the command itself.
func (h *healthLoop) exec(argv []string, timeout time.Duration) (code int, output string, ok bool) {
	out, theirs, err := outputPipe("health check", h.s.record.Options.Owner)
	if err != nil {
		return -1, err.Error(), true
	}
	defer out.Close()
	text := make(chan string, 1)
	go func() { text <- firstBytes(out) }()
	finish := func(code int) (int, string, bool) {
		out.SetReadDeadline(time.Now().Add(200 * time.Millisecond)) // what it left behind may hold the pipe
		return code, strings.ToValidUTF8(<-text, "\uFFFD"), true
	}
	limit := time.NewTimer(timeout)
	defer limit.Stop()

	h.s.children.hold()
	release := func() { h.s.children.release() }
	defer func() { release() }()
	pidPath := filepath.Join(h.s.dir, execPidFile)
	os.Remove(pidPath)
	args := append([]string{"exec", "--detach", "--pid-file", pidPath, h.s.id}, argv...)
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(theirs)
		out.SetReadDeadline(time.Now())
		return -1, os.NewSyscallError("open /dev/null", err).Error(), true
	}
	call := append(h.s.runtime[:len(h.s.runtime):len(h.s.runtime)], args...)
	pid, status, err := h.s.children.start(call, uintptr(null), uintptr(theirs), uintptr(theirs))
	unix.Close(null)
	unix.Close(theirs)
	if err != nil {
		out.SetReadDeadline(time.Now())
		return -1, err.Error(), true
	}
	wait := func(pid int, status <-chan syscall.WaitStatus) (code int, ended, quit bool) {
		select {
		case st := <-status:
			return exitCode(st), true, false
		case <-limit.C:
		case <-h.quit:
			quit = true
		}
		h.s.children.kill(pid)
		<-status
		return -1, false, quit
	}
	code, ended, quit := wait(pid, status)
	if ended && code == 0 {
		var child int
		if child, err = readPid(pidPath); err != nil {
			out.SetReadDeadline(time.Now())
			return -1, err.Error(), true
		}
		status = h.s.children.adopt(child)
		release()
		release = func() {}
		code, ended, quit = wait(child, status)
	}
	os.Remove(pidPath)
	switch {
	case quit:
		out.SetReadDeadline(time.Now())
		return 0, "", false
	case !ended:
		code, output, _ = finish(-1)
		return code, fmt.Sprintf("timeout: the check did not end within %v. %s", timeout, output), true
	}
	return finish(code)
}

// firstBytes reads to the end and returns the first bytes: as many as a probe's output keeps.
func firstBytes(f *os.File) string {
	kept, buf := []byte{}, make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		kept = append(kept, buf[:min(n, maxOutputBytes-len(kept))]...)
		if err != nil {
			return string(kept)
		}
	}
}
