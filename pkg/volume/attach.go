// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// A Record is a bundle's volumes.json (spec/volume.md).
type Record struct {
	Version string  `json:"version"`
	Mounts  []Mount `json:"mounts"`
}

// ParseRecord reads a volumes.json.
func ParseRecord(data []byte) (*Record, error) {
	r := new(Record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, err
	}
	return r, r.check()
}

func (r *Record) check() error {
	if r.Version != Version {
		return fmt.Errorf("version: found %q, want %q", r.Version, Version)
	}
	for i, m := range r.Mounts {
		at := fmt.Sprintf("mounts[%d]", i)
		if m.Type != TypeVolume && m.Type != TypeBind && m.Type != TypeTmpfs {
			return fmt.Errorf("%s.type: found %q, want %s, %s or %s", at, m.Type, TypeVolume, TypeBind, TypeTmpfs)
		}
		if m.Type == TypeVolume && m.Source == "" {
			return fmt.Errorf("%s.source: found none, want a volume's name", at)
		}
		if m.Type == TypeBind && !path.IsAbs(m.Source) {
			return fmt.Errorf("%s.source: found %q, want an absolute path", at, m.Source)
		}
		if err := m.complete(); err != nil {
			return fmt.Errorf("%s.%w", at, err)
		}
		if slices.ContainsFunc(r.Mounts[:i], func(o Mount) bool { return o.Destination == m.Destination }) {
			return fmt.Errorf("%s.destination: found %q a second time", at, m.Destination)
		}
	}
	return nil
}

// uses says whether a mount is of the volume whose data is at path.
func (r *Record) uses(name, data string) bool {
	return slices.ContainsFunc(r.Mounts, func(m Mount) bool {
		return m.Type == TypeVolume && m.Source == name && (m.Path == data || strings.HasPrefix(m.Path, data+"/"))
	})
}

// Read reads a bundle's volumes.json. It fails with fs.ErrNotExist where nothing was ever attached.
func Read(b *bundle.Bundle) (*Record, error) {
	r := new(Record)
	if err := b.ReadJSON(bundle.VolumesFile, r); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", b.Path(bundle.VolumesFile), err)
	}
	return r, nil
}

// AttachOptions hold for all mounts of a call.
type AttachOptions struct {
	CreateHostPath bool // as Mount.Create for every bind
}

// Attach adds mounts to a bundle. A mount at the same destination is replaced. A volume that does not exist is
// made; an empty one that nobody has used yet is filled with what the image has at the destination.
func (s *Store) Attach(ctx context.Context, b *bundle.Bundle, mounts []Mount, o AttachOptions) error {
	mounts = slices.Clone(mounts)
	for i := range mounts {
		m := &mounts[i]
		if slices.ContainsFunc(mounts[:i], func(p Mount) bool { return p.Destination == m.Destination }) {
			return fault.Usagef("mount at %s: given twice", m.Destination)
		}
		m.Create = m.Create || o.CreateHostPath && m.Type == TypeBind
	}
	// Locks are held until volumes.json names the volumes, so that rm sees them in use; taken in the order of
	// names, once each, so that two tools cannot wait for each other.
	s.nameAnonymous(b, mounts)
	volumes, unlock, err := s.lockAll(mounts)
	if err != nil {
		return err
	}
	defer unlock()
	for i := range mounts {
		m := &mounts[i]
		switch m.Type {
		case TypeVolume:
			err = s.prepare(ctx, b, m, volumes[m.Source])
		case TypeBind:
			err = m.prepareBind()
		}
		if err != nil {
			return fmt.Errorf("mount at %s: %w", m.Destination, err)
		}
	}
	return update(b, func(r *Record, spec *specs.Spec) {
		for _, m := range mounts {
			r.Mounts = slices.DeleteFunc(r.Mounts, func(have Mount) bool { return have.Destination == m.Destination })
			spec.Mounts = slices.DeleteFunc(spec.Mounts, func(have specs.Mount) bool { return path.Clean(have.Destination) == m.Destination })
			r.Mounts = append(r.Mounts, m)
			mount := specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Path, Options: m.runtimeOptions()}
			if m.Type == TypeTmpfs {
				mount.Type, mount.Source = "tmpfs", "tmpfs"
			}
			spec.Mounts = append(spec.Mounts, mount)
		}
		// A mount must come before what is mounted below it.
		slices.SortStableFunc(spec.Mounts, func(a, b specs.Mount) int { return depth(a.Destination) - depth(b.Destination) })
	})
}

// update edits volumes.json and config.json under the bundle's lock.
func update(b *bundle.Bundle, edit func(*Record, *specs.Spec)) error {
	return b.Update(func(spec *specs.Spec) error {
		r, err := Read(b)
		if errors.Is(err, fs.ErrNotExist) {
			r, err = &Record{Version: Version}, nil
		}
		if err != nil {
			return err
		}
		edit(r, spec)
		if len(r.Mounts) == 0 {
			return b.Remove(bundle.VolumesFile)
		}
		return b.WriteJSON(bundle.VolumesFile, r)
	})
}

func depth(p string) int {
	if p = strings.Trim(path.Clean("/"+p), "/"); p == "" {
		return 0
	}
	return 1 + strings.Count(p, "/")
}

// nameAnonymous names volumes that have no name. The same command again finds the volume of the first time.
func (s *Store) nameAnonymous(b *bundle.Bundle, mounts []Mount) {
	r, err := Read(b)
	if err != nil {
		r = &Record{}
	}
	for i := range mounts {
		m := &mounts[i]
		if m.Type != TypeVolume || m.Source != "" {
			continue
		}
		m.Source = anonymousName()
		m.anonymous = true
		for _, have := range r.Mounts {
			if v, err := s.Load(have.Source); have.Type == TypeVolume && have.Destination == m.Destination && err == nil && v.Anonymous {
				m.Source = v.Name
			}
		}
	}
}

// lockAll locks the volumes of the mounts and makes those that are missing.
func (s *Store) lockAll(mounts []Mount) (volumes map[string]*Volume, unlock func(), err error) {
	var locks []*atomicfile.Lock
	unlock = func() {
		for _, l := range locks {
			l.Unlock()
		}
	}
	sorted := slices.Clone(mounts)
	slices.SortFunc(sorted, func(a, b Mount) int { return strings.Compare(a.Source, b.Source) })
	volumes = map[string]*Volume{}
	for _, m := range sorted {
		if m.Type != TypeVolume || volumes[m.Source] != nil {
			continue
		}
		l, v, err := s.open(m.Source, &CreateOptions{Anonymous: m.anonymous})
		if err != nil {
			unlock()
			return nil, nil, err
		}
		locks = append(locks, l)
		volumes[m.Source] = v
	}
	return volumes, unlock, nil
}

// prepare fills a volume, sets the mount's path and marks the bundle as a user.
func (s *Store) prepare(ctx context.Context, b *bundle.Bundle, m *Mount, v *Volume) error {
	users, err := s.users(v.Name)
	if err != nil {
		return err
	}
	others := slices.ContainsFunc(users, func(u string) bool { return u != b.Dir() })
	if !v.Filled && !m.NoCopy && !others {
		if err := s.fill(ctx, b, m, v); err != nil {
			return fmt.Errorf("fill volume %s: %w", v.Name, err)
		}
	}
	if m.Path, err = s.subpath(v.Name, m.Subpath); err != nil {
		return err
	}
	return atomicfile.Write(s.userFile(v.Name, b), []byte(b.Dir()), 0o600)
}

// subpath is the path of a directory in a volume, without links. A missing one is made.
func (s *Store) subpath(name, sub string) (string, error) {
	if sub == "" {
		return s.Data(name), nil
	}
	root, err := rootfd.Open(s.Data(name))
	if err != nil {
		return "", err
	}
	defer root.Close()
	if err := root.MkdirAll(sub, 0o755); err != nil {
		return "", err
	}
	d, err := root.OpenFile(sub, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", err
	}
	defer d.Close()
	resolved, err := os.Readlink(rootfd.FdPath(d))
	if err != nil {
		return "", err
	}
	top, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", root.Fd()))
	if err != nil {
		return "", err
	}
	if resolved != top && !strings.HasPrefix(resolved, top+"/") {
		return "", fmt.Errorf("subpath %s: leads to %s", sub, resolved)
	}
	return s.Data(name) + strings.TrimPrefix(resolved, top), nil
}

// prepareBind looks for the source of a bind, or makes it.
func (m *Mount) prepareBind() error {
	m.Path = m.Source
	_, err := os.Stat(m.Source)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !m.Create {
		return fault.Hint(fmt.Errorf("source %s: %w", m.Source, fs.ErrNotExist), "make it, or give the option create: %s:%s:create", m.Source, m.Destination)
	}
	return mkdirAsCaller(m.Source)
}

// mkdirAsCaller makes a directory and its missing parents, owned by who called: under sudo not by root.
func mkdirAsCaller(dir string) error {
	var missing []string
	for d := dir; ; d = path.Dir(d) {
		if _, err := os.Stat(d); err == nil {
			break
		}
		missing = append(missing, d)
	}
	uid, gid := -1, -1
	if os.Geteuid() == 0 {
		if n, err := strconv.Atoi(os.Getenv("SUDO_UID")); err == nil {
			uid = n
		}
		if n, err := strconv.Atoi(os.Getenv("SUDO_GID")); err == nil {
			gid = n
		}
	}
	for _, d := range slices.Backward(missing) {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := os.Lchown(d, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// Detach removes the mounts at the destinations, or all that were attached if none is named. What is not
// attached is success.
func (s *Store) Detach(ctx context.Context, b *bundle.Bundle, destinations ...string) error {
	var gone, left []Mount
	chosen := func(m Mount) bool {
		return len(destinations) == 0 || slices.ContainsFunc(destinations, func(d string) bool { return path.Clean(d) == m.Destination })
	}
	if _, err := Read(b); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := update(b, func(r *Record, spec *specs.Spec) {
		for _, m := range r.Mounts {
			if !chosen(m) {
				left = append(left, m)
				continue
			}
			gone = append(gone, m)
			spec.Mounts = slices.DeleteFunc(spec.Mounts, func(have specs.Mount) bool {
				return path.Clean(have.Destination) == m.Destination && (have.Source == m.Path || m.Type == TypeTmpfs && have.Type == "tmpfs")
			})
		}
		r.Mounts = left
	})
	if err != nil {
		return err
	}
	for _, m := range gone {
		if m.Type != TypeVolume || slices.ContainsFunc(left, func(l Mount) bool { return l.Type == TypeVolume && l.Source == m.Source }) {
			continue
		}
		if err := os.Remove(s.userFile(m.Source, b)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
