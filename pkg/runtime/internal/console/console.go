// SPDX-License-Identifier: Apache-2.0

// Package console is the caller's end of a container's terminal when the caller is in the foreground: it gets
// the master over a socket, puts the caller's own terminal into raw mode, copies both ways and passes on
// changes of size. The terminal itself is made in the container, by init.
package console

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Foreground is a terminal that is copied to and from stdin and stdout.
type Foreground struct {
	Socket *os.File // for init, which sends the master

	ours   int
	master *os.File
	saved  *unix.Termios
	resize chan os.Signal
	done   chan struct{}
}

// New makes the socket pair.
func New() (*Foreground, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	return &Foreground{Socket: os.NewFile(uintptr(pair[1]), "console"), ours: pair[0], done: make(chan struct{})}, nil
}

// receive takes the master from a socket.
func receive(socket int) (*os.File, error) {
	data, control := make([]byte, 64), make([]byte, 64)
	_, n, _, _, err := syscall.Recvmsg(socket, data, control, syscall.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("receive the terminal: %w", err)
	}
	messages, err := syscall.ParseSocketControlMessage(control[:n])
	if err == nil && len(messages) == 1 {
		fds, err := syscall.ParseUnixRights(&messages[0])
		if err == nil && len(fds) == 1 {
			return os.NewFile(uintptr(fds[0]), "terminal"), nil
		}
	}
	return nil, errors.New("receive the terminal: nothing came")
}

// Start begins to copy. It is called when init has sent the master.
func (f *Foreground) Start() (err error) {
	f.Socket.Close()
	if f.master, err = receive(f.ours); err != nil {
		return err
	}
	if t, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		raw := *t
		raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		raw.Oflag &^= unix.OPOST
		raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
		if err := unix.IoctlSetTermios(0, unix.TCSETS, &raw); err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		f.saved = t
	}
	f.size()
	f.resize = make(chan os.Signal, 1)
	signal.Notify(f.resize, syscall.SIGWINCH)
	go func() {
		for range f.resize {
			f.size()
		}
	}()
	go func() {
		// The end of our input is no end of a terminal's: the program has to be told in its language.
		if _, err := io.Copy(f.master, os.Stdin); err == nil && f.saved == nil {
			f.master.Write([]byte{4})
		}
	}()
	go func() {
		io.Copy(os.Stdout, f.master) // ends with EIO when the last slave is closed
		close(f.done)
	}()
	return nil
}

// size gives the container's terminal the size of ours.
func (f *Foreground) size() {
	if ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		unix.IoctlSetWinsize(int(f.master.Fd()), unix.TIOCSWINSZ, ws)
	}
}

// Finish is called when the process has ended: it waits for the rest of its output. A child of it that keeps
// the terminal open is not waited for once nothing more comes.
func (f *Foreground) Finish() {
	if f.master == nil {
		return
	}
	for {
		select {
		case <-f.done:
			return
		default:
		}
		p := []unix.PollFd{{Fd: int32(f.master.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 50); n == 0 && err == nil {
			return
		}
	}
}

// Close restores the caller's terminal.
func (f *Foreground) Close() {
	if f.saved != nil {
		unix.IoctlSetTermios(0, unix.TCSETS, f.saved)
		f.saved = nil
	}
	if f.resize != nil {
		signal.Stop(f.resize)
	}
	f.Socket.Close()
	syscall.Close(f.ours)
}
