// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/runtime/internal/compile"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/prog"
)

// A launch is a process that was made from a program and has not executed the user's yet: its number, and the
// socket over which it tells how far it is.
type launch struct {
	sock    int
	pid     int
	reaped  bool
	program *prog.Program // nil for start, which has only the texts
	what    func(op int) string
	process *specs.Process

	// What to do when init asks for it; nil where it will not.
	onHook     func(compile.Kind) error
	onCopyUp   func(mount int, fd int) error
	onListener func(fd int) error
}

// spawn starts a program. The child has the table's descriptors and the socket to us as number report.
func spawn(r compile.Result, fds *fdTable, report int, dirs ...string) (*launch, error) {
	elf, err := r.Program.ELF(report)
	if err != nil {
		return nil, err
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	fds.files[report] = uintptr(pair[1])
	exe, err := prog.File(elf, fds.files, dirs...)
	if err != nil {
		syscall.Close(pair[0])
		syscall.Close(pair[1])
		return nil, err
	}
	defer syscall.Close(exe)
	first, err := syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(exe), []string{"init"}, &syscall.ProcAttr{Files: fds.files, Env: []string{}, Sys: &syscall.SysProcAttr{}})
	syscall.Close(pair[1])
	if err != nil {
		syscall.Close(pair[0])
		return nil, fmt.Errorf("start init: %w", err)
	}
	l := &launch{sock: pair[0], program: r.Program, what: r.Program.What}
	value, kind, err := l.read()
	status, waitErr := wait(first)
	switch {
	case err != nil || waitErr != nil:
		err = fmt.Errorf("init: no answer: %w", errors.Join(err, waitErr))
	case status.Signaled():
		err = fmt.Errorf("init: killed by signal %d", status.Signal())
	case kind != 0:
		err = l.fault(value, kind)
	case value == 0:
		err = errors.New("init: ended without a word")
	}
	if err != nil {
		syscall.Close(pair[0])
		return nil, err
	}
	l.pid = int(value)
	return l, nil
}

// wait waits for a child.
func wait(pid int) (status syscall.WaitStatus, err error) {
	for {
		_, err = syscall.Wait4(pid, &status, 0, nil)
		if err != syscall.EINTR {
			return status, err
		}
	}
}

// read reads a message; at the end of the stream all is zero.
func (l *launch) read() (value uint32, kind compile.Kind, err error) {
	var b [8]byte
	n := 0
	for n < len(b) {
		m, err := syscall.Read(l.sock, b[n:])
		if err == syscall.EINTR {
			continue
		}
		if err == syscall.ECONNRESET { // init ended with something unread
			m, err = 0, nil
		}
		if err != nil {
			return 0, 0, err
		}
		if m == 0 {
			if n > 0 {
				return 0, 0, errors.New("half a message")
			}
			return 0, 0, nil
		}
		n += m
	}
	m := binary.NativeEndian.Uint64(b[:])
	return uint32(m), compile.Kind(m >> 32), nil
}

// release lets init go on after a wait.
func (l *launch) release() error {
	var token [8]byte
	for {
		// MSG_NOSIGNAL: init may be gone, and SIGPIPE would take us along.
		err := syscall.Sendto(l.sock, token[:], unix.MSG_NOSIGNAL, nil)
		if err == syscall.EPIPE || err == syscall.ECONNRESET {
			return nil // it has ended; what it said before that is still to be read
		}
		if err != syscall.EINTR {
			return err
		}
	}
}

func (l *launch) close() { syscall.Close(l.sock) }

// kill ends a launch that came to nothing.
func (l *launch) kill() {
	syscall.Close(l.sock)
	if !l.reaped {
		syscall.Kill(l.pid, syscall.SIGKILL)
		wait(l.pid)
	}
}

// fault is the error for a report of failure.
func (l *launch) fault(op uint32, errno compile.Kind) error {
	return &prog.Error{Op: int(op), What: l.what(int(op)), Errno: syscall.Errno(errno)}
}

// follow does what init asks for until it has executed the user's program, or, if it is to wait for start,
// until it does. Where init ends before that, executed is true too: its exit status will tell.
func (l *launch) follow() (created bool, err error) {
	for {
		value, kind, err := l.read()
		if err != nil {
			return false, fmt.Errorf("read from init: %w", err)
		}
		switch kind {
		case 0:
			return false, nil
		case compile.Created:
			return true, nil
		case compile.ExecFailed:
			return false, l.execFailed()
		case compile.HookRuntime, compile.HookContainer, compile.HookStart:
			if err := l.onHook(kind); err != nil {
				return false, err
			}
		case compile.CopyUp:
			fd, _, err := l.read()
			if err != nil {
				return false, err
			}
			if err := l.onCopyUp(int(value), int(fd)); err != nil {
				return false, err
			}
		case compile.Listener:
			fd, _, err := l.read()
			if err != nil {
				return false, err
			}
			if err := l.onListener(int(fd)); err != nil {
				return false, err
			}
		default:
			return false, l.fault(value, kind)
		}
		if err := l.release(); err != nil {
			return false, fmt.Errorf("answer init: %w", err)
		}
	}
}

// execFailed finds out why the program could not be executed while its files can still be looked at.
func (l *launch) execFailed() error {
	cause := explain(l.pid, l.process)
	if err := l.release(); err == nil && cause == nil {
		if _, errno, err := l.read(); err == nil && errno > 0 && errno < 4096 {
			cause = fmt.Errorf("%q: %w", l.process.Args[0], syscall.Errno(errno))
		}
	}
	if cause == nil {
		cause = fmt.Errorf("%q: cannot be executed", l.process.Args[0])
	}
	return &ExecError{cause}
}

// writeFile writes a file of procfs or the like in one call.
func writeFile(path, text string) error {
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	_, err = syscall.Write(fd, []byte(text))
	syscall.Close(fd)
	if err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}
