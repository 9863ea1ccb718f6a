// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A node is a real directory of the tree that the archive's entries have led to. What has to be done to it
// when everything below it is there (mode, times, marks) waits in it.
type node struct {
	parent  *node
	name    string
	length  int // of the path from the root
	fd      int // -1: not open at the moment
	kids    map[string]*node
	made    map[string]struct{} // Plain: names that this layer made, directories aside
	gone    map[string]struct{} // Overlay: names that this layer removes from the layers below
	opaque  bool                // Overlay: nothing of the layers below shows
	existed bool                // before this layer
	touched bool                // this layer made it, named it, or made something below it
	dirty   bool                // this layer removed something from it
	alone   bool                // Overlay: the layers below do not have it
	meta    *meta
}

func (n *node) kid(name string) *node {
	if k := n.kids[name]; k != nil {
		return k
	}
	k := &node{parent: n, name: name, fd: -1, length: n.length + 1 + len(name)}
	if n.kids == nil {
		n.kids = map[string]*node{}
	}
	n.kids[name] = k
	return k
}

func (n *node) touch() {
	for ; n != nil && !n.touched; n = n.parent {
		n.touched = true
	}
}

func (n *node) did(name string, note bool) {
	n.touch()
	if note && n.kids[name] == nil {
		if n.made == nil {
			n.made = map[string]struct{}{}
		}
		n.made[name] = struct{}{}
	}
}

func (n *node) path() string {
	var names []string
	for ; n.parent != nil; n = n.parent {
		names = append(names, n.name)
	}
	slices.Reverse(names)
	return strings.Join(names, "/")
}

func (n *node) below(top *node) bool {
	for ; n != nil; n = n.parent {
		if n == top {
			return true
		}
	}
	return false
}

// maxOpen bounds the descriptors that one Apply holds on directories.
const maxOpen = 16

// fd returns a descriptor of n, valid until maxOpen other directories were used.
func (a *applier) fd(n *node) (int, error) {
	if n.parent == nil {
		return n.fd, nil
	}
	if n.fd >= 0 {
		if last := len(a.open) - 1; a.open[last] != n {
			for i, m := range a.open {
				if m == n {
					copy(a.open[i:], a.open[i+1:])
					a.open[last] = n
					break
				}
			}
		}
		return n.fd, nil
	}
	fd, err := a.reopen(n)
	if err == unix.EACCES && a.o.Rootless {
		fd, err = a.reopenClosed(n)
	}
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: n.path(), Err: err}
	}
	if len(a.open) >= maxOpen {
		unix.Close(a.open[0].fd)
		a.open[0].fd = -1
		a.open = append(a.open[:0], a.open[1:]...)
	}
	n.fd = fd
	a.open = append(a.open, n)
	return fd, nil
}

// reopen opens n by its path from the nearest directory that is open; the root always is.
func (a *applier) reopen(n *node) (int, error) {
	from, rel := n.parent, n.name
	for from.fd < 0 {
		from, rel = from.parent, from.name+"/"+rel
	}
	return openDir(from.fd, rel)
}

// reopenClosed opens directories that were of mode 000 before: opened up now, closed again at the end.
func (a *applier) reopenClosed(n *node) (int, error) {
	pfd, err := a.fd(n.parent)
	if err != nil {
		return -1, err
	}
	if err := a.remember(n); err != nil {
		return -1, err
	}
	if err := chmodAt(pfd, n.name, 0o700); err != nil {
		return -1, err
	}
	return openDir(pfd, n.name)
}

func openDir(dir int, name string) (int, error) {
	return unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
}

func chmodAt(dir int, name string, mode uint32) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return chmodFd(fd, mode)
}

// chmodFd is fchmod(2) for O_PATH descriptors.
func chmodFd(fd int, mode uint32) error {
	return unix.Chmod(strings.TrimSuffix(procPath(fd, ""), "/"), mode)
}

// release drops the descriptors at and below top.
func (a *applier) release(top *node) {
	kept := a.open[:0]
	for _, n := range a.open {
		if n.below(top) {
			unix.Close(n.fd)
			n.fd = -1
		} else {
			kept = append(kept, n)
		}
	}
	a.open = kept
}

// remember keeps the times of a directory that was there before: what this layer makes in it is no reason to
// change them unless the layer names the directory.
func (a *applier) remember(n *node) error {
	if n.meta != nil {
		return nil
	}
	var st unix.Stat_t
	var err error
	if n.fd >= 0 {
		err = unix.Fstat(n.fd, &st)
	} else if pfd, e := a.fd(n.parent); e != nil {
		err = e
	} else {
		err = unix.Fstatat(pfd, n.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return err
	}
	n.existed = true
	n.meta = &meta{mode: st.Mode & 0o7777, times: [2]unix.Timespec{st.Atim, st.Mtim}, timesOnly: true}
	return nil
}

// remove removes what has the name, of whatever layer. Nothing there is success.
func (a *applier) remove(n *node, name string) error {
	fd, err := a.fd(n)
	if err != nil {
		return err
	}
	delete(n.made, name)
	n.dirty = true
	if k := n.kids[name]; k != nil {
		a.release(k)
		delete(n.kids, name)
	}
	err = unix.Unlinkat(fd, name, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err == unix.EISDIR || err == unix.EPERM {
		err = a.dir.RemoveAll(path.Join(n.path(), name))
	}
	return err
}

// removeLower removes from n what this layer did not make.
func (a *applier) removeLower(n *node) error {
	fd, err := a.fd(n)
	if err != nil {
		return err
	}
	names, err := readNames(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		k, mine := n.kids[name], false
		if k != nil && k.touched {
			if err := a.removeLower(k); err != nil {
				return err
			}
			continue
		}
		if _, mine = n.made[name]; mine {
			continue
		}
		if err := a.remove(n, name); err != nil {
			return err
		}
	}
	return nil
}

// readNames lists a directory by a descriptor of its own: the position of fd is left alone.
func readNames(fd int) ([]string, error) {
	d, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(d), ".")
	defer f.Close()
	return f.Readdirnames(-1)
}

const maxLinks = 40

// walk finds the directory p, from n on, in what a container would see: this tree over the parents. Links are
// followed, inside the root. A directory that only a parent has is made with its parent's metadata. One that
// nobody has is made if create is set; else the result is nil.
func (a *applier) walk(n *node, p string, create bool) (*node, error) {
	links := 0
	for p != "" {
		var c string
		c, p, _ = strings.Cut(p, "/")
		switch c {
		case "", ".":
			continue
		case "..":
			if n.parent != nil {
				n = n.parent
			}
			continue
		}
		if k := n.kids[c]; k != nil {
			n = k
			continue
		}
		if n.length+1+len(c) >= unix.PathMax {
			return nil, unix.ENAMETOOLONG
		}
		k, target, err := a.step(n, c, create)
		if err != nil {
			return nil, err
		}
		switch {
		case k != nil:
			n = k
		case target == "":
			return nil, nil
		default:
			if links++; links > maxLinks || len(target)+len(p) > 64<<10 {
				return nil, &fs.PathError{Op: "resolve", Path: path.Join(n.path(), c), Err: unix.ELOOP}
			}
			if strings.HasPrefix(target, "/") {
				n = a.root
			}
			p = target + "/" + p
		}
	}
	return n, nil
}

// step goes from directory n to its entry c: a directory, or a link with the target returned.
func (a *applier) step(n *node, c string, create bool) (*node, string, error) {
	fd, err := a.fd(n)
	if err != nil {
		return nil, "", err
	}
	var st unix.Stat_t
	err = unix.Fstatat(fd, c, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == unix.ENOENT:
	case err != nil:
		return nil, "", &fs.PathError{Op: "stat", Path: path.Join(n.path(), c), Err: err}
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		k := n.kid(c)
		return k, "", a.remember(k)
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		target, err := readlink(fd, c)
		return nil, target, err
	default:
		return nil, "", &fs.PathError{Op: "resolve", Path: path.Join(n.path(), c), Err: unix.ENOTDIR}
	}
	m := &meta{mode: 0o755, times: [2]unix.Timespec{}}
	alone := a.isOverlay
	if a.isOverlay && n.shows(c) {
		low, err := a.lower(path.Join(n.path(), c))
		if err != nil {
			return nil, "", err
		}
		if low != nil {
			switch low.st.Mode & unix.S_IFMT {
			case unix.S_IFLNK:
				target, err := a.parents[low.layer].Readlink(low.path)
				return nil, target, err
			case unix.S_IFDIR:
				if m, err = a.lowerMeta(low); err != nil {
					return nil, "", err
				}
				create, alone = true, false
			default:
				return nil, "", &fs.PathError{Op: "resolve", Path: low.path, Err: unix.ENOTDIR}
			}
		}
	}
	if !create {
		return nil, "", nil
	}
	if err := unix.Mkdirat(fd, c, 0o700); err != nil {
		return nil, "", &fs.PathError{Op: "mkdir", Path: path.Join(n.path(), c), Err: err}
	}
	k := n.kid(c)
	k.meta, k.alone = m, alone
	k.touch()
	return k, "", nil
}

func readlink(dir int, name string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, b)
	if err == nil && n == 0 {
		err = errors.New("link without a target")
	}
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return string(b[:n]), nil
}

// shows says whether a name in n could come from the layers below.
func (n *node) shows(name string) bool {
	for ; n != nil; n = n.parent {
		if _, gone := n.gone[name]; gone || n.opaque || n.alone {
			return false
		}
		name = n.name
	}
	return true
}
