// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"fmt"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"
)

// finish does what had to wait for the end of the archive.
func (a *applier) finish() error {
	if a.isOverlay {
		if err := a.linkSiblings(); err != nil {
			return err
		}
		if err := a.whiteouts(a.root); err != nil {
			return err
		}
	}
	return a.settle(a.root)
}

// whiteouts makes the marks of removed names, now that it is known which names came back. A mark for what
// the layers below do not have would show up in listings of a directory that is not merged, so there is none.
func (a *applier) whiteouts(n *node) error {
	for name := range n.gone {
		fd, err := a.fd(n)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		switch err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); {
		case err == nil:
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				k := n.kid(name)
				k.opaque = true
				if err := a.remember(k); err != nil {
					return err
				}
			}
			continue
		case err == unix.ENAMETOOLONG:
			continue
		case err != unix.ENOENT:
			return err
		}
		delete(n.gone, name)
		if !n.shows(name) {
			continue
		}
		low, err := a.lower(path.Join(n.path(), name))
		if err != nil {
			return err
		}
		if low == nil {
			continue
		}
		if err := unix.Mknodat(fd, name, unix.S_IFCHR, 0); err != nil {
			return fmt.Errorf("whiteout %s: %w", path.Join(n.path(), name), err)
		}
	}
	for _, k := range n.kids {
		if err := a.whiteouts(k); err != nil {
			return err
		}
	}
	return nil
}

// settle gives directories their metadata, those below first.
func (a *applier) settle(n *node) error {
	for _, k := range n.kids {
		if err := a.settle(k); err != nil {
			return err
		}
	}
	if n.meta == nil && !n.opaque || !n.touched && !n.dirty {
		return nil
	}
	fd, err := a.fd(n)
	if err != nil {
		return err
	}
	if err := a.settleDir(n, fd); err != nil {
		return &fs.PathError{Op: "set metadata", Path: n.path(), Err: err}
	}
	return nil
}

func (a *applier) settleDir(n *node, fd int) error {
	if n.opaque && n.parent != nil {
		if err := unix.Fsetxattr(fd, a.overlay.xattr("opaque"), []byte("y"), 0); err != nil {
			return fmt.Errorf("mark as opaque: %w", err)
		}
	}
	m := n.meta
	if m == nil {
		return nil
	}
	if !m.timesOnly {
		if n.existed {
			if err := clearXattrs(fd, m.xattrs); err != nil {
				return err
			}
		}
		if err := a.setFd(fd, m); err != nil {
			return err
		}
	} else if a.o.Rootless {
		if err := unix.Fchmod(fd, m.mode); err != nil {
			return err
		}
	}
	if n.parent == nil {
		return unix.UtimesNanoAt(fd, ".", m.times[:], 0)
	}
	pfd, err := a.fd(n.parent)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(pfd, n.name, m.times[:], unix.AT_SYMLINK_NOFOLLOW)
}

// clearXattrs removes attributes that the archive's entry for an old directory does not have.
func clearXattrs(fd int, keep map[string][]byte) error {
	all, err := listXattrs(fd)
	if err != nil {
		return err
	}
	for name := range all {
		_, private := overlayXattr(name)
		if _, ok := keep[name]; ok || private || hostXattr(name) {
			continue
		}
		if err := unix.Fremovexattr(fd, name); err != nil && err != unix.ENODATA {
			return fmt.Errorf("remove extended attribute %s: %w", name, err)
		}
	}
	return nil
}
