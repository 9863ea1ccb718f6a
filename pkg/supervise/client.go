// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// AttachOptions say how a client joins a container's streams. The zero value shows output and sends nothing.
type AttachOptions struct {
	Stdin      *os.File // what the container's stdin gets; nil: nothing
	Stdout     *os.File // nil: not wanted
	Stderr     *os.File // nil: not wanted
	DetachKeys []byte   // that end Attach where the container has a terminal; empty: none
}

// ErrDetached is what Attach returns after the detach keys.
var ErrDetached = errors.New("detached")

// Attach joins a supervised container's streams until it ends for good; then it returns its exit status. Output from before is
// in the log. The end of Stdin closes the container's, unless that is a terminal.
func Attach(root, id string, o AttachOptions) (status int, err error) {
	r, err := Load(root, id)
	if err != nil {
		return 0, err
	}
	conn, err := dial(root, id)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
			err = fault.Hint(fmt.Errorf("container %s: %s: nobody to attach to", id, r.Status), "ctr-run logs %s", id)
		}
		return 0, err
	}
	defer conn.Close()
	t := &screen{stdin: o.Stdin, stdout: o.Stdout, raw: r.Options.Terminal && o.Stdin != nil}
	if t.raw {
		t.makeRaw()
		defer t.restore()
	}
	if r.Options.Terminal && o.Stdout != nil {
		resized := make(chan os.Signal, 1)
		signal.Notify(resized, unix.SIGWINCH)
		defer signal.Stop(resized)
		resize := func() {
			if rows, cols, ok := t.winsize(); ok {
				conn.Write(fmt.Appendf(nil, "%c%d %d", packetResize, rows, cols))
			}
		}
		resize()
		go func() {
			for range resized {
				resize()
			}
		}()
	}
	ended := make(chan error, 2)
	if o.Stdin != nil {
		keys := o.DetachKeys
		if !r.Options.Terminal {
			keys = nil
		}
		go func() {
			if sendStdin(conn, o.Stdin, keys) {
				ended <- ErrDetached
			}
		}()
	}
	go func() {
		var err error
		status, err = receive(conn, o.Stdout, o.Stderr)
		ended <- err
	}()
	if err := <-ended; err != nil {
		return 0, err
	}
	return status, nil
}

func dial(root, id string) (*os.File, error) {
	dir, err := unix.Open(Dir(root, id), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: Dir(root, id), Err: err}
	}
	defer unix.Close(dir)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: inDir(dir, attachFile)}); err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "connect", Path: attachFile, Err: err}
	}
	return pollable(fd, attachFile), nil
}

// sendStdin copies stdin to the container and says whether the detach keys came.
func sendStdin(conn, stdin *os.File, keys []byte) (detached bool) {
	buf := make([]byte, 1+packetBytes)
	buf[0] = packetStdin
	var held []byte // keys that may become the detach sequence
	for {
		n, err := stdin.Read(buf[1 : packetBytes/2])
		out := []byte{packetStdin}
		for _, c := range buf[1 : 1+n] {
			if len(keys) == 0 {
				out = append(out, buf[1:1+n]...)
				break
			}
			if c == keys[len(held)] {
				if held = append(held, c); len(held) == len(keys) {
					return true
				}
				continue
			}
			out = append(out, held...)
			held = held[:0]
			if c == keys[0] {
				held = append(held, c)
			} else {
				out = append(out, c)
			}
		}
		if len(out) > 1 {
			if _, err := conn.Write(out); err != nil {
				return false
			}
		}
		if err != nil {
			conn.Write([]byte{packetStdin})
			return false
		}
	}
}

// receive copies the container's output until the supervisor says how it ended.
func receive(conn, stdout, stderr *os.File) (status int, err error) {
	buf := make([]byte, 1+packetBytes)
	for {
		n, err := conn.Read(buf)
		if n == 0 || err != nil {
			return 0, errors.New("the supervisor closed the connection: it was killed, or the output was not read for 5 s")
		}
		switch {
		case buf[0] == packetExit:
			status, err := strconv.Atoi(string(buf[1:n]))
			if err != nil {
				return 0, errors.New("the container ended, its exit status is not known")
			}
			return status, nil
		case buf[0] == packetStdout && stdout != nil:
			_, err = stdout.Write(buf[1:n])
		case buf[0] == packetStderr && stderr != nil:
			_, err = stderr.Write(buf[1:n])
		}
		if err != nil {
			return 0, err
		}
	}
}

// ParseDetachKeys reads keys as docker does: single characters or ctrl-X (X a letter or one of @ [ \ ] ^ _), with
// commas between. "" is none.
func ParseDetachKeys(s string) (keys []byte, err error) {
	if s == "" {
		return nil, nil
	}
	for key := range strings.SplitSeq(s, ",") {
		c, ctrl := strings.CutPrefix(key, "ctrl-")
		switch {
		case len(c) != 1:
			return nil, fault.Usagef("--detach-keys=%s: %q: want a character or ctrl-X", s, key)
		case !ctrl:
			keys = append(keys, c[0])
		case c[0] >= 'a' && c[0] <= 'z':
			keys = append(keys, c[0]-'a'+1)
		case c[0] >= '@' && c[0] <= '_':
			keys = append(keys, c[0]-'@')
		default:
			return nil, fault.Usagef("--detach-keys=%s: %q: want ctrl- and a letter or one of @ [ \\ ] ^ _", s, key)
		}
	}
	return keys, nil
}
