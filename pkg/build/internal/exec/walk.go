// SPDX-License-Identifier: Apache-2.0

package exec

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"golang.org/x/sys/unix"
)

// An entry is a file met on a walk. dir and name say where it is: the calls that read it take them.
type entry struct {
	dir  int    // handle of its directory
	name string // "." for the tree's own root
	rel  string // below where the walk began; "" there
	st   unix.Stat_t
}

func (e *entry) kind() uint32 { return e.st.Mode & unix.S_IFMT }

func (e *entry) errorf(op string, err error) error {
	name := e.rel
	if name == "" {
		name = e.name
	}
	return &os.PathError{Op: op, Path: name, Err: err}
}

// open opens a regular file or directory to read.
func (e *entry) open() (*os.File, error) {
	flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := unix.Openat(e.dir, e.name, flags, 0)
	if err != nil {
		return nil, e.errorf("open", err)
	}
	f := os.NewFile(uintptr(fd), e.rel)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != e.st.Ino || st.Mode&unix.S_IFMT != e.kind() {
		f.Close()
		return nil, e.errorf("open", fmt.Errorf("replaced while it was read"))
	}
	return f, nil
}

func (e *entry) readlink() (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(e.dir, e.name, b)
	if err != nil {
		return "", e.errorf("readlink", err)
	}
	return string(b[:n]), nil
}

// A visitor is told of each file, in order of names; of directories before and after what is in them.
type visitor interface {
	file(*entry) error
	enter(*entry) error
	leave(*entry) error
}

type walker struct {
	ctx     context.Context
	t       *Tree
	exclude *patternmatcher.PatternMatcher // COPY --exclude, relative to where the walk began
	v       visitor
	pending []*entry // hidden directories that only matter if something in them is not
}

// hiding is what the two matchers know of the parent directories.
type hiding struct{ ignore, exclude patternmatcher.MatchInfo }

// walk visits what is at m, without what is hidden or excluded.
func (t *Tree) walk(ctx context.Context, m match, exclude []string, v visitor) error {
	w := &walker{ctx: ctx, t: t, v: v}
	if len(exclude) > 0 {
		var err error
		if w.exclude, err = patternmatcher.New(exclude); err != nil {
			return fmt.Errorf("--exclude: %w", err)
		}
	}
	dir, err := t.root.OpenFile(path.Dir(m.real), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return t.missing(m.real, err)
	}
	defer dir.Close()
	e := &entry{dir: int(dir.Fd()), name: path.Base(m.real)}
	if m.real == "/" {
		e.name = "."
	}
	if err := unix.Fstatat(e.dir, e.name, &e.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return t.missing(m.real, err)
	}
	if e.kind() != unix.S_IFDIR && w.exclude != nil {
		if out, err := w.exclude.MatchesOrParentMatches(e.name); err != nil || out {
			return err
		}
	}
	var h hiding
	hidden := false
	if t.ignore != nil && m.real != "/" {
		at := ""
		for _, part := range strings.Split(strings.TrimPrefix(m.real, "/"), "/") {
			at = path.Join(at, part)
			if hidden, h.ignore, err = t.ignore.MatchesUsingParentResults(at, h.ignore); err != nil {
				return err
			}
		}
	}
	return w.entry(e, strings.TrimPrefix(m.real, "/"), hidden, h)
}

// entry visits one file; full is its path in the tree.
func (w *walker) entry(e *entry, full string, hidden bool, h hiding) error {
	if err := w.ctx.Err(); err != nil {
		return context.Cause(w.ctx)
	}
	if e.kind() != unix.S_IFDIR {
		if hidden || e.kind() == unix.S_IFSOCK { // a socket is a process's, not a file
			return nil
		}
		if err := w.flush(); err != nil {
			return err
		}
		return w.v.file(e)
	}
	if hidden && !w.t.exceptions(full) && (w.exclude == nil || !w.exclude.Exclusions()) {
		return nil
	}
	depth := len(w.pending)
	w.pending = append(w.pending, e)
	if !hidden {
		if err := w.flush(); err != nil {
			return err
		}
	}
	f, err := e.open()
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return e.errorf("read", err)
	}
	slices.Sort(names)
	for _, n := range names {
		c := &entry{dir: int(f.Fd()), name: n, rel: path.Join(e.rel, n)}
		if err := unix.Fstatat(c.dir, n, &c.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return c.errorf("stat", err)
		}
		var below hiding
		hid, out := false, false
		if w.t.ignore != nil {
			if hid, below.ignore, err = w.t.ignore.MatchesUsingParentResults(path.Join(full, n), h.ignore); err != nil {
				return err
			}
		}
		if w.exclude != nil {
			if out, below.exclude, err = w.exclude.MatchesUsingParentResults(c.rel, h.exclude); err != nil {
				return err
			}
		}
		if err := w.entry(c, path.Join(full, n), hid || out, below); err != nil {
			return err
		}
	}
	if len(w.pending) > depth { // nothing in it was wanted
		w.pending = w.pending[:depth]
		return nil
	}
	return w.v.leave(e)
}

// flush enters the directories that were held back.
func (w *walker) flush() error {
	for _, e := range w.pending {
		if err := w.v.enter(e); err != nil {
			return err
		}
	}
	w.pending = w.pending[:0]
	return nil
}
