// SPDX-License-Identifier: Apache-2.0

// Package supervise keeps one container running: a small process per container that owns its stdio, log,
// restart policy, health checks and exit status (spec/supervise.md, ctr-supervise(5)). It drives a runtime by its command
// line, ctr-run's own by default: what a start allocates is gone when the runtime's process ends, so that the
// supervisor stays small, and any OCI runtime can be supervised.
//
// What it knows stands in a directory of its own, [Dir], beside the runtime's states: the runtime's own directory is
// made and removed with every restart, this one only by [Forget].
package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/state"
)

// Names in a supervisor's directory.
const (
	recordFile  = "supervisor.json" // [Record]; written by the supervisor only
	healthFile  = "health.json"     // [Health]
	stopFile    = "stop"            // [stopRequest]; written by whoever wants the container stopped
	attachFile  = "attach.sock"     // see attach.go
	consoleFile = "console.sock"    // while a container with a terminal is being created
	pidFile     = "init.pid"
	execPidFile = "health.pid"
)

const version = "1"

// hidden holds the supervisors' directories below a state root; no container's id starts with a dot.
const hidden = ".supervised"

// Statuses of a supervised container. Beside runtime-spec's there is StatusRestarting: the process ended and
// the supervisor is about to start it again.
const (
	StatusCreating   = "creating"
	StatusRunning    = "running"
	StatusRestarting = "restarting"
	StatusStopped    = "stopped"
)

// A Record is what a supervisor says about itself and its container (supervisor.json).
type Record struct {
	Version   string    `json:"version"`
	ID        string    `json:"id"`
	Bundle    string    `json:"bundle"`
	Pid       int       `json:"pid,omitempty"`       // the supervisor's; 0: it ended
	StartTime uint64    `json:"startTime,omitempty"` // its start, in clock ticks since boot (proc_pid_stat(5))
	Status    string    `json:"status"`
	InitPid   int       `json:"initPid,omitempty"`
	InitStart uint64    `json:"initStartTime,omitempty"`
	Restarts  int       `json:"restarts"`
	Stopped   bool      `json:"stoppedByUser,omitempty"` // no policy starts it again
	CreatedAt time.Time `json:"createdAt"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	Exit      *Exit     `json:"exit,omitempty"`  // of the last run that ended
	Error     string    `json:"error,omitempty"` // why the last start failed, or the log could not be written
	Options   Options   `json:"options"`
}

// An Exit is how a container's process ended; exit.json of the bundle holds one (spec/bundle.md).
type Exit struct {
	Code       int       `json:"code"`             // 0 to 255; 128+n for a signal
	Signal     int       `json:"signal,omitempty"` // that ended it
	OOMKilled  bool      `json:"oomKilled"`        // the kernel killed a process of the container for want of memory
	StartedAt  time.Time `json:"startedAt"`
	FinishedAt time.Time `json:"finishedAt"`
}

// parseExit reads exit.json.
func parseExit(data []byte) (*Exit, error) {
	e := new(Exit)
	if err := json.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("exit: %w", err)
	}
	switch {
	case e.Code < 0 || e.Code > 255:
		return nil, fmt.Errorf("exit: code %d, want 0 to 255", e.Code)
	case e.Signal < 0 || e.Signal > 64:
		return nil, fmt.Errorf("exit: signal %d, want 1 to 64", e.Signal)
	case e.Signal > 0 && e.Code != 128+e.Signal:
		return nil, fmt.Errorf("exit: code %d with signal %d, want %d", e.Code, e.Signal, 128+e.Signal)
	}
	return e, nil
}

// Dir is the directory of a supervisor.
func Dir(root, id string) string { return filepath.Join(root, hidden, id) }

// Load reads a supervisor's record. A container that is not supervised is fs.ErrNotExist.
func Load(root, id string) (*Record, error) {
	if err := state.CheckID(id); err != nil {
		return nil, err
	}
	data, err := readSmall(filepath.Join(Dir(root, id), recordFile))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fault.Hint(fmt.Errorf("container %s: not supervised: %w", id, fs.ErrNotExist), "ctr-run list")
		}
		return nil, err
	}
	return parseRecord(data)
}

func parseRecord(data []byte) (*Record, error) {
	r := new(Record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s: %w", recordFile, err)
	}
	switch {
	case r.Version != version:
		return nil, fmt.Errorf("%s: version %q, want %q", recordFile, r.Version, version)
	case state.CheckID(r.ID) != nil:
		return nil, fmt.Errorf("%s: id: %w", recordFile, state.CheckID(r.ID))
	case !filepath.IsAbs(r.Bundle):
		return nil, fmt.Errorf("%s: bundle %q, want an absolute path", recordFile, r.Bundle)
	case r.Pid < 0 || r.InitPid < 0 || r.Restarts < 0:
		return nil, fmt.Errorf("%s: pid %d, initPid %d, restarts %d, want none below 0", recordFile, r.Pid, r.InitPid, r.Restarts)
	}
	switch r.Status {
	case StatusCreating, StatusRunning, StatusRestarting, StatusStopped:
	default:
		return nil, fmt.Errorf("%s: status %q, want creating, running, restarting or stopped", recordFile, r.Status)
	}
	return r, r.Options.check()
}

// look is Load, and whether the supervisor runs. A record that was read while its supervisor ended is read again: what
// stands there after the end was meant to.
func look(root, id string) (r *Record, alive bool, err error) {
	r, err = Load(root, id)
	if err != nil || r.Alive() {
		return r, err == nil, err
	}
	if r.Status != StatusStopped {
		r, err = Load(root, id)
	}
	return r, false, err
}

// IDs lists the supervised containers of a state root.
func IDs(root string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(root, hidden))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && state.CheckID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Alive says whether the supervisor itself runs.
func (r *Record) Alive() bool { return r.Pid > 0 && startTime(r.Pid) == r.StartTime }

// initAlive says whether the container's process runs, whoever watches it.
func (r *Record) initAlive() bool { return r.InitPid > 0 && startTime(r.InitPid) == r.InitStart }

// Fields are what supervision adds to a container in ctr-run list and state.
type Fields struct {
	Supervised bool      `json:"supervised"`
	StartedAt  time.Time `json:"startedAt,omitzero"` // of the run that goes on
	Restarts   int       `json:"restarts"`
	Lost       bool      `json:"supervisorLost,omitempty"` // the supervisor was killed, and the container runs
	Health     string    `json:"health,omitempty"`
	Exit       *Exit     `json:"exit,omitempty"`
}

// Merge returns what supervision adds to the container, and its status given the one that the runtime sees
// ("" if it has no such container, which is so for a moment in every restart). A container that is not supervised is
// fs.ErrNotExist.
func Merge(root, id, seen string) (f Fields, status string, r *Record, err error) {
	r, alive, err := look(root, id)
	if err != nil {
		return f, seen, nil, err
	}
	f = Fields{Supervised: true, Restarts: r.Restarts, Exit: r.Exit}
	status = r.Status
	if !alive && status != StatusStopped { // the supervisor was killed
		status = StatusStopped
		if r.initAlive() {
			status = StatusRunning
		}
		if seen != "" {
			status = seen
		}
	}
	if status == StatusRunning {
		f.Exit, f.StartedAt = nil, r.StartedAt
		if seen == "paused" {
			status = seen
		}
		if f.Lost = !alive; f.Lost {
			return f, status, r, nil // nobody checks its health
		}
		if h, err := LoadHealth(root, id); err == nil {
			f.Health = h.Status
		}
	}
	return f, status, r, nil
}

// save replaces a document in the supervisor's directory by rename. It is not synced: what is here does not
// survive a reboot anyway.
func save(dir, name string, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	temp := filepath.Join(dir, atomicfile.TempPrefix+name+"-"+strconv.Itoa(os.Getpid()))
	if err := os.WriteFile(temp, b.Bytes(), 0o600); err != nil {
		os.Remove(temp)
		return err
	}
	return os.Rename(temp, path)
}

func readSmall(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	const limit = 1 << 20
	b := make([]byte, 0, 4096)
	for {
		n, err := f.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if n == 0 || err != nil {
			return b, nil
		}
		if len(b) > limit {
			return nil, fmt.Errorf("%s: more than %d bytes", path, limit)
		}
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
	}
}

// startTime is when a process started, in clock ticks since boot; 0: there is no such process, or it is a zombie.
func startTime(pid int) uint64 {
	ticks, letter, err := state.StartTime(pid)
	if err != nil || letter == 'Z' || letter == 'X' {
		return 0
	}
	return ticks
}
