// SPDX-License-Identifier: Apache-2.0

package exec

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/patternmatcher"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// A Tree is where COPY and bind mounts take files from: the build context or a state.
type Tree struct {
	root   *rootfd.Root
	name   string                         // for messages
	ignore *patternmatcher.PatternMatcher // .dockerignore; nil: nothing
	state  bool                           // owners, times, devices and extended attributes count

	buffers sync.Pool // of *[bufferBytes]byte

	mu   sync.Mutex
	seen map[fingerprint]digest.Digest // content of the files that were hashed
}

// fingerprint tells whether a file is still what was hashed.
type fingerprint struct {
	dev, ino uint64
	size     int64
	ctime    unix.Timespec
	mtime    unix.Timespec
	mode     uint32
}

func printOf(st *unix.Stat_t) fingerprint {
	return fingerprint{dev: st.Dev, ino: st.Ino, size: st.Size, ctime: st.Ctim, mtime: st.Mtim, mode: st.Mode}
}

// ContextTree is a build context. ignore may be nil.
func ContextTree(root *rootfd.Root, ignore *patternmatcher.PatternMatcher) *Tree {
	return &Tree{root: root, name: "the build context", ignore: ignore, seen: map[fingerprint]digest.Digest{}}
}

// StateTree is the view of a state.
func StateTree(root *rootfd.Root, name string) *Tree {
	return &Tree{root: root, name: name, state: true, seen: map[fingerprint]digest.Digest{}}
}

// Close closes the tree's handle.
func (t *Tree) Close() error { return t.root.Close() }

// A match is a source that was found.
type match struct {
	given string // as named, wildcards replaced: its last part names the copy
	pivot string // with --parents: the path below the destination
	real  string // links resolved, inside the tree
	dir   bool
}

const wild = `*?[\`

// find resolves a source, which may hold wildcards (path.Match). A source without must exist; one with may
// match nothing, as in BuildKit.
func (t *Tree) find(pattern string) ([]match, error) {
	if !strings.ContainsAny(pattern, wild) {
		m, ok, err := t.resolve(pattern)
		if err != nil {
			return nil, err
		}
		if !ok {
			err := fmt.Errorf("%s: excluded by .dockerignore", strings.TrimPrefix(pattern, "/"))
			return nil, fault.Hint(err, "an exception in .dockerignore: !%s", strings.TrimPrefix(pattern, "/"))
		}
		return []match{m}, nil
	}
	found := []string{"/"}
	for _, part := range strings.Split(strings.Trim(pattern, "/"), "/") {
		var next []string
		for _, dir := range found {
			if !strings.ContainsAny(part, wild) {
				next = append(next, path.Join(dir, part))
				continue
			}
			names, err := t.list(dir)
			if err != nil {
				continue // not a directory: nothing in it matches
			}
			for _, n := range names {
				if ok, err := path.Match(part, n); err != nil {
					return nil, fmt.Errorf("%s: %w", pattern, err)
				} else if ok {
					next = append(next, path.Join(dir, n))
				}
			}
		}
		found = next
	}
	var out []match
	for _, p := range found {
		if m, ok, err := t.resolve(p); err == nil && ok {
			out = append(out, m)
		}
	}
	return out, nil
}

func (t *Tree) list(dir string) ([]string, error) {
	f, err := t.root.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// resolve follows a path inside the tree to its end. ok is false where .dockerignore hides all of it.
func (t *Tree) resolve(p string) (m match, ok bool, err error) {
	f, err := t.root.OpenFile(p, unix.O_PATH, 0)
	if err != nil {
		return m, false, t.missing(p, err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return m, false, err
	}
	real, err := t.realPath(f)
	if err != nil {
		return m, false, err
	}
	m = match{given: p, real: real, dir: st.Mode&unix.S_IFMT == unix.S_IFDIR}
	for _, name := range []string{p, real} {
		hidden, err := t.hidden(name)
		if err != nil {
			return m, false, err
		}
		if hidden && !(m.dir && t.exceptions(strings.TrimPrefix(name, "/"))) {
			return m, false, nil
		}
	}
	return m, true, nil
}

// missing says what was not found, without the place on the host.
func (t *Tree) missing(p string, err error) error {
	p = strings.TrimPrefix(p, "/")
	if errno := errnoOf(err); errno == unix.ENOENT || errno == unix.ENOTDIR {
		return fmt.Errorf("%s: not found in %s", p, t.name)
	} else if errno != 0 {
		return fmt.Errorf("%s in %s: %v", p, t.name, errno)
	}
	return err
}

func errnoOf(err error) unix.Errno {
	for err != nil {
		if e, ok := err.(unix.Errno); ok {
			return e
		}
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return 0
		}
		err = u.Unwrap()
	}
	return 0
}

// realPath is where an open file is inside the tree: the kernel's answer, not a second look-up.
func (t *Tree) realPath(f *os.File) (string, error) {
	top, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(t.root.Fd()))
	if err != nil {
		return "", err
	}
	real, err := os.Readlink(rootfd.FdPath(f))
	if err != nil {
		return "", err
	}
	if top != "/" {
		rest, ok := strings.CutPrefix(real, top)
		if !ok || rest != "" && rest[0] != '/' {
			return "", fmt.Errorf("%s: moved out of %s while it was read", real, t.name)
		}
		real = rest
	}
	return path.Clean("/" + real), nil
}

// hidden says whether .dockerignore leaves p out.
func (t *Tree) hidden(p string) (bool, error) {
	if p = strings.TrimPrefix(p, "/"); t.ignore == nil || p == "" {
		return false, nil
	}
	return t.ignore.MatchesOrParentMatches(p)
}

// exceptions says whether an exception ("!PATTERN") may bring back something below dir.
func (t *Tree) exceptions(dir string) bool {
	if t.ignore == nil || !t.ignore.Exclusions() {
		return false
	}
	for _, p := range t.ignore.Patterns() {
		if !p.Exclusion() {
			continue
		}
		literal := p.String()
		if i := strings.IndexAny(literal, wild); i >= 0 {
			literal = literal[:i]
		}
		if strings.HasPrefix(literal, dir+"/") || strings.HasPrefix(dir+"/", literal) {
			return true
		}
	}
	return false
}
