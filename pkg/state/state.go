// SPDX-License-Identifier: Apache-2.0

// Package state owns the state contract (spec/state.md, ctr-state(5)): one directory for each container below
// a state root, with state.json and the few files next to it. It reads and writes them, and says whether the
// process that a state names is still that process. It starts, signals and kills nothing.
//
// A state file is never trusted alone: [Read] refuses what cannot be (ids, paths, process numbers), and a
// process counts as the container's only if its start time is the recorded one.
package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// Version of runtime-spec that the OCI state follows.
const Version = "1.3.0"

// Names in a container's state directory.
const (
	File       = "state.json"  // [State]
	ConfigFile = "config.json" // the bundle's config.json as it was at create
	StartFile  = "start"       // socket that the waiting init listens on until start
	CallsFile  = "calls"       // what the calls of the waiting init are for, by number
	CgroupLink = "cgroup"      // symbolic link that holds linux.cgroupsPath, if there is one
)

// A Status is where a container is in its life (runtime-spec, State).
type Status string

// The statuses; Paused is an extension that runc and its callers know.
const (
	Creating Status = "creating"
	Created  Status = "created"
	Running  Status = "running"
	Paused   Status = "paused"
	Stopped  Status = "stopped"
)

// A State is the content of state.json.
type State struct {
	ID          string
	Pid         int    // of init, on the host
	StartTime   uint64 // of pid, clock ticks after boot (proc_pid_stat(5), field 22)
	Bundle      string // absolute
	Rootfs      string // absolute, on the host
	Created     time.Time
	Owner       int // uid of who created it
	Cgroups     []Cgroup
	Hooks       bool // config.json has hooks
	SharedPids  bool // the container has no pid namespace of its own: the end of init is not the end of all
	Annotations map[string]string
}

// A Cgroup is the container's directory in one hierarchy.
type Cgroup struct {
	Controller string // as in /proc/self/cgroup; empty for version 2
	Dir        string // absolute
}

// maxFileBytes bounds state.json.
const maxFileBytes = 1 << 20

// CheckID refuses what is no container id: 1 to 255 characters of A-Z a-z 0-9 _ + - and, not in the first
// place, a full stop.
func CheckID(id string) error {
	ok := len(id) > 0 && len(id) <= 255 && id[0] != '.'
	for i := 0; ok && i < len(id); i++ {
		c := id[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_+-.", c) >= 0
	}
	if !ok {
		return fault.Usagef("container id %q: want 1 to 255 of A-Z a-z 0-9 _ + - . (no . in front)", id)
	}
	return nil
}

// Dir is the state directory of a container.
func Dir(root, id string) string { return root + "/" + id }

// ErrNotExist returns the error for a container that is not there. Its text holds what callers of runc look for.
func errNotExist(id string) error {
	return fault.Hint(fmt.Errorf("%s: container does not exist%w", id, silent{fs.ErrNotExist}), "ctr-run list shows what there is")
}

// silent wraps a kind of error without adding to the text.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

// MakeDir makes the state directory of a new container. It fails with fs.ErrExist.
func MakeDir(root, id string) (dir string, err error) {
	if err := CheckID(id); err != nil {
		return "", err
	}
	dir = Dir(root, id)
	err = syscall.Mkdir(dir, 0o700)
	if err == syscall.ENOENT {
		if err := os.MkdirAll(root, 0o700); err != nil {
			return "", err
		}
		err = syscall.Mkdir(dir, 0o700)
	}
	if err == syscall.EEXIST {
		return "", fault.Hint(fmt.Errorf("%s: container with this id exists%w", id, silent{fs.ErrExist}), "ctr-run delete %s", id)
	}
	if err != nil {
		return "", &fs.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	if err := checkOwner(root); err != nil {
		syscall.Rmdir(dir)
		return "", err
	}
	return dir, nil
}

// checkOwner refuses a state root that another user could write to.
func checkOwner(root string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(root, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: root, Err: err}
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("state root %s: owner %d, mode %03o: want owner %d and no write permission for others%w",
			root, st.Uid, st.Mode&0o777, os.Geteuid(), silent{fs.ErrPermission})
	}
	return nil
}

// List returns the ids of the containers below root, sorted. A root that is not there holds none.
func List(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && CheckID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// StartTime returns when a process started, in clock ticks after boot, and its state letter. It fails with
// syscall.ESRCH when there is no such process.
func StartTime(pid int) (ticks uint64, letter byte, err error) {
	b, err := readSmall("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, syscall.ESRCH
	}
	// The command may hold anything, so count from its closing parenthesis.
	rest := string(b)
	rest = strings.TrimLeft(rest[strings.LastIndexByte(rest, ')')+1:], " ")
	field := 3
	if rest != "" {
		letter = rest[0]
	}
	for rest != "" {
		word, more, _ := strings.Cut(rest, " ")
		if field == 22 {
			ticks, err := strconv.ParseUint(word, 10, 64)
			return ticks, letter, err
		}
		rest = more
		field++
	}
	return 0, 0, fmt.Errorf("/proc/%d/stat: want 22 fields", pid)
}

// Alive says whether init is there and is the process that the state was written for. A zombie is not alive.
func (s *State) Alive() bool {
	if s.Pid <= 0 {
		return false
	}
	ticks, letter, err := StartTime(s.Pid)
	return err == nil && ticks == s.StartTime && letter != 'Z' && letter != 'X'
}

// Remove removes the state directory and all in it, the state last of what it knows. That it is not there is no error.
func Remove(dir string) error {
	for _, name := range [...]string{StartFile, CallsFile, ConfigFile, File} {
		syscall.Unlink(dir + "/" + name) // what stays, RemoveAll names
	}
	if err := syscall.Rmdir(dir); err == nil || err == syscall.ENOENT {
		return nil
	}
	return os.RemoveAll(filepath.Clean(dir))
}

func readSmall(path string) ([]byte, error) {
	fd, err := open(path, syscall.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	b := make([]byte, 2048)
	n := 0
	for {
		m, err := syscall.Read(fd, b[n:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if m == 0 {
			return b[:n], nil
		}
		if n += m; n > maxFileBytes {
			return nil, syscall.EFBIG
		}
		if n == len(b) {
			b = append(b, make([]byte, len(b))...)
		}
	}
}

func open(path string, flags int) (int, error) {
	for {
		fd, err := syscall.Open(path, flags|syscall.O_CLOEXEC|syscall.O_NOFOLLOW, 0o600)
		if err != syscall.EINTR {
			return fd, err
		}
	}
}
