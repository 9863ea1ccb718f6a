// SPDX-License-Identifier: Apache-2.0

// Package cgroup puts a container into its control groups, limits it there, and takes them away again: on
// cgroup v1, on v2, and on hybrid machines, which mount every v1 controller and an extra v2 hierarchy beside them.
//
//	c, err := cgroup.Find(spec.Linux.CgroupsPath, id)
//	err = c.Create(spec.Linux.Resources)
//	err = c.Apply(spec.Linux.Resources)
//	fd, err := c.FD()       // v2: clone into it; v1 and hybrid: -1, then
//	err = c.Join(pid)
//	…
//	err = c.Kill(); err = c.Remove()
//
// It talks to the kernel's files alone, never to systemd, and is on the way of every container start: it reads
// mountinfo only if the hierarchies are not where everybody mounts them.
// See runtime-spec, config-linux.md, "Control groups".
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// A Path is a container's directory in one hierarchy.
type Path struct {
	// Controller is the hierarchy's name in /proc/self/cgroup: "memory", "cpu,cpuacct", "name=systemd"; it is empty
	// for the v2 hierarchy.
	Controller string
	Dir        string // absolute
	mount      string // directory that Dir must stay below and that is never made or removed; may be unknown ("")
}

// A Cgroup is a container's set of directories, one in each hierarchy. The zero value is a container without
// cgroups: nothing to join, no limits.
type Cgroup struct {
	paths []Path
	// optional: the directories were our own choice (no cgroupsPath), so that a user who may make none gets a
	// container without them, unless a limit is asked for.
	optional bool
}

// Open gives the Cgroup of a container that exists, from the Paths saved when it was made.
func Open(paths []Path) *Cgroup { return &Cgroup{paths: paths} }

// Paths returns the container's directories; save Controller and Dir to Open them again.
func (c *Cgroup) Paths() []Path { return c.paths }

// FromPaths is Open for a map from Controller to Dir, as state.json keeps it.
func FromPaths(m map[string]string) *Cgroup {
	c := &Cgroup{paths: make([]Path, 0, len(m))}
	for k, d := range m {
		c.paths = append(c.paths, Path{Controller: k, Dir: d})
	}
	slices.SortFunc(c.paths, func(a, b Path) int { return strings.Compare(a.Controller, b.Controller) })
	return c
}

// Map is Paths for state.json.
func (c *Cgroup) Map() map[string]string {
	m := make(map[string]string, len(c.paths))
	for _, p := range c.paths {
		m[p.Controller] = p.Dir
	}
	return m
}

// V2 says whether all limits live in the v2 hierarchy: the pure v2 set-up.
func (c *Cgroup) V2() bool { return len(c.paths) == 1 && c.paths[0].Controller == "" }

// unified is the directory in the v2 hierarchy, "" if there is none.
func (c *Cgroup) unified() string {
	for i := range c.paths {
		if c.paths[i].Controller == "" {
			return c.paths[i].Dir
		}
	}
	return ""
}

// dir is the directory of the v1 hierarchy that has the controller, "" if there is none.
func (c *Cgroup) dir(controller string) string {
	for i := range c.paths {
		if has(c.paths[i].Controller, controller) {
			return c.paths[i].Dir
		}
	}
	return ""
}

// has says whether the comma-separated list holds name.
func has(list, name string) bool {
	for list != "" {
		var e string
		e, list, _ = strings.Cut(list, ",")
		if e == name {
			return true
		}
	}
	return false
}

// Create makes the container's directories with mode 0755, and on v2 enables on the way down the controllers that r
// needs and those that statistics come from. A directory that is there already must hold no process. On failure
// nothing new is left.
func (c *Cgroup) Create(r *specs.LinuxResources) (err error) {
	var made []string
	defer func() {
		if err != nil {
			for i := len(made) - 1; i >= 0; i-- {
				_ = unix.Rmdir(made[i])
			}
		}
	}()
	kept := c.paths[:0:len(c.paths)]
	for i := range c.paths {
		p := c.paths[i]
		e := mkdir(p, &made)
		if e == nil && has(p.Controller, "cpuset") {
			e = inheritCpuset(p)
		}
		if e != nil {
			// In a hybrid set-up the v2 hierarchy carries no limits, and a named one none ever: a container can do without.
			minor := p.Controller == "" && len(c.paths) > 1 || strings.HasPrefix(p.Controller, "name=")
			if (c.optional || minor) && notPermitted(e) {
				continue
			}
			return e
		}
		kept = append(kept, p)
	}
	c.paths = kept
	if c.V2() {
		if err := c.enable(r); err != nil {
			return err
		}
	} else if u := c.unified(); u != "" && r != nil && len(r.Unified) > 0 {
		return c.enable(&specs.LinuxResources{Unified: r.Unified})
	}
	return nil
}

func notPermitted(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS)
}

// mkdir makes p.Dir and what is missing above it, and notes in made what was new.
func mkdir(p Path, made *[]string) error {
	err := unix.Mkdir(p.Dir, 0o755)
	switch err {
	case nil:
		*made = append(*made, p.Dir)
		return nil
	case unix.EEXIST:
		return empty(p.Dir)
	case unix.ENOENT:
		up := p
		up.Dir = filepath.Dir(p.Dir)
		if len(up.Dir) <= len(p.mount) || up.Dir == "/" {
			break // the hierarchy itself is gone
		}
		if err := mkdirParent(up, made); err != nil {
			return err
		}
		if err = unix.Mkdir(p.Dir, 0o755); err == nil {
			*made = append(*made, p.Dir)
			return nil
		}
	}
	return fmt.Errorf("make cgroup %s: %w", p.Dir, err)
}

func mkdirParent(p Path, made *[]string) error {
	err := unix.Mkdir(p.Dir, 0o755)
	if err == unix.ENOENT {
		up := p
		up.Dir = filepath.Dir(p.Dir)
		if len(up.Dir) > len(p.mount) && up.Dir != "/" {
			if err := mkdirParent(up, made); err != nil {
				return err
			}
			err = unix.Mkdir(p.Dir, 0o755)
		}
	}
	if err == nil {
		*made = append(*made, p.Dir)
		if has(p.Controller, "cpuset") {
			return inheritCpuset(p)
		}
		return nil
	}
	if err == unix.EEXIST { // perhaps made by a concurrent start
		if has(p.Controller, "cpuset") {
			return inheritCpuset(p)
		}
		return nil
	}
	return fmt.Errorf("make cgroup %s: %w", p.Dir, err)
}

// empty refuses a directory with processes: limits would hit them, and delete would kill them.
func empty(dir string) error {
	b, err := readFile(dir, "cgroup.procs")
	if err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) { // a threaded cgroup
			return fmt.Errorf("cgroup %s is of type threaded and cannot hold a container: %w", dir, fs.ErrExist)
		}
		return err
	}
	if len(b) > 0 {
		pid, _, _ := strings.Cut(string(b), "\n")
		return fault.Hint(fault.As(fault.ErrBusy, fmt.Errorf("cgroup %s is not empty: process %s is in it", dir, pid)),
			"another container or service uses this cgroupsPath; choose another one in config.json")
	}
	return nil
}

// inheritCpuset copies cpus and mems from the parent where they are empty: a v1 cpuset takes no process before.
func inheritCpuset(p Path) error {
	for _, f := range [...]string{"cpuset.cpus", "cpuset.mems"} {
		have, err := readFile(p.Dir, f)
		if err != nil {
			return err
		}
		if len(strings.TrimSpace(string(have))) > 0 {
			continue
		}
		up, err := readFile(filepath.Dir(p.Dir), f)
		if err != nil {
			return err
		}
		if err := writeFile(p.Dir, f, strings.TrimSpace(string(up))); err != nil {
			return err
		}
	}
	return nil
}
