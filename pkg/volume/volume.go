// SPDX-License-Identifier: Apache-2.0

// Package volume owns the volume contract (spec/volume.md, ctr-volume(5)): named volumes as directories below
// CTR_ROOT/volumes, and the mounts of a bundle that are its user's: volumes, binds and tmpfs, kept in the
// bundle's volumes.json and in its config.json.
//
//	s := volume.NewStore(place.Root())
//	m, err := volume.ParseShort("data:/var/lib/data:ro")
//	s.Attach(ctx, b, []volume.Mount{m}, volume.AttachOptions{})
//
// The package mounts nothing where others see it: that is the runtime's work. What an image or a volume holds
// is only reached through handles that resolve links inside it.
package volume

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/place"
	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// Version is the version of volume.json and volumes.json.
const Version = "1.0"

// Names in a volume's directory.
const (
	metaFile = "volume.json"
	dataDir  = "data"  // what is mounted
	usersDir = "users" // one file for each bundle that has the volume attached
	fillDir  = "fill"  // data in the making
)

var nameRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

// CheckName refuses what cannot be a volume's name: it is a directory name, and has no slash, by which a bind
// is told from a volume.
func CheckName(name string) error {
	if !nameRE.MatchString(name) || len(name) > 200 {
		return fault.Usagef("volume name %q: want a letter, digit or _, then letters, digits and _.-, at most 200", name)
	}
	return nil
}

// A Store is the volumes below one root.
type Store struct{ dir string }

// NewStore makes nothing on disk.
func NewStore(root string) *Store {
	dir := place.Volumes(root)
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return &Store{dir}
}

// A Volume is a volume.json.
type Volume struct {
	Version   string            `json:"version"`
	Name      string            `json:"name"`
	Created   time.Time         `json:"created"`
	Labels    map[string]string `json:"labels,omitempty"`
	Anonymous bool              `json:"anonymous,omitempty"` // made for one mount without a name; prune removes it
	Filled    bool              `json:"filled,omitempty"`    // the first attach has been: it is never filled again
}

// labelAnonymous is how Docker and Compose mark volumes that nobody named.
const labelAnonymous = "com.docker.volume.anonymous"

// IsAnonymous says whether the volume was made for one mount without a name.
func (v *Volume) IsAnonymous() bool {
	_, labelled := v.Labels[labelAnonymous]
	return v.Anonymous || labelled
}

// ParseVolume reads a volume.json.
func ParseVolume(data []byte) (*Volume, error) {
	v := new(Volume)
	if err := json.Unmarshal(data, v); err != nil {
		return nil, err
	}
	if v.Version != Version {
		return nil, fmt.Errorf("version: found %q, want %q", v.Version, Version)
	}
	if err := CheckName(v.Name); err != nil {
		return nil, fmt.Errorf("name: %w", err)
	}
	return v, nil
}

func (s *Store) path(name string, rest ...string) string {
	return filepath.Join(append([]string{s.dir, name}, rest...)...)
}

// Data is the directory that is mounted.
func (s *Store) Data(name string) string { return s.path(name, dataDir) }

// Load reads one volume. It fails with fs.ErrNotExist and a hint.
func (s *Store) Load(name string) (*Volume, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(s.path(name, metaFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Hint(fmt.Errorf("volume %s: %w", name, fs.ErrNotExist), "make it: ctr-vol create %s", name)
	}
	if err != nil {
		return nil, err
	}
	v, err := ParseVolume(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.path(name, metaFile), err)
	}
	if v.Name != name {
		return nil, fmt.Errorf("%s: name: found %q, want %q as the directory is called", s.path(name, metaFile), v.Name, name)
	}
	return v, nil
}

// List reads all volumes, by name. One that cannot be read is reported in err next to those that can.
func (s *Store) List() (all []*Volume, err error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || !nameRE.MatchString(e.Name()) {
			continue
		}
		v, err := s.Load(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // in the making, or gone
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, v)
	}
	return all, errors.Join(errs...)
}

// CreateOptions of a volume.
type CreateOptions struct {
	Labels    map[string]string
	Anonymous bool
}

// Create makes an empty volume. One that is there already is returned, unless labels are given that it does
// not have: fs.ErrExist.
func (s *Store) Create(name string, o CreateOptions) (*Volume, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	l, v, err := s.open(name, &o)
	if err != nil {
		return nil, err
	}
	l.Unlock()
	if len(o.Labels) > 0 && !maps.Equal(o.Labels, v.Labels) {
		return nil, fmt.Errorf("volume %s: labels are %v, not %v: %w", name, v.Labels, o.Labels, fs.ErrExist)
	}
	return v, nil
}

// open locks a volume and reads it; with create it is made where it is missing.
func (s *Store) open(name string, create *CreateOptions) (*atomicfile.Lock, *Volume, error) {
	dir := s.path(name)
	for {
		if create != nil {
			// Nobody but root reaches what containers put into volumes: set-user-ID files above all.
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return nil, nil, err
			}
		}
		l, err := atomicfile.LockPath(dir, true)
		if errors.Is(err, fs.ErrNotExist) {
			if create != nil {
				continue // removed in this moment
			}
			_, err = s.Load(name)
			return nil, nil, err
		}
		if err != nil {
			return nil, nil, err
		}
		// The lock is on the directory that was at this path; rm may have taken it away.
		if !l.Holds(dir) {
			l.Unlock()
			continue
		}
		v, err := s.Load(name)
		if errors.Is(err, fs.ErrNotExist) && create != nil {
			v, err = s.make(name, create)
		}
		if err != nil {
			l.Unlock()
			return nil, nil, err
		}
		return l, v, nil
	}
}

// make fills a volume's new directory; volume.json comes last and makes it a volume.
func (s *Store) make(name string, o *CreateOptions) (*Volume, error) {
	for _, d := range []struct {
		name string
		perm fs.FileMode
	}{{usersDir, 0o700}, {dataDir, 0o755}} {
		err := os.Mkdir(s.path(name, d.name), d.perm)
		if err == nil {
			err = os.Chmod(s.path(name, d.name), d.perm) // whatever the umask
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	v := &Volume{Version: Version, Name: name, Created: time.Now().UTC().Truncate(time.Second), Labels: o.Labels, Anonymous: o.Anonymous}
	return v, s.write(v)
}

func (s *Store) write(v *Volume) error {
	data, err := marshal(v)
	if err != nil {
		return err
	}
	return atomicfile.Write(s.path(v.Name, metaFile), data, 0o600)
}

// anonymousName is a name that nobody has.
func anonymousName() string {
	var r [16]byte
	rand.Read(r[:]) // never fails (crypto/rand)
	return hex.EncodeToString(r[:])
}

// Remove removes a volume and its data. One that is not there is fs.ErrNotExist; one that bundles have attached
// is fault.ErrBusy and names them.
func (s *Store) Remove(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	l, _, err := s.open(name, nil)
	if err != nil {
		return err
	}
	defer l.Unlock()
	users, err := s.users(name)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return fault.Hint(fmt.Errorf("volume %s: %w by %s", name, fault.ErrBusy, strings.Join(users, ", ")), "ctr-vol detach %s", users[0])
	}
	root, err := rootfd.Open(s.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	// Out of sight first: what is half removed is no volume any more. A name with a dot in front is none.
	gone := "." + name + "-" + anonymousName()
	if err := os.Rename(s.path(name), s.path(gone)); err != nil {
		return err
	}
	return root.RemoveAll(gone)
}

// Prune removes the anonymous volumes that no bundle has attached, or with all the named ones too. It returns
// the names, and removes what an interrupted Remove has left.
func (s *Store) Prune(ctx context.Context, all bool) (removed []string, err error) {
	volumes, err := s.List()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, v := range volumes {
		if !v.IsAnonymous() && !all {
			continue
		}
		err := s.Remove(ctx, v.Name)
		switch {
		case err == nil:
			removed = append(removed, v.Name)
		case !errors.Is(err, fault.ErrBusy) && !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return removed, err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") || !e.IsDir() {
			continue
		}
		l, err := atomicfile.TryLockPath(s.path(e.Name()), true)
		if err != nil {
			continue // its remover is at work
		}
		root, err := rootfd.Open(s.dir)
		if err == nil {
			err = root.RemoveAll(e.Name())
			root.Close()
		}
		errs = append(errs, err)
		l.Unlock()
	}
	return removed, errors.Join(errs...)
}

// Users lists the bundles that have a volume attached.
func (s *Store) Users(name string) ([]string, error) {
	if _, err := s.Load(name); err != nil {
		return nil, err
	}
	return s.users(name)
}

// users reads the users directory and believes a file there only if the bundle agrees.
func (s *Store) users(name string) (bundles []string, err error) {
	files, err := os.ReadDir(s.path(name, usersDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, f := range files {
		dir, err := os.ReadFile(s.path(name, usersDir, f.Name()))
		if err != nil || !filepath.IsAbs(string(dir)) {
			continue
		}
		b, err := bundle.Open(string(dir))
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return nil, err
		}
		r, err := Read(b)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if r.uses(name, s.Data(name)) {
			bundles = append(bundles, string(dir))
		}
	}
	slices.Sort(bundles)
	return bundles, nil
}

func (s *Store) userFile(name string, b *bundle.Bundle) string {
	sum := sha256.Sum256([]byte(b.Dir()))
	return s.path(name, usersDir, hex.EncodeToString(sum[:8]))
}

// Size is the number of bytes that the volume's files take, hard links once.
func (s *Store) Size(name string) (bytes int64, err error) {
	seen := map[uint64]bool{}
	err = filepath.WalkDir(s.Data(name), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || seen[st.Ino] {
			return nil // gone in this moment
		}
		seen[st.Ino] = true
		bytes += st.Blocks * 512
		return nil
	})
	return bytes, err
}

func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return buf.Bytes(), err
}
