// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ctr-tools/ctr/pkg/strictjson"
)

// Read reads the state of a container and refuses one that cannot be true. It fails with fs.ErrNotExist when
// there is no such container, and with [ErrCreating] when there is a directory but no state yet.
func Read(root, id string) (*State, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	path := Dir(root, id) + "/" + File
	data, err := readSmall(path)
	if err == syscall.ENOENT {
		if _, err := os.Lstat(Dir(root, id)); err == nil {
			return nil, fmt.Errorf("%s: %w", id, ErrCreating)
		}
		return nil, errNotExist(id)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	if err := checkOwner(root); err != nil {
		return nil, err
	}
	s, err := Parse(data)
	if err == nil && s.ID != id {
		err = fmt.Errorf("id: found %q, want %q", s.ID, id)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// ErrCreating says that a container has no state yet: it is being created, or its creator died.
var ErrCreating = errors.New("container has no state: it is being created, or that was interrupted")

// Parse reads a state.json. Members that it does not know are skipped.
func Parse(data []byte) (*State, error) {
	r := strictjson.New(data)
	s := new(State)
	created := ""
	r.Object(func(key string) {
		switch key {
		case "id":
			s.ID = r.String()
		case "pid":
			s.Pid = int(r.Int(1, math.MaxInt32))
		case "startTime":
			s.StartTime = r.Uint(math.MaxUint64)
		case "bundle":
			s.Bundle = r.String()
		case "rootfs":
			s.Rootfs = r.String()
		case "created":
			created = r.String()
		case "owner":
			s.Owner = int(r.Int(0, math.MaxUint32))
		case "hooks":
			s.Hooks = r.Bool()
		case "sharedPids":
			s.SharedPids = r.Bool()
		case "annotations":
			s.Annotations = r.StringMap()
		case "cgroups":
			r.Array(func() {
				var c Cgroup
				r.Object(func(key string) {
					switch key {
					case "controller":
						c.Controller = r.String()
					case "dir":
						c.Dir = r.String()
					default:
						r.Skip()
					}
				})
				s.Cgroups = append(s.Cgroups, c)
			})
		default:
			r.Skip()
		}
	})
	if err := r.End(); err != nil {
		return nil, err
	}
	return s, s.check(created)
}

func (s *State) check(created string) (err error) {
	if err := CheckID(s.ID); err != nil {
		return fmt.Errorf("id: found %q, want a container id", s.ID)
	}
	switch {
	case s.Pid <= 1:
		return fmt.Errorf("pid: found %d, want the number of a process that is not the host's init", s.Pid)
	case s.StartTime == 0:
		return errors.New("startTime: found 0, want when the process started")
	}
	for _, p := range [...]struct{ name, path string }{{"bundle", s.Bundle}, {"rootfs", s.Rootfs}} {
		if !absolute(p.path) {
			return fmt.Errorf("%s: found %q, want an absolute clean path", p.name, p.path)
		}
	}
	seen := map[string]bool{}
	for i, c := range s.Cgroups {
		// What is killed and removed with the container: never the top of a hierarchy or anything else.
		below, ok := strings.CutPrefix(c.Dir, "/sys/fs/cgroup/")
		if !absolute(c.Dir) || ok && c.Controller != "" && !strings.Contains(below, "/") || c.Dir == "/sys/fs/cgroup" || c.Dir == "/" {
			return fmt.Errorf("cgroups[%d].dir: found %q, want a cgroup below the top of its hierarchy", i, c.Dir)
		}
		if seen[c.Controller] {
			return fmt.Errorf("cgroups[%d].controller: found %q a second time, want each once", i, c.Controller)
		}
		seen[c.Controller] = true
	}
	s.Created, err = time.Parse(time.RFC3339Nano, created)
	if err != nil {
		return fmt.Errorf("created: found %q, want a time as in RFC 3339", created)
	}
	return nil
}

func absolute(path string) bool { return filepath.IsAbs(path) && filepath.Clean(path) == path }

// Write puts the state into the container's directory, which has to exist, in place of what is there. It is not
// made durable: the directory does not survive a reboot anyway.
func (s *State) Write(root string) error {
	dir := Dir(root, s.ID)
	tmp, path := dir+"/."+File, dir+"/"+File
	fd, err := open(tmp, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_TRUNC)
	if err != nil {
		return &fs.PathError{Op: "create", Path: tmp, Err: err}
	}
	data := s.encode()
	n, err := syscall.Write(fd, data)
	if e := syscall.Close(fd); err == nil {
		err = e
	}
	if err == nil && n < len(data) {
		err = syscall.ENOSPC
	}
	if err == nil {
		err = syscall.Rename(tmp, path)
	}
	if err != nil {
		syscall.Unlink(tmp)
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

func (s *State) encode() []byte {
	b := make([]byte, 0, 1024)
	text := func(key, value string) {
		b = append(b, ",\n  \""...)
		b = append(b, key...)
		b = append(b, `": `...)
		b = strictjson.Quote(b, value)
	}
	plain := func(key, value string) {
		b = append(b, ",\n  \""...)
		b = append(b, key...)
		b = append(b, `": `...)
		b = append(b, value...)
	}
	b = append(b, "{\n  \"ociVersion\": \""+Version+"\""...)
	text("id", s.ID)
	plain("pid", strconv.Itoa(s.Pid))
	plain("startTime", strconv.FormatUint(s.StartTime, 10))
	text("bundle", s.Bundle)
	text("rootfs", s.Rootfs)
	text("created", s.Created.UTC().Format(time.RFC3339Nano))
	plain("owner", strconv.Itoa(s.Owner))
	if s.Hooks {
		plain("hooks", "true")
	}
	if s.SharedPids {
		plain("sharedPids", "true")
	}
	plain("cgroups", "[")
	for i, c := range s.Cgroups {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, "\n    {\"controller\": "...)
		b = strictjson.Quote(b, c.Controller)
		b = append(b, `, "dir": `...)
		b = strictjson.Quote(b, c.Dir)
		b = append(b, '}')
	}
	b = append(b, ']')
	if len(s.Annotations) > 0 {
		plain("annotations", "")
		b = AppendAnnotations(b, s.Annotations)
	}
	return append(b, "\n}\n"...)
}

// AppendAnnotations appends annotations as a JSON object, sorted by key.
func AppendAnnotations(b []byte, annotations map[string]string) []byte {
	keys := make([]string, 0, len(annotations))
	for k := range annotations {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	b = append(b, '{')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, "\n    "...)
		b = strictjson.Quote(b, k)
		b = append(b, ": "...)
		b = strictjson.Quote(b, annotations[k])
	}
	return append(b, "\n  }"...)
}

// OCI is the state as the specification has it (runtime-spec, "State"), which hooks read and "ctr-run state"
// prints, with the members that runc adds.
func (s *State) OCI(status Status) []byte {
	b := make([]byte, 0, 1024)
	b = append(b, "{\n  \"ociVersion\": \""+Version+"\",\n  \"id\": "...)
	b = strictjson.Quote(b, s.ID)
	b = append(b, ",\n  \"status\": "...)
	b = strictjson.Quote(b, string(status))
	pid := s.Pid
	if status == Stopped {
		pid = 0
	}
	b = append(b, ",\n  \"pid\": "...)
	b = strconv.AppendInt(b, int64(pid), 10)
	for _, m := range [...][2]string{{"bundle", s.Bundle}, {"rootfs", s.Rootfs}, {"created", s.Created.UTC().Format(time.RFC3339Nano)}, {"owner", ""}} {
		b = append(b, ",\n  \""+m[0]+"\": "...)
		b = strictjson.Quote(b, m[1])
	}
	if len(s.Annotations) > 0 {
		b = append(b, ",\n  \"annotations\": "...)
		b = AppendAnnotations(b, s.Annotations)
	}
	return append(b, "\n}\n"...)
}

// ProcessState is what a seccomp agent gets with the listener (runtime-spec, config-linux.md, "The Container
// Process State").
func (s *State) ProcessState(pid int, metadata string, status Status) []byte {
	b := append(make([]byte, 0, 1024), `{"ociVersion":"`+Version+`","fds":["seccompFd"],"pid":`...)
	b = strconv.AppendInt(b, int64(pid), 10)
	if metadata != "" {
		b = append(b, `,"metadata":`...)
		b = strictjson.Quote(b, metadata)
	}
	b = append(b, `,"state":`...)
	b = append(b, s.OCI(status)...)
	return append(b, '}')
}
