// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/log"
)

// A supervisor is the process that runs one container until it ends for good.
type supervisor struct {
	root, id string
	dir      string // Dir(root, id)
	dirFd    int
	runtime  []string // the runtime's command line so far: program, --root ROOT
	record   Record
	bundle   *bundle.Bundle
	log      *log.Writer
	children *children
	attach   attachServer
	terminal *screen // of a supervisor in the foreground; nil: detached

	requests chan stopRequest // from the stop file
	signals  chan os.Signal
	events   *os.File    // inotify on dir
	removed  atomic.Bool // somebody removed the record: no file is to come back

	stdin runStdin
}

// A stopRequest is the content of the stop file: the container is to end and to stay ended.
type stopRequest struct {
	Signal  int  `json:"signal,omitempty"`  // 0: the container's stop signal
	Timeout *int `json:"timeout,omitempty"` // seconds until SIGKILL, below 0: for ever; nil: the container's
	Sent    bool `json:"sent,omitempty"`    // the writer sends the signal; nothing is to be done but not to restart
}

// A run is one life of the container's process.
type run struct {
	*stdio
	pid     int
	pidfd   int
	status  <-chan syscall.WaitStatus
	started time.Time
	oom     oomWatch
}

// supervise runs the container until it ends for good and returns how. started is called once, when the
// container runs for the first time (nil) or could not be started; then nothing is left of it.
func (s *supervisor) supervise(started func(error)) (*Exit, error) {
	if err := s.prepare(); err != nil {
		os.RemoveAll(s.dir)
		started(err)
		return nil, err
	}
	defer s.close()
	r, err := s.start()
	if err != nil {
		os.RemoveAll(s.dir)
		started(err)
		return nil, err
	}
	started(nil)
	releaseMemory()
	var pause time.Duration
	for {
		exit := s.watch(r)
		s.record.Exit = exit
		if err := s.bundle.WriteJSON(bundle.ExitFile, exit); err != nil {
			s.record.Error = err.Error()
		}
		ran := exit.FinishedAt.Sub(exit.StartedAt)
		for r = nil; r == nil; {
			if _, err := os.Lstat(filepath.Join(s.dir, stopFile)); err == nil {
				s.record.Stopped = true // asked for before the end, and not read yet
			}
			if s.record.Stopped || !s.record.Options.Restart.again(s.record.Exit.Code, s.record.Restarts) {
				return s.record.Exit, s.end()
			}
			s.record.Status, s.record.InitPid, s.record.InitStart = StatusRestarting, 0, 0
			s.save()
			pause = backoff(pause, ran)
			if s.sleep(pause) {
				continue // stopped meanwhile
			}
			s.record.Restarts++
			if out, err := s.call("delete", "--force", s.id); err != nil {
				s.record.Error = fmt.Sprintf("delete before restart: %v: %s", err, out)
			}
			if r, err = s.start(); err != nil {
				now := time.Now().UTC()
				s.record.Error, ran = err.Error(), 0
				s.record.Exit = &Exit{Code: 127, StartedAt: now, FinishedAt: now}
				s.bundle.WriteJSON(bundle.ExitFile, s.record.Exit)
			}
			releaseMemory()
		}
	}
}

// prepare makes everything that all runs share.
func (s *supervisor) prepare() (err error) {
	s.dir = Dir(s.root, s.id)
	if s.dirFd, err = unix.Open(s.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return &fs.PathError{Op: "open", Path: s.dir, Err: err}
	}
	if s.bundle, err = bundle.Open(s.record.Bundle); err != nil {
		return err
	}
	if err := s.bundle.Remove(bundle.ExitFile); err != nil {
		return err
	}
	opt := log.WriterOptions{SizeBytes: s.record.Options.LogBytes, Files: s.record.Options.LogFiles}
	if s.log, err = log.OpenWriter(s.bundle.Path(bundle.LogFile), opt); err != nil {
		return err
	}
	if s.children, err = newChildren(); err != nil {
		return err
	}
	s.record.Pid = os.Getpid()
	s.record.StartTime = startTime(s.record.Pid)
	s.record.Status = StatusCreating
	if err := save(s.dir, recordFile, &s.record); err != nil {
		return err
	}
	s.requests = make(chan stopRequest, 1)
	fd, err := watchDir(s.dir)
	if err != nil {
		return err
	}
	s.events = os.NewFile(uintptr(fd), "inotify")
	go s.readEvents()
	s.signals = make(chan os.Signal, 16)
	signal.Notify(s.signals, forwarded...)
	s.attach.input = s.stdin.file
	s.attach.eof = s.stdin.close
	s.attach.resize = s.stdin.resize
	return s.attach.serve(s.dirFd)
}

// forwarded are the signals that a supervisor in the foreground passes on. SIGPIPE is in the list so that a reader of
// our output that goes away does not end us.
var forwarded = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGPIPE}

func (s *supervisor) close() {
	signal.Stop(s.signals)
	s.events.Close()
	s.children.close()
	s.log.Close()
	unix.Close(s.dirFd)
}

func (s *supervisor) save() {
	if !s.removed.Load() {
		save(s.dir, recordFile, &s.record)
	}
}

// end writes the last words.
func (s *supervisor) end() error {
	s.record.Status, s.record.Pid, s.record.StartTime, s.record.InitPid, s.record.InitStart = StatusStopped, 0, 0, 0, 0
	os.Remove(filepath.Join(s.dir, attachFile))
	os.Remove(filepath.Join(s.dir, pidFile))
	os.Remove(filepath.Join(s.dir, healthFile))
	s.attach.close(s.record.Exit)
	err := s.log.End(time.Now())
	s.save()
	return err
}

// start creates and starts the container once.
func (s *supervisor) start() (_ *run, err error) {
	if err := s.log.NewRun(); err != nil {
		s.record.Error = err.Error() // a full disk: the container runs without log
	}
	r := &run{pidfd: -1}
	if r.stdio, err = openStdio(s.dirFd, &s.record.Options); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.stdio.close()
			if r.pid != 0 {
				s.call("delete", "--force", s.id)
				<-r.status
			}
			if r.pidfd >= 0 {
				unix.Close(r.pidfd)
			}
		}
	}()
	args := []string{"create", "--bundle", s.record.Bundle, "--pid-file", filepath.Join(s.dir, pidFile)}
	if s.record.Options.Terminal {
		args = append(args, "--console-socket", inDir(s.dirFd, consoleFile))
	}
	s.children.hold()
	defer s.children.release()
	if err := s.create(r, append(args, s.id)); err != nil {
		return nil, err
	}
	if r.pid, err = readPid(filepath.Join(s.dir, pidFile)); err != nil {
		return nil, err
	}
	r.status = s.children.adopt(r.pid)
	if r.pidfd, err = unix.PidfdOpen(r.pid, 0); err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	s.record.InitPid, s.record.InitStart = r.pid, startTime(r.pid)
	if s.record.Options.Terminal {
		if err := r.stdio.terminal(); err != nil {
			return nil, err
		}
	}
	r.oom = watchOOM(r.pid)
	if out, err := s.call("start", s.id); err != nil {
		return nil, failure("start", err, out)
	}
	r.started = time.Now().UTC()
	s.stdin.set(r.stdio.in, s.record.Options.Terminal)
	if s.terminal != nil {
		s.terminal.begin(&s.stdin)
	}
	r.pump(log.Stdout, r.out, s.sink)
	if !s.record.Options.Terminal {
		r.pump(log.Stderr, r.err, s.sink)
	}
	s.record.Status, s.record.StartedAt = StatusRunning, r.started
	if s.record.Options.Health != nil {
		save(s.dir, healthFile, Health{Status: Starting, Log: []Probe{}})
	}
	s.save()
	return r, nil
}

// create runs the runtime's "create". It fails with what the runtime said, which comes through the
// container's stderr.
func (s *supervisor) create(r *run, args []string) error {
	argv := append(s.runtime[:len(s.runtime):len(s.runtime)], args...)
	_, status, err := s.children.start(argv, uintptr(r.theirs[0]), uintptr(r.theirs[1]), uintptr(r.theirs[2]))
	r.closeTheirs()
	if err != nil {
		return err
	}
	if code := exitCode(<-status); code != 0 {
		return failure("create", fault.Exit{Status: code}, said(r.err))
	}
	return nil
}

// sink takes what the container wrote.
func (s *supervisor) sink(stream log.Stream, p []byte) {
	s.log.Write(stream, time.Now(), p) // an error (a full disk) costs log lines, never the container
	s.attach.stream(stream, p)
	if s.terminal != nil {
		s.terminal.write(stream, p)
	}
}

// failure is what a runtime process that failed said, as our own error with its exit status.
func failure(verb string, err error, said string) error {
	said = strings.TrimSpace(said)
	if said == "" {
		said = fmt.Sprintf("%s: %v", verb, err)
	}
	var exit fault.Exit
	if errors.As(err, &exit) {
		return fault.Exit{Status: exit.Status, Err: errors.New(said)}
	}
	return errors.New(said)
}

// call runs a runtime process to its end and returns what it said on stderr.
func (s *supervisor) call(args ...string) (string, error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", os.NewSyscallError("open /dev/null", err)
	}
	defer unix.Close(null)
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return "", os.NewSyscallError("pipe2", err)
	}
	words := pollable(p[0], "stderr")
	defer words.Close()
	argv := append(s.runtime[:len(s.runtime):len(s.runtime)], args...)
	_, status, err := s.children.start(argv, uintptr(null), uintptr(null), uintptr(p[1]))
	unix.Close(p[1])
	if err != nil {
		return "", err
	}
	code := exitCode(<-status)
	if code == 0 {
		return "", nil
	}
	return said(words), fault.Exit{Status: code}
}

// watch waits for the end of a run and does meanwhile what requests, signals and health checks ask for.
func (s *supervisor) watch(r *run) *Exit {
	health := s.startHealth(r)
	var kill <-chan time.Time // when the grace is over
	stop := func(signal unix.Signal, grace time.Duration) {
		unix.PidfdSendSignal(r.pidfd, signal, nil, 0)
		s.resume()
		kill = nil
		if grace >= 0 {
			kill = time.After(grace)
		}
	}
	if s.record.Stopped { // asked for between two runs
		stop(s.record.Options.stopSignal(), s.record.Options.stopTimeout())
	}
	for {
		select {
		case status := <-r.status:
			finished := time.Now().UTC()
			if health != nil {
				health.stop()
			}
			s.stdin.set(nil, false)
			r.drain()
			s.log.End(finished)
			exit := &Exit{Code: exitCode(status), OOMKilled: r.oom.killed(), StartedAt: r.started, FinishedAt: finished}
			if status.Signaled() {
				exit.Signal = int(status.Signal())
			}
			r.stdio.close()
			unix.Close(r.pidfd)
			return exit
		case q := <-s.requests:
			s.record.Stopped = true
			s.save()
			if q.Sent {
				continue
			}
			signal, grace := s.record.Options.stopSignal(), s.record.Options.stopTimeout()
			if q.Signal > 0 {
				signal = unix.Signal(q.Signal)
			}
			if q.Timeout != nil {
				grace = time.Duration(*q.Timeout) * time.Second
			}
			stop(signal, grace)
		case <-kill:
			unix.PidfdSendSignal(r.pidfd, unix.SIGKILL, nil, 0)
		case sig := <-s.signals:
			s.forward(r, sig.(syscall.Signal), stop)
		case <-health.failed():
			switch s.record.Options.OnUnhealthy {
			case "stop":
				s.record.Stopped = true
				s.save()
				fallthrough
			case "restart":
				stop(s.record.Options.stopSignal(), s.record.Options.stopTimeout())
			}
		}
	}
}

// forward does what a signal to the supervisor means. In the foreground it is passed to the container; one that
// asks a program to end also ends the restarts. Detached, SIGTERM and SIGINT stop the container.
func (s *supervisor) forward(r *run, sig syscall.Signal, stop func(unix.Signal, time.Duration)) {
	switch {
	case sig == unix.SIGPIPE:
	case sig == unix.SIGWINCH:
		if s.terminal != nil {
			s.terminal.size(&s.stdin)
		}
	case s.terminal == nil:
		if sig == unix.SIGTERM || sig == unix.SIGINT {
			s.record.Stopped = true
			s.save()
			stop(s.record.Options.stopSignal(), s.record.Options.stopTimeout())
		}
	default:
		if sig == unix.SIGTERM || sig == unix.SIGINT || sig == unix.SIGHUP || sig == unix.SIGQUIT {
			s.record.Stopped = true
			s.save()
		}
		unix.PidfdSendSignal(r.pidfd, sig, nil, 0)
	}
}

// resume thaws a paused container, which could not act on a signal.
func (s *supervisor) resume() {
	if frozen(s.record.InitPid) {
		s.call("resume", s.id)
	}
}

// sleep pauses between two runs and says whether the container was stopped meanwhile.
func (s *supervisor) sleep(d time.Duration) (stopped bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return false
		case <-s.requests:
			s.record.Stopped = true
			return true
		case sig := <-s.signals:
			if sig == unix.SIGTERM || sig == unix.SIGINT || sig == unix.SIGHUP && s.terminal != nil {
				s.record.Stopped = true
				return true
			}
		}
	}
}

// readEvents turns the stop file into requests, and the removal of our record too: nobody could find the
// container any more. (The removal of the directory itself is not reported, for we have it open.)
func (s *supervisor) readEvents() {
	s.readStop() // it may have come before the watch
	buf := make([]byte, 4096)
	for {
		n, err := s.events.Read(buf)
		if err != nil {
			return
		}
		eachEvent(buf[:n], func(mask uint32, name string) {
			switch {
			case name == recordFile && mask&unix.IN_DELETE != 0:
				s.removed.Store(true)
				s.requests <- stopRequest{}
			case name == stopFile && mask&(unix.IN_MOVED_TO|unix.IN_CREATE) != 0:
				s.readStop()
			}
		})
	}
}

func (s *supervisor) readStop() {
	data, err := readSmall(filepath.Join(s.dir, stopFile))
	if err != nil {
		return
	}
	q, err := parseStop(data)
	if err != nil {
		q = new(stopRequest) // somebody wants it stopped, that much is clear
	}
	s.requests <- *q
}

func parseStop(data []byte) (*stopRequest, error) {
	q := new(stopRequest)
	if err := json.Unmarshal(data, q); err != nil {
		return nil, fmt.Errorf("%s: %w", stopFile, err)
	}
	if q.Signal < 0 || q.Signal > 64 {
		return nil, fmt.Errorf("%s: signal %d, want 1 to 64", stopFile, q.Signal)
	}
	return q, nil
}

// Main is the whole life of a detached supervisor, the process that [Start] makes: args are state root and id; descriptor 3
// is a pipe that takes the outcome of the first start, an exit status and, after a newline, what to print.
func Main(root, id string, runtime []string) error {
	os.WriteFile("/proc/self/comm", []byte("ctr-run"), 0) // it was executed as /proc/self/exe
	tell := os.NewFile(3, "outcome")
	r, err := Load(root, id)
	if err != nil {
		fmt.Fprintf(tell, "1\nctr-run: %v", err)
		return err
	}
	unix.CloseOnExec(3)
	s := &supervisor{root: root, id: id, runtime: runtimeOr(runtime, root), record: *r}
	_, err = s.supervise(func(err error) {
		if err == nil {
			tell.WriteString("0\n")
		} else {
			status := 1
			var exit fault.Exit
			if errors.As(err, &exit) {
				status = exit.Status
			}
			tell.WriteString(strconv.Itoa(status) + "\n" + err.Error())
		}
		tell.Close()
	})
	return err
}
