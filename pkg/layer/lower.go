// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// A lowerFile is what the layers below show at a path.
type lowerFile struct {
	layer int // index of the topmost layer that has it
	path  string
	st    unix.Stat_t
}

// lower looks p up in the parents as overlayfs would; p has no links in its directories. Nil: nothing shows.
func (a *applier) lower(p string) (*lowerFile, error) {
	if !a.asked {
		a.asked = true
		if a.o.Parents != nil {
			var err error
			if a.parents, err = a.o.Parents(a.ctx); err != nil {
				return nil, err
			}
		}
	}
	a.res.Relies = true
	for i, r := range a.parents {
		low := &lowerFile{layer: i, path: p}
		found, stop, err := a.lookIn(r.Fd(), p, &low.st)
		if err != nil {
			return nil, &fs.PathError{Op: "look up", Path: path.Join(r.Name(), p), Err: err}
		}
		if found {
			return low, nil
		}
		if stop {
			break
		}
	}
	return nil, nil
}

// lookIn looks p up in one layer. stop: the layers below it do not show at p.
func (a *applier) lookIn(root int, p string, st *unix.Stat_t) (found, stop bool, err error) {
	dir, opaque := root, false
	defer func() {
		if dir != root {
			unix.Close(dir)
		}
	}()
	for p != "" {
		var c string
		c, p, _ = strings.Cut(p, "/")
		err := unix.Fstatat(dir, c, st, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT || err == unix.ENAMETOOLONG {
			return false, opaque, nil
		}
		if err != nil {
			return false, false, err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			return false, true, nil
		}
		if p == "" {
			return true, true, nil
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return false, true, nil
		}
		fd, err := openDir(dir, c)
		if err != nil {
			return false, false, err
		}
		if dir != root {
			unix.Close(dir)
		}
		dir = fd
		var mark [2]byte
		if n, err := unix.Fgetxattr(fd, a.overlay.xattr("opaque"), mark[:]); err == nil && string(mark[:n]) == "y" {
			opaque = true
		}
	}
	return true, true, nil
}

// lowerMeta is the metadata of a lower file, as a copy of it has to have it.
func (a *applier) lowerMeta(low *lowerFile) (*meta, error) {
	m := &meta{
		uid: low.st.Uid, gid: low.st.Gid, mode: low.st.Mode & 0o7777,
		times: [2]unix.Timespec{low.st.Atim, low.st.Mtim},
	}
	dir, err := a.parents[low.layer].OpenFile(path.Dir(low.path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	all, err := listXattrsAt(int(dir.Fd()), path.Base(low.path))
	if err != nil {
		return nil, err
	}
	for k := range all {
		if _, private := overlayXattr(k); private || hostXattr(k) {
			delete(all, k)
		}
	}
	m.xattrs = all
	return m, nil
}

// link makes name in parent a hard link to target. A target that only a layer below has is copied up, since a
// link cannot lead from one layer to another.
func (a *applier) link(parent *node, name, target string) error {
	target = strings.TrimPrefix(path.Clean("/"+target), "/")
	tdir, tname := path.Split(target)
	if tname == "" {
		return errors.New("hard link to the root directory")
	}
	missing := fmt.Errorf("hard link to %q: %w", short(target), fs.ErrNotExist)
	from, err := a.walk(a.base, tdir, false)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", short(target), err)
	}
	if from == nil {
		return missing
	}
	if k := parent.kids[name]; from == parent && tname == name || k != nil && from.below(k) {
		return errors.New("hard link to itself or to what it replaces")
	}
	ffd, err := a.fd(from)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Fstatat(ffd, tname, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT && a.isOverlay && from.shows(tname) {
		low, e := a.lower(path.Join(from.path(), tname))
		if e != nil {
			return e
		}
		if low == nil {
			return missing
		}
		if e := a.copyUp(from, ffd, tname, low); e != nil {
			return fmt.Errorf("copy up %q: %w", short(target), e)
		}
		if err = unix.Fstatat(ffd, tname, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && low.st.Nlink > 1 {
			a.copies = append(a.copies, copied{low, from, tname, st.Ino})
		}
	}
	if err == unix.ENOENT {
		return missing
	}
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Errorf("hard link to directory %q", short(target))
	}
	pfd, err := a.fd(parent)
	if err != nil {
		return err
	}
	return a.replace(parent, name, func() error { return unix.Linkat(ffd, tname, pfd, name, 0) })
}

// A copied file came up from a layer below, where it may have more names.
type copied struct {
	low  *lowerFile
	dir  *node
	name string
	ino  uint64
}

func (a *applier) copyUp(n *node, nfd int, name string, low *lowerFile) error {
	m, err := a.lowerMeta(low)
	if err != nil {
		return err
	}
	root := a.parents[low.layer]
	switch low.st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return errors.New("is a directory")
	case unix.S_IFREG:
		src, err := root.OpenFile(low.path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer src.Close()
		if a.claimed += low.st.Size; a.claimed > a.o.MaxBytes {
			return fmt.Errorf("%w: files of more than %d bytes", ErrLimit, a.o.MaxBytes)
		}
		return a.file(n, nfd, name, low.st.Size, m, src)
	case unix.S_IFLNK:
		target, err := root.Readlink(low.path)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(target, nfd, name); err != nil {
			return err
		}
		return a.setAt(nfd, name, m, false)
	}
	if err := unix.Mknodat(nfd, name, low.st.Mode&unix.S_IFMT|0o600, int(low.st.Rdev)); err != nil {
		return err
	}
	return a.setAt(nfd, name, m, true)
}

// linkSiblings brings up the other names of files that were copied up, so that all names of one file stay
// names of one file.
func (a *applier) linkSiblings() error {
	for _, c := range a.copies {
		tree := os.DirFS(strings.TrimSuffix(procPath(a.parents[c.low.layer].Fd(), ""), "/") + "/.")
		err := fs.WalkDir(tree, ".", func(p string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || p == c.low.path {
				return err
			}
			var st unix.Stat_t
			if unix.Fstatat(a.parents[c.low.layer].Fd(), p, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Ino != c.low.st.Ino || st.Dev != c.low.st.Dev {
				return nil
			}
			return a.linkSibling(c, p)
		})
		if err != nil {
			return fmt.Errorf("names of %s: %w", c.low.path, err)
		}
	}
	return nil
}

func (a *applier) linkSibling(c copied, p string) error {
	low, err := a.lower(p)
	if err != nil || low == nil || low.layer != c.low.layer || low.st.Ino != c.low.st.Ino {
		return err // hidden by a layer between
	}
	// The directories of p in this tree must be directories too, and p must show.
	n := a.root
	dir, name := path.Split(p)
	for _, d := range strings.Split(strings.Trim(dir, "/"), "/") {
		if d == "" {
			continue
		}
		k := n.kids[d]
		if k == nil {
			fd, err := a.fd(n)
			if err != nil {
				return err
			}
			var st unix.Stat_t
			err = unix.Fstatat(fd, d, &st, unix.AT_SYMLINK_NOFOLLOW)
			if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR || err == unix.ENOENT && !n.shows(d) {
				return nil
			}
			if k, _, err = a.step(n, d, false); err != nil || k == nil {
				return err
			}
		}
		n = k
	}
	if !n.shows(name) {
		return nil
	}
	from, err := a.fd(c.dir)
	var st unix.Stat_t
	if err != nil || unix.Fstatat(from, c.name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Ino != c.ino {
		return nil // this layer replaced the copy
	}
	to, err := a.fd(n)
	if err != nil {
		return err
	}
	err = unix.Linkat(from, c.name, to, name, 0)
	if err == unix.EEXIST {
		return nil // this layer has its own file there
	}
	return err
}
