// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/runtime/internal/console"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/relay"
	"github.com/ctr-tools/ctr/pkg/state"
)

// Run is Create and Start and, unless Detach, Wait with signals passed on, and Delete. The status is what a
// shell would say: the exit status, or 128 + the number of the signal.
func (r *Runtime) Run(ctx context.Context, o RunOptions) (status int, err error) {
	if err := state.CheckID(o.ID); err != nil {
		return 0, err
	}
	foreground, err := r.terminal(&o.CreateOptions, o.Detach)
	if err != nil {
		return 0, err
	}
	if foreground != nil {
		defer foreground.Close()
	}
	c, err := r.create(ctx, &o.CreateOptions, false)
	if err != nil {
		return 0, err
	}
	c.launch.close()
	if err := r.poststart(c.config, c.state); err != nil {
		wait(c.launch.pid)
		r.remove(c.state, c.config)
		return 0, err
	}
	if o.Detach {
		return 0, nil
	}
	status, err = attend(c.launch.pid, foreground)
	if o.Keep {
		return status, err
	}
	return status, errors.Join(err, r.remove(c.state, c.config))
}

// terminal makes the console for a foreground container with a terminal, and gives its socket to o.
func (r *Runtime) terminal(o *CreateOptions, detach bool) (*console.Foreground, error) {
	if detach || o.Console != nil || o.ConsoleSocket != "" {
		return nil, nil
	}
	cfg, err := readConfig(o.Bundle)
	if err != nil {
		return nil, err
	}
	o.config = cfg
	if !cfg.spec.Process.Terminal {
		return nil, nil
	}
	o.plain = !isTerminal(1)
	return openForeground(&o.Console)
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// openForeground makes a console whose other end is ours.
func openForeground(socket **os.File) (*console.Foreground, error) {
	f, err := console.New()
	if err != nil {
		return nil, err
	}
	*socket = f.Socket
	return f, nil
}

// forwarded are the signals that go on to the user's program.
var forwarded = [...]syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGCONT}

// attend waits for a child, passes signals on to it, and copies its terminal if it has one.
func attend(pid int, f *console.Foreground) (status int, err error) {
	stop, err := pass(pid)
	if err == nil && f != nil {
		err = f.Start()
	}
	if err != nil {
		syscall.Kill(pid, syscall.SIGKILL)
		wait(pid)
		stop()
		return 0, err
	}
	ws, err := wait(pid)
	stop()
	if f != nil {
		f.Finish()
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal()), err
	}
	return ws.ExitStatus(), err
}

// pass has the forwarded signals go to a child until stop is called.
func pass(pid int) (stop func(), err error) {
	stop = func() {}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return stop, fmt.Errorf("process %d: %w", pid, err)
	}
	end, err := relay.Start(pidfd, forwarded[:])
	if err != nil {
		syscall.Close(pidfd)
		return stop, err
	}
	return func() { end(); syscall.Close(pidfd) }, nil
}
