// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/state"
)

// A Container is what to supervise, and by which commands.
type Container struct {
	Root    string   // state root
	ID      string   //
	Bundle  string   // directory
	Runtime []string // an OCI runtime's command line up to the verb; nil: this program's, which then has to be ctr-run
	Self    []string // for Start, the command line of this program that ends up in Main, without the id
	Options Options
}

// open checks everything that can be checked and makes the supervisor's directory, which is the claim on the id.
func (c *Container) open() (*Record, error) {
	if err := state.CheckID(c.ID); err != nil {
		return nil, err
	}
	var err error
	if c.Root, err = filepath.Abs(c.Root); err != nil {
		return nil, err
	}
	b, err := bundle.Open(c.Bundle)
	if err != nil {
		return nil, err
	}
	if err := c.Options.fromBundle(b); err != nil {
		return nil, err
	}
	if err := closeOnExec(); err != nil {
		return nil, err
	}
	dir := Dir(c.Root, c.ID)
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, err
	}
	if err := ours(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(state.Dir(c.Root, c.ID)); err == nil {
		return nil, taken(c.ID)
	}
	if err := os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
		return nil, taken(c.ID)
	} else if err != nil {
		return nil, err
	}
	r := &Record{Version: version, ID: c.ID, Bundle: b.Dir(), Status: StatusCreating, CreatedAt: time.Now().UTC(), Options: c.Options}
	if err := save(dir, recordFile, r); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return r, nil
}

// ours refuses a directory that another user could have put there or could change.
func ours(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fault.As(fs.ErrPermission, fmt.Errorf("%s: owner %d, mode %07o: want a directory of user %d that nobody else can write to",
			dir, st.Uid, st.Mode, os.Geteuid()))
	}
	return nil
}

func taken(id string) error {
	return fault.Hint(fmt.Errorf("container %s: %w", id, fs.ErrExist), "ctr-run delete --force %s", id)
}

// Start supervises a container in a process of its own, in a session of its own, and returns when the container
// runs. Where it could not be started nothing is left, and the error is what the runtime said.
func Start(c Container) error {
	// Descriptors first: where there are too few, nothing was made yet that would have to be removed.
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	outcome := os.NewFile(uintptr(p[0]), "outcome")
	defer outcome.Close()
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(p[1])
		return os.NewSyscallError("open /dev/null", err)
	}
	if _, err := c.open(); err != nil {
		unix.Close(p[1])
		unix.Close(null)
		return err
	}
	dir := Dir(c.Root, c.ID)
	pid, err := syscall.ForkExec(self, append(c.Self[:len(c.Self):len(c.Self)], c.ID), &syscall.ProcAttr{
		Dir:   "/",
		Env:   append(environ(), leanEnvironment...),
		Files: []uintptr{uintptr(null), uintptr(null), uintptr(null), uintptr(p[1])},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	unix.Close(p[1])
	unix.Close(null)
	if err != nil {
		os.RemoveAll(dir)
		return fmt.Errorf("start the supervisor: %w", err)
	}
	data, err := io.ReadAll(outcome)
	if err != nil {
		return err
	}
	first, text, ok := strings.Cut(string(data), "\n")
	status, err := strconv.Atoi(first)
	switch {
	case !ok || err != nil:
		var ws syscall.WaitStatus
		syscall.Wait4(pid, &ws, 0, nil)
		os.RemoveAll(dir)
		return fmt.Errorf("the supervisor of %s ended before the container started: status %d", c.ID, exitCode(ws))
	case status != 0:
		syscall.Wait4(pid, nil, 0, nil)
		return fault.Exit{Status: status, Err: errors.New(text)}
	}
	return nil
}

// Run supervises a container in this process until it ends for good and returns how. Its output goes to stdout and stderr
// as well as into the log; stdin is the container's if the options say interactive.
func Run(c Container, stdin, stdout, stderr *os.File) (*Exit, error) {
	r, err := c.open()
	if err != nil {
		return nil, err
	}
	s := &supervisor{root: c.Root, id: c.ID, runtime: runtimeOr(c.Runtime, c.Root), record: *r}
	s.terminal = &screen{stdout: stdout, stderr: stderr, raw: r.Options.Terminal}
	if r.Options.Interactive {
		s.terminal.stdin = stdin
	}
	defer s.terminal.restore()
	return s.supervise(func(error) {})
}

// Stop ends a supervised container for good: the stop signal, SIGKILL after the grace, no restart. It returns when the
// container and its supervisor have ended; stopping what is stopped succeeds. signal 0 and timeout nil are the container's
// own, a timeout below 0 is for ever. Where the supervisor was killed, Stop does its work.
func Stop(ctx context.Context, root, id string, signal int, timeout *int) error {
	r, err := Load(root, id)
	if err != nil {
		return err
	}
	if r.Alive() {
		if err := save(Dir(root, id), stopFile, stopRequest{Signal: signal, Timeout: timeout}); err != nil {
			return err
		}
		grace := r.Options.stopTimeout()
		if timeout != nil {
			grace = time.Duration(*timeout) * time.Second
		}
		limit := time.Duration(-1)
		if grace >= 0 {
			limit = grace + 20*time.Second // it has to log what is in the pipes, and to write the end down
		}
		if err := sleep(ctx, -1, [][2]uint64{{uint64(r.Pid), r.StartTime}}, limit); err != nil {
			return err
		}
		if !r.Alive() {
			return nil
		}
		// A supervisor that does not act: its container is not to outlive a stop.
		unix.Kill(r.Pid, unix.SIGKILL)
	}
	if r, err = Load(root, id); err != nil || !r.initAlive() {
		return ignoreGone(err)
	}
	sig, grace := r.Options.stopSignal(), r.Options.stopTimeout()
	if signal > 0 {
		sig = unix.Signal(signal)
	}
	if timeout != nil {
		grace = time.Duration(*timeout) * time.Second
	}
	return stopProcess(ctx, r.InitPid, r.InitStart, sig, grace)
}

// StopUnsupervised is Stop for a container without supervisor, by its init's pid and start time.
func StopUnsupervised(ctx context.Context, pid int, start uint64, signal int, timeout *int) error {
	o := Options{StopSignal: signal, StopTimeout: timeout}
	return stopProcess(ctx, pid, start, o.stopSignal(), o.stopTimeout())
}

// stopProcess ends a process that is not ours: signal, grace (below 0: for ever), SIGKILL.
func stopProcess(ctx context.Context, pid int, start uint64, sig unix.Signal, grace time.Duration) error {
	alive := func() bool { return pid > 0 && startTime(pid) == start }
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil || !alive() {
		return nil
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && err != unix.ESRCH {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	process := [][2]uint64{{uint64(pid), start}}
	if err := sleep(ctx, -1, process, grace); err != nil {
		return err
	}
	if !alive() {
		return nil
	}
	unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	return sleep(ctx, -1, process, -1)
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// BeforeKill is what "ctr-run kill" calls: a signal that asks the container to end (its stop signal, or SIGKILL) also ends its
// restarts, as with Docker. A container that is not supervised is left alone.
func BeforeKill(root, id string, signal int) error {
	r, err := Load(root, id)
	if err != nil || !r.Alive() {
		return ignoreGone(err)
	}
	if unix.Signal(signal) != unix.SIGKILL && unix.Signal(signal) != r.Options.stopSignal() {
		return nil
	}
	return save(Dir(root, id), stopFile, stopRequest{Sent: true})
}

// BeforeDelete is what "ctr-run delete" calls before it removes a container. One that is being supervised is
// fault.ErrBusy, with force it is killed and its supervisor's end waited for. The supervisor's own calls are let through.
func BeforeDelete(ctx context.Context, root, id string, force bool) error {
	r, err := Load(root, id)
	if err != nil || ownCall(r) || !r.Alive() {
		return ignoreGone(err)
	}
	if !force {
		return fault.Hint(fault.As(fault.ErrBusy, fmt.Errorf("container %s: %s, want stopped", id, r.Status)), "ctr-run stop %s", id)
	}
	zero := 0
	return Stop(ctx, root, id, int(unix.SIGKILL), &zero)
}

// Forget removes what supervision knows of a container, after the runtime's container was deleted. It says whether
// there was anything.
func Forget(root, id string) (bool, error) {
	r, err := Load(root, id)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if r != nil && (ownCall(r) || r.Alive()) {
		return false, nil
	}
	return true, os.RemoveAll(Dir(root, id))
}

// ownCall says whether this process was started by the container's supervisor.
func ownCall(r *Record) bool { return r.Pid > 0 && r.Pid == os.Getppid() }

func runtimeOr(runtime []string, root string) []string {
	if len(runtime) > 0 {
		return runtime
	}
	return []string{self, "--root=" + root}
}
