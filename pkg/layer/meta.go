// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"fmt"
	"math"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// meta is what a file gets after its content.
type meta struct {
	uid, gid, mode uint32
	times          [2]unix.Timespec // access, modification
	xattrs         map[string][]byte
	timesOnly      bool // of a directory that was there and that the archive does not name
}

func (a *applier) meta(h *tar.Header) (*meta, error) {
	m := &meta{mode: uint32(h.Mode & 0o7777)}
	for _, id := range []struct {
		what string
		from int
		to   *uint32
	}{{"user", h.Uid, &m.uid}, {"group", h.Gid, &m.gid}} {
		if id.from < 0 || int64(id.from) > math.MaxUint32-1 {
			return nil, fmt.Errorf("%s id %d, want 0 to 4294967294", id.what, id.from)
		}
		*id.to = uint32(id.from)
	}
	if a.o.Owner != nil {
		m.uid, m.gid = a.o.Owner.UID, a.o.Owner.GID
	}
	m.times = times(h.AccessTime, h.ModTime)
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, xattrRecord)
		if !ok || hostXattr(name) || a.o.Rootless && !strings.HasPrefix(name, "user.") {
			continue
		}
		if _, private := overlayXattr(name); private {
			continue
		}
		if m.xattrs == nil {
			m.xattrs = map[string][]byte{}
		}
		m.xattrs[name] = []byte(v)
	}
	return m, nil
}

func times(access, modification time.Time) [2]unix.Timespec {
	if modification.IsZero() {
		modification = time.Unix(0, 0)
	}
	if access.IsZero() {
		access = modification
	}
	return [2]unix.Timespec{
		{Sec: access.Unix(), Nsec: int64(access.Nanosecond())},
		{Sec: modification.Unix(), Nsec: int64(modification.Nanosecond())},
	}
}

// setFd sets owner, attributes and mode, in this order: a change of the owner clears capabilities and the set-id
// bits, and without root an attribute needs the file writable. The times come last and by name.
func (a *applier) setFd(fd int, m *meta) error {
	if !a.o.Rootless {
		if err := unix.Fchown(fd, int(m.uid), int(m.gid)); err != nil {
			return fmt.Errorf("chown %d:%d: %w", m.uid, m.gid, err)
		}
	}
	for k, v := range m.xattrs {
		if err := xattrError(k, unix.Fsetxattr(fd, k, v, 0), true); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(fd, m.mode); err != nil {
		return fmt.Errorf("chmod %o: %w", m.mode, err)
	}
	return nil
}

// setAt is setFd for what cannot be opened: links, devices, FIFOs.
func (a *applier) setAt(dir int, name string, m *meta, hasMode bool) error {
	if !a.o.Rootless {
		if err := unix.Fchownat(dir, name, int(m.uid), int(m.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("chown %d:%d: %w", m.uid, m.gid, err)
		}
	}
	for k, v := range m.xattrs {
		if err := xattrError(k, unix.Lsetxattr(procPath(dir, name), k, v, 0), false); err != nil {
			return err
		}
	}
	if hasMode {
		fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = chmodFd(fd, m.mode)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("chmod %o: %w", m.mode, err)
		}
	}
	return unix.UtimesNanoAt(dir, name, m.times[:], unix.AT_SYMLINK_NOFOLLOW)
}

// xattrError forgives attributes that the file system, or the type of file, cannot have.
func xattrError(name string, err error, plain bool) error {
	if err == nil || err == unix.ENOTSUP || err == unix.EPERM && !plain && strings.HasPrefix(name, "user.") {
		return nil
	}
	return fmt.Errorf("extended attribute %q: %w", short(name), err)
}
