// SPDX-License-Identifier: Apache-2.0

// Package relay passes signals that this process gets on to another one, by handlers of its own in machine code: a
// handler makes one system call, pidfd_send_signal(2), and returns. Package os/signal would take two goroutines, a
// thread and, for each signal twice, two changes of context: half a millisecond for a container that lives for two.
package relay

import (
	"errors"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// target is the pidfd that the handlers send to, plus 1; 0 while there is none.
var target atomic.Int32

// handler returns the address of the handler, restorer that of what the kernel has it return to.
func handler() unsafe.Pointer
func restorer() unsafe.Pointer

// action is the kernel's struct sigaction, alike on amd64 and arm64. Its addresses are no Go pointers: SIG_IGN is 1.
type action struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// flags: on the signal stack, which every thread of a Go program has; interrupted calls go on.
const flags = 0x08000000 | 0x10000000 | restorerFlag // SA_ONSTACK, SA_RESTART

// Start has the signals go to the process of a pidfd until stop is called, which puts back what was done with them
// before. One relay at a time is possible in a process; pidfd has to stay open until stop.
func Start(pidfd int, signals []syscall.Signal) (stop func(), err error) {
	if !target.CompareAndSwap(0, int32(pidfd)+1) {
		return nil, errors.New("relay signals: they go to another process already")
	}
	saved := make([]action, 0, len(signals))
	stop = func() {
		for i := range saved {
			sigaction(signals[i], &saved[i], nil)
		}
		target.Store(0)
	}
	ours := action{handler: uintptr(handler()), flags: flags, restorer: uintptr(restorer())}
	for _, s := range signals {
		var old action
		if err := sigaction(s, &ours, &old); err != nil {
			stop()
			return nil, err
		}
		saved = append(saved, old)
	}
	return stop, nil
}

func sigaction(s syscall.Signal, to, old *action) error {
	_, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(to)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
	if errno != 0 {
		return errors.New("sigaction " + s.String() + ": " + errno.Error())
	}
	return nil
}
