// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/fault"
)

const watchEvents = unix.IN_MOVED_TO | unix.IN_CREATE | unix.IN_DELETE | unix.IN_ONLYDIR

// watchDir returns a nonblocking inotify descriptor for a directory.
func watchDir(dir string) (int, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return -1, os.NewSyscallError("inotify_init1", err)
	}
	if _, err := unix.InotifyAddWatch(fd, dir, watchEvents); err != nil {
		unix.Close(fd)
		return -1, &fs.PathError{Op: "watch", Path: dir, Err: err}
	}
	return fd, nil
}

// eachEvent calls f with the name of every event in what an inotify descriptor gave; "": the directory itself.
func eachEvent(b []byte, f func(mask uint32, name string)) {
	for len(b) >= unix.SizeofInotifyEvent {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&b[0]))
		end := unix.SizeofInotifyEvent + int(e.Len)
		if end > len(b) {
			return
		}
		f(e.Mask, strings.TrimRight(string(b[unix.SizeofInotifyEvent:end]), "\x00"))
		b = b[end:]
	}
}

// A Condition is what Wait waits for.
type Condition string

// The conditions.
const (
	UntilStopped Condition = "stopped" // ended, and will not be started again
	UntilRunning Condition = "running"
	UntilHealthy Condition = "healthy"
)

// errUnreachable: the condition can no longer come true.
var errUnreachable = errors.New("will not come true")

// Wait waits until a supervised container is in a condition and returns its record then. It fails as soon as
// the condition cannot come true: the container ended for good, has no health check, or is unhealthy. It sleeps on
// inotify and pidfds.
func Wait(ctx context.Context, root, id string, condition Condition) (*Record, error) {
	if _, err := Load(root, id); err != nil {
		return nil, err
	}
	watch, err := watchDir(Dir(root, id))
	if err != nil {
		return nil, err
	}
	defer unix.Close(watch)
	for {
		r, alive, err := look(root, id)
		if err != nil {
			return nil, err
		}
		over := !alive && !r.initAlive() && r.Status != StatusCreating || r.Status == StatusStopped && !alive
		switch condition {
		case UntilStopped:
			if over {
				return r, nil
			}
		case UntilRunning:
			if !over && r.Status == StatusRunning {
				return r, nil
			}
		case UntilHealthy:
			if r.Options.Health == nil {
				return r, fault.Hint(fmt.Errorf("container %s: has no health check: healthy %w", id, errUnreachable), "ctr-run supervise --health-cmd COMMAND …")
			}
			if !over && r.Status == StatusRunning {
				if h, err := LoadHealth(root, id); err == nil && h.Status == Healthy {
					return r, nil
				} else if err == nil && h.Status == Unhealthy {
					return r, fmt.Errorf("container %s: unhealthy: %s", id, lastOutput(h))
				}
			}
		default:
			return nil, fault.Usagef("--condition=%s: want stopped, running or healthy", condition)
		}
		if over {
			text := ""
			if r.Exit != nil {
				text = fmt.Sprintf(" with status %d", r.Exit.Code)
			}
			return r, fault.Hint(fmt.Errorf("container %s: ended%s: %s %w", id, text, condition, errUnreachable), "ctr-run logs %s", id)
		}
		pids := [][2]uint64{{uint64(r.Pid), r.StartTime}}
		if !alive {
			pids = [][2]uint64{{uint64(r.InitPid), r.InitStart}}
		}
		if err := sleep(ctx, watch, pids, -1); err != nil {
			return nil, err
		}
	}
}

func lastOutput(h *Health) string {
	if len(h.Log) == 0 {
		return "no check yet"
	}
	p := h.Log[len(h.Log)-1]
	return fmt.Sprintf("%d checks failed, the last with status %d: %s", h.FailingStreak, p.ExitCode, strings.TrimSpace(p.Output))
}

// sleep returns when the watched directory changed, one of the processes (pid, start time) ended, the
// context ended (its error), or the time is over; below 0: no limit.
func sleep(ctx context.Context, watch int, processes [][2]uint64, limit time.Duration) error {
	var fds []unix.PollFd
	if watch >= 0 {
		fds = append(fds, unix.PollFd{Fd: int32(watch), Events: unix.POLLIN})
	}
	for _, p := range processes {
		if p[0] == 0 {
			continue
		}
		fd, err := unix.PidfdOpen(int(p[0]), 0)
		if err != nil {
			return nil // gone
		}
		defer unix.Close(fd)
		if startTime(int(p[0])) != p[1] {
			return nil
		}
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	if ctx.Done() != nil {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return os.NewSyscallError("pipe2", err)
		}
		defer unix.Close(p[0])
		stop := context.AfterFunc(ctx, func() { unix.Close(p[1]) })
		defer func() {
			if stop() {
				unix.Close(p[1])
			}
		}()
		fds = append(fds, unix.PollFd{Fd: int32(p[0]), Events: unix.POLLIN})
	}
	ms := -1
	if limit >= 0 {
		ms = int(limit.Milliseconds()) + 1
	}
	if _, err := unix.Poll(fds, ms); err != nil && err != unix.EINTR {
		return os.NewSyscallError("poll", err)
	}
	if watch >= 0 { // forget the events: the caller looks at the files
		buf := make([]byte, 4096)
		for {
			if n, err := unix.Read(watch, buf); n <= 0 || err != nil {
				break
			}
		}
	}
	return context.Cause(ctx)
}
