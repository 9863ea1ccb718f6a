// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bufio"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Signals from every thread's view, at any time: what this process gets, the child reports, in its order.
func TestRelay(t *testing.T) {
	child := exec.Command("sh", "-c", `trap 'echo usr1' USR1; trap 'echo hup' HUP; echo ready; while :; do sleep 0.01; done`)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	lines := bufio.NewScanner(out)
	lines.Scan()
	pidfd, err := unix.PidfdOpen(child.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(pidfd)

	// Go's own handler is put back afterwards.
	here := make(chan os.Signal, 1)
	signal.Notify(here, syscall.SIGUSR1)
	defer signal.Stop(here)

	stop, err := Start(pidfd, []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(pidfd, nil); err == nil {
		t.Error("a second relay was started beside the first")
	}
	done := make(chan struct{})
	go func() { // something to interrupt
		defer close(done)
		for range 200 {
			_ = make([]byte, 100_000)
			time.Sleep(100 * time.Microsecond)
		}
	}()
	for i := range 20 {
		sig, want := syscall.SIGUSR1, "usr1"
		if i%2 == 1 {
			sig, want = syscall.SIGHUP, "hup"
		}
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("signal %d: the child says %q, want %q", i, lines.Text(), want)
		}
	}
	<-done
	select {
	case s := <-here:
		t.Errorf("%v came to this process", s)
	default:
	}
	stop()
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	if s := <-here; s != syscall.SIGUSR1 {
		t.Errorf("after the relay: got %v, want SIGUSR1", s)
	}
}
