// SPDX-License-Identifier: Apache-2.0

package exec

import (
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// stubs are the files and directories that a runtime makes for mounts to sit on. They are not the step's
// doing and do not belong into its layer.
type stubs struct {
	made    []string               // not there before, outermost first
	parents map[string]unix.Stat_t // directories that were there, which a stub copies up
}

// findStubs looks, before the step runs, for what mounts at the destinations will make.
func findStubs(view *rootfd.Root, destinations []string) (*stubs, error) {
	s := &stubs{parents: map[string]unix.Stat_t{}}
	t := StateTree(view, "the state")
	for _, d := range destinations {
		dir, rest := path.Clean("/"+d), []string(nil)
		for {
			f, err := view.OpenFile(dir, unix.O_PATH, 0)
			if err == nil {
				err = s.add(t, f, rest)
				f.Close()
				if err != nil {
					return nil, err
				}
				break
			}
			if e := errnoOf(err); dir == "/" || e != unix.ENOENT && e != unix.ENOTDIR {
				return nil, hostless(err, d)
			}
			rest = append([]string{path.Base(dir)}, rest...)
			dir = path.Dir(dir)
		}
	}
	return s, nil
}

// add notes that the parts rest are missing below the open directory.
func (s *stubs) add(t *Tree, f *os.File, rest []string) error {
	if len(rest) == 0 {
		return nil
	}
	at, err := t.realPath(f)
	if err != nil {
		return err
	}
	for p := at; p != "/"; p = path.Dir(p) {
		st, err := t.root.Lstat(p)
		if err != nil {
			return err
		}
		s.parents[p] = st
	}
	for _, part := range rest {
		at = path.Join(at, part)
		s.made = append(s.made, at)
	}
	return nil
}

// remove takes the stubs out of the upper directory, unless the step put something into them, and then the
// directories around them that were copied up for nothing else.
func (s *stubs) remove(upper string) error {
	r, err := rootfd.Open(upper)
	if err != nil {
		return err
	}
	defer r.Close()
	for i := len(s.made) - 1; i >= 0; i-- {
		p := s.made[i]
		st, err := r.Lstat(p)
		if err != nil {
			continue
		}
		isStub := st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0
		if isStub || st.Mode&unix.S_IFMT == unix.S_IFDIR {
			if err := r.Remove(p); err != nil && errnoOf(err) != unix.ENOTEMPTY {
				return err
			}
		}
	}
	for _, p := range s.made {
		for p = path.Dir(p); p != "/"; p = path.Dir(p) {
			was, ok := s.parents[p]
			if ok && !s.unchanged(r, p, was) {
				break
			}
			if err := r.Remove(p); err != nil && errnoOf(err) != unix.ENOENT {
				break // not empty
			}
		}
	}
	return nil
}

// unchanged says whether the copy of a directory is empty and as the one it hides.
func (s *stubs) unchanged(r *rootfd.Root, p string, was unix.Stat_t) bool {
	st, err := r.Lstat(p)
	if err != nil || st.Mode != was.Mode || st.Uid != was.Uid || st.Gid != was.Gid || opaque(r, p) {
		return false
	}
	f, err := r.OpenFile(strings.TrimPrefix(p, "/"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	return err == io.EOF
}
