// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names in layer archives (image-spec, layer.md, Whiteouts).
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh." // AUFS's own files
)

const xattrRecord = "SCHILY.xattr."

// Diff writes the tree in dir, for Overlay the upper directory of a container, as an uncompressed layer
// archive on w. Nothing but dir is looked at. The same tree gives the same bytes: entries sorted by name,
// numeric owners, whole seconds, sorted extended attributes. Sockets are left out, as everywhere.
func Diff(ctx context.Context, w io.Writer, dir string, o DiffOptions) (DiffResult, error) {
	if o.Form == nil {
		o.Form = Overlay{}
	}
	d := &differ{ctx: ctx, o: o, links: map[inode]string{}, copy: make([]byte, 256<<10)}
	d.overlay, d.isOverlay = o.Form.(Overlay)
	d.tar = tar.NewWriter(w)
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return DiffResult{}, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return DiffResult{}, err
	}
	if o.Root {
		h := d.header("./", &st)
		h.Typeflag = tar.TypeDir
		if h.PAXRecords, _, err = d.xattrs(fd); err != nil {
			return DiffResult{}, err
		}
		if err := d.write(h); err != nil {
			return DiffResult{}, err
		}
	}
	if err := d.dir(f, ""); err != nil {
		return d.res, err
	}
	return d.res, d.tar.Close()
}

type inode struct{ dev, ino uint64 }

type differ struct {
	ctx       context.Context
	o         DiffOptions
	overlay   Overlay
	isOverlay bool
	tar       *tar.Writer
	links     map[inode]string
	copy      []byte
	res       DiffResult
}

func (d *differ) write(h *tar.Header) error {
	d.res.Entries++
	if err := d.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	return nil
}

func (d *differ) time(t time.Time) time.Time {
	t = t.Truncate(time.Second)
	if d.o.Epoch != nil && t.After(*d.o.Epoch) {
		t = d.o.Epoch.Truncate(time.Second)
	}
	return t
}

func (d *differ) header(name string, st *unix.Stat_t) *tar.Header {
	h := &tar.Header{
		Format: tar.FormatPAX, Name: name, Mode: int64(st.Mode & 0o7777),
		Uid: int(st.Uid), Gid: int(st.Gid), ModTime: d.time(time.Unix(st.Mtim.Unix())),
	}
	if d.o.Owner != nil {
		h.Uid, h.Gid = int(d.o.Owner.UID), int(d.o.Owner.GID)
	}
	return h
}

// whiteout is an entry that removes; it carries no time of its own, so that it is the same every time.
func (d *differ) whiteout(name string) error {
	return d.write(&tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: name, Mode: 0o600, ModTime: time.Unix(0, 0)})
}

func (d *differ) dir(f *os.File, at string) error {
	if err := d.ctx.Err(); err != nil {
		return context.Cause(d.ctx)
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		p := path.Join(at, n)
		if d.o.Skip != nil && d.o.Skip(p) {
			continue
		}
		if err := d.entry(int(f.Fd()), n, p); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) entry(parent int, name, at string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: at, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if d.isOverlay {
		if kind == unix.S_IFCHR && st.Rdev == 0 {
			return d.whiteout(path.Join(path.Dir(at), whiteoutPrefix+name))
		}
		if strings.HasPrefix(name, whiteoutPrefix) {
			return fmt.Errorf("%s: a layer cannot hold a file of this name: %q marks deleted files", at, whiteoutPrefix)
		}
	}
	if kind == unix.S_IFSOCK {
		return nil
	}
	h := d.header(at, &st)
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first, ok := d.links[id]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return d.write(h)
		}
		d.links[id] = at
	}
	switch kind {
	case unix.S_IFDIR, unix.S_IFREG:
		return d.opened(parent, name, at, h, &st)
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(parent, name, buf)
		if err != nil {
			return &os.PathError{Op: "readlink", Path: at, Err: err}
		}
		h.Linkname = string(buf[:n])
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if kind == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	var err error
	if h.PAXRecords, _, err = d.collect(listXattrsAt(parent, name)); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	return d.write(h)
}

// opened writes a directory with what is below it, or a regular file.
func (d *differ) opened(parent int, name, at string, h *tar.Header, want *unix.Stat_t) error {
	fd, err := unix.Openat2(parent, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return &os.PathError{Op: "open", Path: at, Err: err}
	}
	f := os.NewFile(uintptr(fd), at)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Ino != want.Ino || st.Mode&unix.S_IFMT != want.Mode&unix.S_IFMT {
		return fmt.Errorf("%s: replaced while it was read", at)
	}
	var opaque bool
	if h.PAXRecords, opaque, err = d.xattrs(fd); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		h.Typeflag = tar.TypeDir
		h.Name += "/"
		if err := d.write(h); err != nil {
			return err
		}
		if opaque {
			if err := d.whiteout(path.Join(at, whiteoutOpaque)); err != nil {
				return err
			}
		}
		return d.dir(f, at)
	}
	h.Typeflag, h.Size = tar.TypeReg, st.Size
	if err := d.write(h); err != nil {
		return err
	}
	d.res.Bytes += st.Size
	n, err := io.CopyBuffer(struct{ io.Writer }{d.tar}, struct{ io.Reader }{io.LimitReader(f, st.Size)}, d.copy)
	if err == nil && n != st.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("%s: read %d of %d bytes: %w", at, n, st.Size, err)
	}
	return nil
}

func (d *differ) xattrs(fd int) (map[string]string, bool, error) {
	return d.collect(listXattrs(fd))
}

// collect makes PAX records of extended attributes, without overlayfs's own and the host's.
func (d *differ) collect(all map[string][]byte, err error) (records map[string]string, opaque bool, _ error) {
	if err != nil {
		return nil, false, err
	}
	for name, value := range all {
		if rest, private := overlayXattr(name); private {
			if d.isOverlay && name == d.overlay.xattr(rest) {
				switch rest {
				case "opaque":
					opaque = bytes.Equal(value, []byte("y"))
				case "redirect", "metacopy":
					return nil, false, errors.New("the overlay was mounted with redirect_dir or metacopy: its upper directory alone is no layer")
				}
			}
			continue
		}
		if hostXattr(name) {
			continue
		}
		if records == nil {
			records = map[string]string{}
		}
		records[xattrRecord+name] = string(value)
	}
	return records, opaque, nil
}
