// SPDX-License-Identifier: Apache-2.0

package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/build/internal/graph"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/layer"
	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// Copy carries out a COPY or ADD: it takes files from src, which is nil where all are inline, and writes
// them below dst.
func Copy(ctx context.Context, c *graph.Copy, src *Tree, dst *rootfd.Root, set Settings) error {
	k := &copier{ctx: ctx, do: c, src: src, dst: dst, epoch: set.Epoch}
	if c.Chown != "" {
		o, err := owner(dst, c.Chown)
		if err != nil {
			return fmt.Errorf("--chown=%s: %w", c.Chown, err)
		}
		k.owner = &o
	} else if src == nil || !src.state {
		k.owner = &layer.Owner{}
	}
	if c.Chmod != "" {
		n, err := strconv.ParseUint(c.Chmod, 8, 32)
		if err != nil {
			return fmt.Errorf("--chmod=%s: %w", c.Chmod, err)
		}
		mode := uint32(n)
		k.mode = &mode
	}
	var all []match
	for _, p := range c.Paths {
		pivot, below, hasPivot := strings.Cut(p, "/./")
		if !hasPivot {
			pivot, below = "", p
		}
		found, err := src.find(path.Join("/", pivot, below))
		if err != nil {
			return err
		}
		for _, m := range found {
			if c.Parents {
				m.pivot = strings.TrimPrefix(strings.TrimPrefix(m.given, path.Join("/", pivot)), "/")
			}
			all = append(all, m)
		}
	}
	for _, m := range all {
		if err := k.source(m, len(all)+len(c.Inline) > 1); err != nil {
			return err
		}
	}
	for _, f := range c.Inline {
		if err := k.inline(f); err != nil {
			return err
		}
	}
	return nil
}

// copier copies one source after the other; as a visitor it mirrors the walk on the other side.
type copier struct {
	ctx   context.Context
	do    *graph.Copy
	src   *Tree
	dst   *rootfd.Root
	owner *layer.Owner // nil: as in the source
	mode  *uint32      // nil: as in the source
	epoch time.Time

	base  string // where a walk's root goes
	stack []level
	links map[[2]uint64]string // source inode → path of its first copy
}

// level is a directory that is being filled.
type level struct {
	f    *os.File
	path string
	own  bool // gets the source's owner, mode and time
}

// source copies what one source argument matched. many says that the destination has to be a directory.
func (k *copier) source(m match, many bool) error {
	dest := k.do.Dest
	if m.dir {
		k.base = path.Join(dest, m.pivot)
		k.links = map[[2]uint64]string{}
		defer k.unwind()
		return k.src.walk(k.ctx, m, k.do.Exclude, k)
	}
	if k.do.Extract {
		if done, err := k.extract(m); done || err != nil {
			return err
		}
	}
	into := strings.HasSuffix(dest, "/") || k.do.Parents
	if !into {
		isDir, err := k.isDir(dest)
		if err != nil {
			return err
		}
		if into = isDir; many && !isDir && dest != "/" {
			return fmt.Errorf("found destination %q for several files, want a directory with a slash at the end", dest)
		}
	}
	switch {
	case k.do.Parents:
		dest = path.Join(dest, m.pivot)
	case into:
		dest = path.Join(dest, path.Base(m.given))
	}
	k.base = dest
	k.links = map[[2]uint64]string{}
	return k.src.walk(k.ctx, m, k.do.Exclude, k)
}

// unwind closes what a walk that failed left open.
func (k *copier) unwind() {
	for _, l := range k.stack {
		l.f.Close()
	}
	k.stack = k.stack[:0]
}

// isDir says whether p is a directory of the destination, links followed inside it.
func (k *copier) isDir(p string) (bool, error) {
	f, err := k.dst.OpenFile(p, unix.O_PATH, 0)
	if err != nil {
		if errno := errnoOf(err); errno == unix.ENOENT || errno == unix.ENOTDIR {
			return false, nil
		}
		return false, hostless(err, p)
	}
	defer f.Close()
	st, err := f.Stat()
	return err == nil && st.IsDir(), err
}

// makeDirs makes p with its missing parents, which get the copy's owner.
func (k *copier) makeDirs(p string) error { return makeDirs(k.dst, p, k.owner) }

// makeDirs makes the directory p and its missing parents, mode 0755 whatever the umask, owned by o (nil:
// root).
func makeDirs(dst *rootfd.Root, p string, o *layer.Owner) error {
	if o == nil {
		o = &layer.Owner{}
	}
	done := "/"
	for _, part := range strings.Split(strings.Trim(path.Clean("/"+p), "/"), "/") {
		if part == "" {
			continue
		}
		done = path.Join(done, part)
		err := dst.Mkdir(done, 0o755)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return hostless(err, done)
		}
		f, err := dst.OpenFile(done, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return hostless(err, done)
		}
		err = unix.Fchown(int(f.Fd()), int(o.UID), int(o.GID))
		if err == nil {
			err = unix.Fchmod(int(f.Fd()), 0o755)
		}
		f.Close()
		if err != nil {
			return hostless(err, done)
		}
	}
	f, err := dst.OpenFile(p, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return hostless(err, p)
	}
	return f.Close()
}

// place opens the directory that p goes into; made if it is missing.
func (k *copier) place(p string) (*os.File, error) {
	dir := path.Dir(p)
	if err := k.makeDirs(dir); err != nil {
		return nil, err
	}
	f, err := k.dst.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, hostless(err, dir)
	}
	return f, nil
}

func (k *copier) enter(e *entry) error {
	if e.rel == "" {
		if err := k.makeDirs(k.base); err != nil {
			return err
		}
		f, err := k.dst.OpenFile(k.base, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return hostless(err, k.base)
		}
		// The destination itself is not a copy of the source: it keeps or gets the usual owner and mode.
		k.stack = append(k.stack[:0], level{f, k.base, false})
		return nil
	}
	up := &k.stack[len(k.stack)-1]
	at := path.Join(up.path, e.name)
	err := unix.Mkdirat(int(up.f.Fd()), e.name, 0o700)
	if err != nil && err != unix.EEXIST {
		return e.errorf("mkdir", err)
	}
	// What is there may be a link to a directory (/lib in a merged /usr): it is followed inside the root.
	f, err := k.dst.OpenFile(at, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errno := errnoOf(err); errno == unix.ENOTDIR || errno == unix.ENOENT {
		return fmt.Errorf("%s: found a file that is no directory, want a directory for the source's", at)
	}
	if err != nil {
		return hostless(err, at)
	}
	k.stack = append(k.stack, level{f, at, true})
	return nil
}

func (k *copier) leave(e *entry) error {
	l := k.stack[len(k.stack)-1]
	k.stack = k.stack[:len(k.stack)-1]
	defer l.f.Close()
	if !l.own {
		return nil
	}
	if k.src.state {
		if err := k.copyXattrs(e, l.f); err != nil {
			return err
		}
	}
	return k.attributes(e, l.f)
}

// attributes gives a copy, open at f, its owner, mode and time, in this order: a change of owner clears
// set-user-ID bits.
func (k *copier) attributes(e *entry, f *os.File) error {
	o := layer.Owner{UID: e.st.Uid, GID: e.st.Gid}
	if k.owner != nil {
		o = *k.owner
	}
	mode := e.st.Mode & 0o7777
	if k.mode != nil {
		mode = *k.mode
	}
	fd := int(f.Fd())
	if err := unix.Fchown(fd, int(o.UID), int(o.GID)); err != nil {
		return e.errorf("chown", err)
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return e.errorf("chmod", err)
	}
	t := k.time(e)
	// An empty path with a descriptor is not for every kernel; the link in /proc is.
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, rootfd.FdPath(f), t, 0); err != nil {
		return e.errorf("set time", err)
	}
	return nil
}

func (k *copier) time(e *entry) []unix.Timespec {
	t := unix.NsecToTimespec(k.epoch.UnixNano())
	if k.src != nil && k.src.state && e.st.Mtim.Nano() < t.Nano() {
		t = e.st.Mtim
	}
	return []unix.Timespec{t, t}
}

func (k *copier) copyXattrs(e *entry, to *os.File) error {
	from, err := e.open()
	if err != nil {
		return err
	}
	defer from.Close()
	all, err := xattrs(from)
	if err != nil {
		return err
	}
	for n, v := range all {
		if err := unix.Fsetxattr(int(to.Fd()), n, v, 0); err != nil && err != unix.ENOTSUP {
			return e.errorf("extended attribute "+n, err)
		}
	}
	return nil
}

func (k *copier) file(e *entry) error {
	if e.rel == "" {
		dir, err := k.place(k.base)
		if err != nil {
			return err
		}
		defer dir.Close()
		return k.put(e, dir, k.base)
	}
	up := &k.stack[len(k.stack)-1]
	return k.put(e, up.f, path.Join(up.path, e.name))
}

// put copies a file that is no directory into dir, under the last part of at.
func (k *copier) put(e *entry, dir *os.File, at string) error {
	name := path.Base(at)
	if err := clear(dir, name, at); err != nil {
		return err
	}
	id := [2]uint64{e.st.Dev, e.st.Ino}
	if first, ok := k.links[id]; ok && e.st.Nlink > 1 {
		return k.link(first, dir, name, at)
	}
	switch e.kind() {
	case unix.S_IFREG:
		if err := k.regular(e, dir, name); err != nil {
			return err
		}
	case unix.S_IFLNK:
		target, err := e.readlink()
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(target, int(dir.Fd()), name); err != nil {
			return e.errorf("symlink", err)
		}
		return k.bare(e, dir, name, false)
	default:
		if !k.src.state {
			return e.errorf("copy", fmt.Errorf("is a device or FIFO: none is taken from %s", k.src.name))
		}
		if err := unix.Mknodat(int(dir.Fd()), name, e.st.Mode, int(e.st.Rdev)); err != nil {
			return e.errorf("mknod", err)
		}
		if err := k.bare(e, dir, name, true); err != nil {
			return err
		}
	}
	if e.st.Nlink > 1 {
		k.links[id] = at
	}
	return nil
}

// clear removes what a file is to replace; a directory is not replaced.
func clear(dir *os.File, name, at string) error {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	switch err {
	case nil, unix.ENOENT:
		return nil
	case unix.EISDIR, unix.EPERM:
		return fmt.Errorf("%s: found a directory, want none where a file goes", at)
	}
	return &os.PathError{Op: "replace", Path: at, Err: err}
}

// link makes a hard link to an earlier copy, opened inside the root.
func (k *copier) link(first string, dir *os.File, name, at string) error {
	f, err := k.dst.OpenFile(first, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return hostless(err, first)
	}
	defer f.Close()
	if err := unix.Linkat(int(f.Fd()), "", int(dir.Fd()), name, unix.AT_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "link", Path: at, Err: err}
	}
	return nil
}

func (k *copier) regular(e *entry, dir *os.File, name string) error {
	from, err := e.open()
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := create(dir, name)
	if err != nil {
		return e.errorf("create", err)
	}
	defer to.Close()
	// A clone where the file system can, else copy_file_range(2), which io.Copy uses between files.
	if unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) != nil {
		if _, err := io.Copy(to, from); err != nil {
			return e.errorf("copy", err)
		}
	}
	if err := k.src.unchanged(from); err != nil {
		return fault.As(fault.ErrTryAgain, e.errorf("copy", err))
	}
	if k.src.state {
		if err := k.copyXattrs(e, to); err != nil {
			return err
		}
	}
	return k.attributes(e, to)
}

func create(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// bare sets owner, mode and time of what cannot be opened: a link has no mode of its own.
func (k *copier) bare(e *entry, dir *os.File, name string, mode bool) error {
	o := layer.Owner{UID: e.st.Uid, GID: e.st.Gid}
	if k.owner != nil {
		o = *k.owner
	}
	d := int(dir.Fd())
	if err := unix.Fchownat(d, name, int(o.UID), int(o.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return e.errorf("chown", err)
	}
	if mode {
		m := e.st.Mode & 0o7777
		if k.mode != nil {
			m = *k.mode
		}
		if err := unix.Fchmodat(d, name, m, 0); err != nil { // just made, in a directory that is ours
			return e.errorf("chmod", err)
		}
	}
	if err := unix.UtimesNanoAt(d, name, k.time(e), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return e.errorf("set time", err)
	}
	return nil
}

// inline writes a here-document.
func (k *copier) inline(f graph.Inline) error {
	dest := k.do.Dest
	isDir, err := k.isDir(dest)
	if err != nil {
		return err
	}
	if isDir || strings.HasSuffix(dest, "/") {
		dest = path.Join(dest, f.Name)
	}
	dir, err := k.place(dest)
	if err != nil {
		return err
	}
	defer dir.Close()
	name := path.Base(dest)
	if err := clear(dir, name, dest); err != nil {
		return err
	}
	to, err := create(dir, name)
	if err != nil {
		return &os.PathError{Op: "create", Path: dest, Err: err}
	}
	defer to.Close()
	if _, err := to.WriteString(f.Data); err != nil {
		return &os.PathError{Op: "write", Path: dest, Err: err}
	}
	e := &entry{name: name}
	e.st.Mode = unix.S_IFREG | 0o644
	e.st.Mtim = unix.NsecToTimespec(k.epoch.UnixNano())
	if k.owner == nil { // --from and a here-document in one COPY
		k.owner = &layer.Owner{}
		defer func() { k.owner = nil }()
	}
	return k.attributes(e, to)
}

// MakeDir carries out a WORKDIR.
func MakeDir(m *graph.Mkdir, dst *rootfd.Root) error {
	var o *layer.Owner
	if m.User != "" {
		user, err := owner(dst, m.User)
		if err != nil {
			return err
		}
		o = &user
	}
	return makeDirs(dst, m.Path, o)
}
