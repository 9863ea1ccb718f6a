// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/log"
)

// runStdin is the stdin of the container as it runs now: every run has another one.
type runStdin struct {
	mu         sync.Mutex
	f          *os.File
	isTerminal bool
	rows, cols uint16 // the last size asked for, for the next run's terminal too
}

func (s *runStdin) set(f *os.File, terminal bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.f, s.isTerminal = f, terminal
	if f != nil && terminal && s.rows > 0 {
		setSize(f, s.rows, s.cols)
	}
}

func (s *runStdin) file() *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.f
}

// close ends a pipe. A terminal has no end of input but what its program takes for one.
func (s *runStdin) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f != nil && !s.isTerminal {
		s.f.Close()
		s.f = nil
	}
}

func (s *runStdin) resize(rows, cols uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows, s.cols = rows, cols
	if s.f != nil && s.isTerminal {
		setSize(s.f, rows, cols)
	}
}

// control calls f with a file's descriptor and leaves the file nonblocking, which File.Fd would not.
func control(file *os.File, f func(fd int) error) (err error) {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	if e := conn.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}

func setSize(f *os.File, rows, cols uint16) error {
	return control(f, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
}

// A screen is where a supervisor in the foreground, or a client, copies the container's streams from and to.
type screen struct {
	stdin          *os.File // nil: the container's stdin is not fed from here
	stdout, stderr *os.File
	raw            bool // the container has a terminal of its own: ours passes everything on
	once           sync.Once
	saved          *unix.Termios
}

// begin starts to feed the container. Later runs get what is typed from then on.
func (t *screen) begin(to *runStdin) {
	t.size(to)
	t.once.Do(func() {
		if t.stdin == nil {
			return
		}
		if t.raw {
			t.makeRaw()
		}
		go func() {
			buf := make([]byte, packetBytes)
			for {
				n, err := t.stdin.Read(buf)
				if f := to.file(); f != nil && n > 0 {
					f.Write(buf[:n])
				}
				if err != nil {
					to.close()
					return
				}
			}
		}()
	})
}

// size gives the container's terminal the size of ours.
func (t *screen) size(to *runStdin) {
	if rows, cols, ok := t.winsize(); ok && t.raw {
		to.resize(rows, cols)
	}
}

func (t *screen) winsize() (rows, cols uint16, ok bool) {
	ws, err := unix.IoctlGetWinsize(int(t.stdout.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, false
	}
	return ws.Row, ws.Col, true
}

func (t *screen) write(s log.Stream, p []byte) {
	if s == log.Stderr {
		t.stderr.Write(p)
	} else {
		t.stdout.Write(p) // a reader that is gone misses it; the log has it
	}
}

// makeRaw hands every key to the container; where stdin is no terminal it does nothing.
func (t *screen) makeRaw() {
	fd := int(t.stdin.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return
	}
	raw := *old
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if unix.IoctlSetTermios(fd, unix.TCSETS, &raw) == nil {
		t.saved = old
	}
}

// restore undoes makeRaw.
func (t *screen) restore() {
	if t.saved != nil {
		unix.IoctlSetTermios(int(t.stdin.Fd()), unix.TCSETS, t.saved)
		t.saved = nil
	}
}
