// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/log"
)

// stdio is one run's streams, seen from the supervisor.
type stdio struct {
	in      *os.File // the container's stdin, nil: closed
	out     *os.File // stdout, or the terminal
	err     *os.File // stderr; with a terminal: what "create" says
	console int      // listening socket for the terminal, -1: none
	theirs  []int    // descriptors for the runtime process's 0, 1, 2
	pumps   sync.WaitGroup
}

// openStdio makes the streams of one run.
//
// The container's ends of the output pipes are open for reading too: when the supervisor is killed, the pipe
// still has a reader, so that the container gets no SIGPIPE. It runs on, and waits once it wrote what the pipe
// holds (64 KiB).
func openStdio(dir int, o *Options) (s *stdio, err error) {
	s = &stdio{console: -1, theirs: []int{-1, -1, -1}}
	defer func() {
		if err != nil {
			s.close()
			s = nil
		}
	}()
	if o.Interactive && !o.Terminal {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return nil, os.NewSyscallError("pipe2", err)
		}
		s.theirs[0] = p[0]
		own(p[0], o.Owner)
		s.in = pollable(p[1], "stdin")
	} else if s.theirs[0], err = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil, os.NewSyscallError("open /dev/null", err)
	}
	if o.Terminal {
		if s.theirs[1], err = unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0); err != nil {
			return nil, os.NewSyscallError("open /dev/null", err)
		}
		if s.console, err = listen(dir, consoleFile, unix.SOCK_STREAM); err != nil {
			return nil, err
		}
	} else if s.out, s.theirs[1], err = outputPipe("stdout", o.Owner); err != nil {
		return nil, err
	}
	s.err, s.theirs[2], err = outputPipe("stderr", o.Owner)
	return s, err
}

func outputPipe(name string, owner [2]int) (*os.File, int, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, os.NewSyscallError("pipe2", err)
	}
	own(p[1], owner)
	if fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(p[1]), unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		unix.Close(p[1])
		p[1] = fd
	}
	return pollable(p[0], name), p[1], nil
}

// own gives a pipe to the container's user, who may open it again as /dev/stdout.
func own(fd int, owner [2]int) {
	if owner != [2]int{0, 0} {
		unix.Fchown(fd, owner[0], owner[1]) // not permitted: then it stays as it is
	}
}

func pollable(fd int, name string) *os.File {
	unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}

// closeTheirs closes what the runtime process got, so that the end of the container's is the end of the stream.
func (s *stdio) closeTheirs() {
	for i, fd := range s.theirs {
		if fd >= 0 {
			unix.Close(fd)
			s.theirs[i] = -1
		}
	}
}

func (s *stdio) close() {
	s.closeTheirs()
	for _, f := range []*os.File{s.in, s.out, s.err} {
		if f != nil {
			f.Close()
		}
	}
	if s.console >= 0 {
		unix.Close(s.console)
		s.console = -1
	}
}

// terminal takes the terminal that "create" sent.
func (s *stdio) terminal() error {
	fd, _, err := unix.Accept4(s.console, unix.SOCK_CLOEXEC)
	if err != nil {
		return fmt.Errorf("console socket: no terminal came: %w", err)
	}
	defer unix.Close(fd)
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*4))
	_, n, _, _, err := unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("recvmsg", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) == 0 {
		return errors.New("console socket: a message without terminal")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return fmt.Errorf("console socket: %d descriptors, want 1", len(fds))
	}
	s.out = pollable(fds[0], "terminal")
	s.in = s.out
	unix.Close(s.console)
	s.console = -1
	return nil
}

// said reads what a runtime process that failed wrote to the container's stderr.
func said(f *os.File) string {
	f.SetReadDeadline(time.Now().Add(time.Second))
	text, buf := "", make([]byte, 4096)
	for len(text) < 64<<10 {
		n, err := f.Read(buf)
		text += string(buf[:n])
		if err != nil {
			break
		}
	}
	return text
}

// pump copies a stream of the container to sink until its end.
func (s *stdio) pump(stream log.Stream, f *os.File, sink func(log.Stream, []byte)) {
	s.pumps.Add(1)
	go func() {
		defer s.pumps.Done()
		buf := make([]byte, 32<<10)
		for {
			n, err := f.Read(buf)
			if n > 0 {
				sink(stream, buf[:n])
			}
			if err != nil { // EOF; EIO from a terminal that nobody has open
				return
			}
		}
	}()
}

// drain waits until everything the container wrote is in the sink. Whoever still has a pipe open when the container's init is
// gone (a process in a shared pid namespace) gets a second to finish.
func (s *stdio) drain() {
	for _, f := range []*os.File{s.out, s.err} {
		if f != nil {
			f.SetReadDeadline(time.Now().Add(time.Second))
		}
	}
	s.pumps.Wait()
}

// listen makes a socket in a directory given by descriptor: the path may be longer than a socket address is.
func listen(dir int, name string, kind int) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	unix.Unlinkat(dir, name, 0)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: inDir(dir, name)})
	if err == nil {
		err = unix.Fchmodat(dir, name, 0o600, 0)
	}
	if err == nil {
		err = unix.Listen(fd, 16)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: %w", name, err)
	}
	return fd, nil
}

// inDir is a short path for a file in an open directory, good in this process and its children's calls.
func inDir(dir int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(os.Getpid()), "fd", strconv.Itoa(dir), name)
}
