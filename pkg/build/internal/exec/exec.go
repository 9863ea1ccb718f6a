// SPDX-License-Identifier: Apache-2.0

// Package exec carries out the operations of a build: it copies files, makes directories and runs programs
// on states. A state is a stack of snapshots; a new one is the same stack with one more directory on top,
// the upper directory that the operation wrote, which is also the layer: nothing is scanned for changes.
//
// It trusts neither the Dockerfile nor what lies in contexts and images. Every path of theirs is resolved by
// handles inside the tree it belongs to (package rootfd). Overlays that this package looks through are
// mounts that no mount table shows: they end with the process, whatever ends it.
package exec

import (
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// A State is a root filesystem: directories in overlay form.
type State struct {
	Lower []string // topmost first, at least one
	Root  string   // the one whose own metadata the root directory has; empty: mode 0755, root's
}

// A Scratch is the private directory of one operation at work: what it writes, and what it needs meanwhile.
type Scratch struct{ dir string }

// NewScratch makes a scratch directory below parent, which is on the file system of the snapshots.
func NewScratch(parent string) (*Scratch, error) {
	dir, err := os.MkdirTemp(parent, "op-")
	if err != nil {
		return nil, err
	}
	s := &Scratch{dir}
	for _, sub := range []string{"upper", "work", "empty"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	// What it shows through the overlay is the root directory of the container.
	return s, os.Chmod(s.Upper(), 0o755)
}

// BundlePath is where the bundle of a step in the scratch directory dir is.
func BundlePath(dir string) string { return filepath.Join(dir, "bundle") }

// HasBundle says whether a step came so far that its bundle is there.
func (s *Scratch) HasBundle() bool {
	_, err := os.Lstat(filepath.Join(BundlePath(s.dir), bundle.ConfigFile))
	return err == nil
}

// Upper is where the operation's changes are.
func (s *Scratch) Upper() string { return filepath.Join(s.dir, "upper") }

// Path is a name for something else in the scratch directory.
func (s *Scratch) Path(name string) string { return filepath.Join(s.dir, name) }

// ContainerID is the id of the container that runs a step in this scratch directory. It is that of no other
// directory.
func (s *Scratch) ContainerID() string { return ContainerID(s.dir) }

// ContainerID is Scratch.ContainerID for a directory's path. The last two parts are random; those before them
// have other names for whoever comes through a link.
func ContainerID(dir string) string {
	return "build-" + digest.FromString(filepath.Join(filepath.Base(filepath.Dir(dir)), filepath.Base(dir))).Encoded()[:16]
}

// Remove removes the directory with all that is left in it.
func (s *Scratch) Remove() error { return removeTree(s.dir) }

// removeTree removes a directory that an operation may have filled, by handles.
func removeTree(dir string) error {
	r, err := rootfd.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	defer r.Close()
	return r.RemoveAll(filepath.Base(dir))
}

// View opens a state to read.
func (s *Scratch) View(st State) (*rootfd.Root, error) {
	lower := st.Lower
	if len(lower) == 1 {
		lower = append(lower[:1:1], s.Path("empty")) // overlayfs wants two where nothing can be written
	}
	return overlay(lower, "", "", s.dir)
}

// Change opens a state to write: what is written lands in Upper.
func (s *Scratch) Change(st State) (*rootfd.Root, error) {
	if err := s.rootMode(st); err != nil {
		return nil, err
	}
	return overlay(st.Lower, s.Upper(), s.Path("work"), s.dir)
}

// Alone opens the upper directory by itself, for what does not look at the state it is put on.
func (s *Scratch) Alone() (*rootfd.Root, error) { return rootfd.Open(s.Upper()) }

// rootMode gives the upper directory owner and mode of the root directory that it will hide.
func (s *Scratch) rootMode(st State) error {
	if st.Root == "" {
		return nil
	}
	var have unix.Stat_t
	if err := unix.Stat(st.Root, &have); err != nil {
		return err
	}
	if err := os.Chown(s.Upper(), int(have.Uid), int(have.Gid)); err != nil {
		return err
	}
	return unix.Chmod(s.Upper(), have.Mode&0o7777)
}

// Settings are what operations have in common.
type Settings struct {
	Epoch time.Time // the time of files from a context, and the latest of any other
}
