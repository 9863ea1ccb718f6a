// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"context"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// A Merged tree is what overlayfs would show of an upper directory over layers, without a mount: for the few
// things that have to be read or made before there is one.
type Merged struct{ a *applier }

// Merge opens the merged tree; parents are topmost first and may be none. Close gives directories that were
// made their metadata.
func Merge(upper *rootfd.Root, parents []*rootfd.Root, form Overlay) (*Merged, error) {
	a := &applier{
		ctx: context.Background(), dir: upper, overlay: form, isOverlay: true, parents: parents, asked: true,
		o: Options{Form: form, Rootless: os.Geteuid() != 0, MaxBytes: defaultMaxBytes},
	}
	if err := a.start(); err != nil {
		return nil, err
	}
	return &Merged{a}, nil
}

// Close finishes what was made in the upper directory.
func (m *Merged) Close() error {
	err := m.a.settle(m.a.root)
	m.a.close()
	return err
}

// MkdirAll makes the directory p with mode 0755 and owner root, as far as it is missing. Links are followed
// inside the tree; one that leads nowhere has what it names made, inside the tree.
func (m *Merged) MkdirAll(p string) error {
	_, err := m.a.walk(m.a.root, p, true)
	return err
}

// IsDir says whether p, with links followed, is a directory. As with ReadFile, directories may appear.
func (m *Merged) IsDir(p string) (bool, error) {
	n, err := m.a.walk(m.a.root, p, false)
	return n != nil, err
}

// ReadFile reads the regular file p of at most max bytes. Directories on the way appear in the upper
// directory; who does not want them gives an upper directory that is thrown away.
func (m *Merged) ReadFile(p string, max int64) ([]byte, error) {
	for range maxLinks {
		dir, name := path.Split(strings.TrimRight(p, "/"))
		n, err := m.a.walk(m.a.root, dir, false)
		if err != nil {
			return nil, err
		}
		if n == nil || name == "" || name == "." || name == ".." {
			return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
		}
		fd, err := m.a.fd(n)
		if err != nil {
			return nil, err
		}
		from, at := m.a.dir, path.Join(n.path(), name)
		var st unix.Stat_t
		err = unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT && n.shows(name) {
			low, e := m.a.lower(at)
			if e != nil {
				return nil, e
			}
			if low != nil {
				from, st, err = m.a.parents[low.layer], low.st, nil
			}
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: p, Err: err}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			return from.ReadFile(at, max)
		}
		target, err := from.Readlink(at)
		if err != nil {
			return nil, err
		}
		if p = target; !strings.HasPrefix(target, "/") {
			p = path.Join("/", n.path()) + "/" + target
		}
	}
	return nil, &fs.PathError{Op: "open", Path: p, Err: unix.ELOOP}
}

// CopyMeta gives the directory to the owner, mode, times and extended attributes of the directory from.
func CopyMeta(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Open(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return err
	}
	all, err := listXattrs(int(src.Fd()))
	if err != nil {
		return err
	}
	for k := range all {
		if _, private := overlayXattr(k); private || hostXattr(k) {
			delete(all, k)
		}
	}
	a := &applier{o: Options{Rootless: os.Geteuid() != 0}}
	m := &meta{uid: st.Uid, gid: st.Gid, mode: st.Mode & 0o7777, xattrs: all}
	if err := a.setFd(int(dst.Fd()), m); err != nil {
		return err
	}
	return unix.UtimesNanoAt(int(dst.Fd()), ".", []unix.Timespec{st.Atim, st.Mtim}, 0)
}
