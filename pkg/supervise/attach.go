// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/log"
)

// attach.sock is a SOCK_SEQPACKET socket. The first byte of every packet says what it is (spec/supervise.md, Attach);
// the rest is its content, at most packetBytes.
const (
	packetStdin  = 'i' // to the container's stdin; empty: close it
	packetResize = 'w' // "ROWS COLUMNS": the client's terminal
	packetStdout = 'o' // from the container
	packetStderr = 'e'
	packetExit   = 'x' // the container ended for good: its exit status in decimal, or empty
	packetBytes  = 32 << 10
)

// slowClient is how long the container's output waits for a client that does not read before it is dropped.
const slowClient = 5 * time.Second

// attachServer sends what the container writes to every client, and what clients send to the container.
type attachServer struct {
	mu      sync.Mutex
	clients map[*os.File]struct{}
	packet  []byte
	socket  *os.File
	input   func() *os.File // the container's stdin now; nil: closed
	eof     func()          // closes it
	resize  func(rows, columns uint16)
}

func (a *attachServer) serve(dir int) error {
	fd, err := listen(dir, attachFile, unix.SOCK_SEQPACKET)
	if err != nil {
		return err
	}
	a.clients = map[*os.File]struct{}{}
	a.socket = pollable(fd, attachFile)
	conn, err := a.socket.SyscallConn()
	if err != nil {
		return err
	}
	go func() {
		for {
			var client int
			var failed error
			err := conn.Read(func(fd uintptr) bool {
				client, _, failed = unix.Accept4(int(fd), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
				return failed != unix.EAGAIN && failed != unix.EINTR
			})
			if err != nil {
				return // closed
			}
			if failed != nil { // ECONNABORTED, EMFILE
				time.Sleep(10 * time.Millisecond)
				continue
			}
			c := os.NewFile(uintptr(client), "attach client")
			a.mu.Lock()
			a.clients[c] = struct{}{}
			a.mu.Unlock()
			go a.client(c)
		}
	}()
	return nil
}

func (a *attachServer) client(c *os.File) {
	defer a.drop(c)
	buf := make([]byte, 1+packetBytes)
	for {
		n, err := c.Read(buf)
		if n == 0 || err != nil {
			return
		}
		switch buf[0] {
		case packetStdin:
			if n == 1 {
				a.eof()
			} else if in := a.input(); in != nil {
				in.Write(buf[1:n]) // waits for the container; its end is not this client's
			}
		case packetResize:
			var rows, columns uint16
			if _, err := fmt.Sscanf(string(buf[1:n]), "%d %d", &rows, &columns); err == nil {
				a.resize(rows, columns)
			}
		}
	}
}

func (a *attachServer) drop(c *os.File) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.clients, c)
	c.Close()
}

// send gives a part of a stream to every client.
func (a *attachServer) send(kind byte, p []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.clients) == 0 {
		return
	}
	a.packet = append(append(a.packet[:0], kind), p...)
	for c := range a.clients {
		c.SetWriteDeadline(time.Now().Add(slowClient))
		if _, err := c.Write(a.packet); err != nil {
			delete(a.clients, c)
			c.Close()
		}
	}
}

func (a *attachServer) stream(s log.Stream, p []byte) {
	kind := byte(packetStdout)
	if s == log.Stderr {
		kind = packetStderr
	}
	a.send(kind, p)
}

// close tells the clients the exit status and ends the service.
func (a *attachServer) close(exit *Exit) {
	status := []byte{}
	if exit != nil {
		status = strconv.AppendInt(status, int64(exit.Code), 10)
	}
	a.send(packetExit, status)
	a.socket.Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.clients {
		c.Close()
		delete(a.clients, c)
	}
}
