// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// entry unpacks one entry of the archive.
func (a *applier) entry(h *tar.Header, content io.Reader) error {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo, tar.TypeCont, tar.TypeGNUSparse:
	default:
		return fmt.Errorf("archive entry of unknown type %q", h.Typeflag)
	}
	if strings.IndexByte(h.Name, 0) >= 0 || strings.IndexByte(h.Linkname, 0) >= 0 {
		return errors.New("name with a NUL byte")
	}
	if a.claimed += h.Size; h.Size < 0 || a.claimed > a.o.MaxBytes || a.claimed < 0 {
		return fmt.Errorf("%w: files of more than %d bytes", ErrLimit, a.o.MaxBytes)
	}
	p := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	dir, name := path.Split(p)
	if !a.o.Literal {
		for _, c := range strings.Split(dir, "/") {
			if strings.HasPrefix(c, whiteoutMeta) {
				return nil
			}
			if strings.HasPrefix(c, whiteoutPrefix) {
				return errors.New("file below the name of a whiteout")
			}
		}
		if strings.HasPrefix(name, whiteoutPrefix) {
			return a.whiteout(dir, name)
		}
	}
	m, err := a.meta(h)
	if err != nil {
		return err
	}
	if p == "" {
		// A link or file in place of the root would send everything after it elsewhere.
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("root directory is of type %q, want a directory", h.Typeflag)
		}
		a.base.meta = m
		a.base.touch()
		a.res.NamesRoot = a.base == a.root
		return nil
	}
	parent, err := a.walk(a.base, dir, true)
	if err != nil {
		return err
	}
	pfd, err := a.fd(parent)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		err = a.directory(parent, pfd, name, m)
	case tar.TypeSymlink:
		err = a.replace(parent, name, func() error { return unix.Symlinkat(h.Linkname, pfd, name) })
		if err == nil {
			err = a.setAt(pfd, name, m, false)
		}
	case tar.TypeLink:
		err = a.link(parent, name, h.Linkname)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		err = a.node(parent, pfd, name, h, m)
	default:
		err = a.file(parent, pfd, name, h.Size, m, content)
	}
	if err != nil {
		return err
	}
	parent.did(name, !a.isOverlay)
	return nil
}

// replace makes a file of whatever type; what has its name is removed before.
func (a *applier) replace(parent *node, name string, make func() error) error {
	err := make()
	if err == unix.EEXIST {
		if err = a.remove(parent, name); err == nil {
			err = make()
		}
	}
	return err
}

func (a *applier) directory(parent *node, pfd int, name string, m *meta) error {
	n := parent.kids[name]
	if n == nil {
		err := unix.Mkdirat(pfd, name, 0o700)
		switch {
		case err == nil:
			n = parent.kid(name)
		case err == unix.EEXIST:
			var st unix.Stat_t
			if err := unix.Fstatat(pfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return err
			}
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				n = parent.kid(name)
				n.existed = true
				break
			}
			if err := a.remove(parent, name); err != nil {
				return err
			}
			if err := unix.Mkdirat(pfd, name, 0o700); err != nil {
				return err
			}
			n = parent.kid(name)
			n.opaque = a.isOverlay // this layer's file hid what is below; its successor must, too
		default:
			return err
		}
	}
	n.meta = m
	n.touch()
	return nil
}

func (a *applier) file(parent *node, pfd int, name string, size int64, m *meta, content io.Reader) error {
	fd := -1
	err := a.replace(parent, name, func() (err error) {
		fd, err = unix.Openat(pfd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	err = a.write(fd, size, content)
	if err == nil {
		err = a.setFd(fd, m)
	}
	if e := unix.Close(fd); err == nil {
		err = e
	}
	if err == nil {
		err = unix.UtimesNanoAt(pfd, name, m.times[:], unix.AT_SYMLINK_NOFOLLOW)
	}
	return err
}

const (
	block      = 4096
	sparseFrom = 64 << 10
)

// write copies a file's content. In large files blocks of zeros become holes.
func (a *applier) write(fd int, size int64, content io.Reader) error {
	if size == 0 {
		return nil
	}
	if a.buf == nil {
		a.buf = make([]byte, 256<<10)
	}
	at, end := int64(0), int64(0)
	for at < size {
		if a.ctx.Err() != nil {
			return context.Cause(a.ctx)
		}
		b := a.buf[:min(int64(len(a.buf)), size-at)]
		if _, err := io.ReadFull(content, b); err != nil {
			return fmt.Errorf("content ends after %d of %d bytes: %w", at, size, err)
		}
		if size < sparseFrom {
			if err := pwrite(fd, b, at); err != nil {
				return err
			}
			end = at + int64(len(b))
		} else if e, err := pwriteSparse(fd, b, at); err != nil {
			return err
		} else if e > 0 {
			end = e
		}
		at += int64(len(b))
	}
	if end < size {
		return unix.Ftruncate(fd, size)
	}
	return nil
}

var zeros [block]byte // never written

// pwriteSparse writes the blocks of b that are not all zeros and returns the end of the last one, 0 for none.
func pwriteSparse(fd int, b []byte, at int64) (end int64, err error) {
	for len(b) > 0 {
		data := 0 // bytes of b up to the next hole
		for data < len(b) {
			k := min(block, len(b)-data)
			if string(b[data:data+k]) == string(zeros[:k]) {
				break
			}
			data += k
		}
		if data > 0 {
			if err := pwrite(fd, b[:data], at); err != nil {
				return 0, err
			}
			end = at + int64(data)
		}
		skip := min(data+block, len(b))
		b, at = b[skip:], at+int64(skip)
	}
	return end, nil
}

func pwrite(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

func (a *applier) node(parent *node, pfd int, name string, h *tar.Header, m *meta) error {
	kind, dev := uint32(unix.S_IFIFO), uint64(0)
	if h.Typeflag != tar.TypeFifo {
		kind = unix.S_IFCHR
		if h.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
		if h.Devmajor < 0 || h.Devmajor > 0xfff || h.Devminor < 0 || h.Devminor > 0xfffff {
			return fmt.Errorf("device %d:%d, want at most 4095:1048575", h.Devmajor, h.Devminor)
		}
		dev = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		if kind == unix.S_IFCHR && dev == 0 {
			return errors.New("character device 0:0: in a layer it would delete a file, which only whiteouts may")
		}
		if a.o.Rootless {
			return nil
		}
	}
	err := a.replace(parent, name, func() error { return unix.Mknodat(pfd, name, kind|0o600, int(dev)) })
	if err != nil {
		return err
	}
	return a.setAt(pfd, name, m, true)
}

// whiteout notes or carries out the removal that the name of an archive entry stands for.
func (a *applier) whiteout(dir, name string) error {
	opaque := name == whiteoutOpaque
	target := strings.TrimPrefix(name, whiteoutPrefix)
	switch {
	case opaque:
	case strings.HasPrefix(name, whiteoutMeta):
		return nil
	case target == "", target == ".", target == "..":
		return errors.New("whiteout of no name")
	}
	n, err := a.walk(a.base, dir, false)
	if err != nil || n == nil {
		return err
	}
	switch {
	case a.isOverlay && opaque:
		n.opaque = true
		n.touch()
		a.res.OpaqueRoot = a.res.OpaqueRoot || n == a.root
	case a.isOverlay:
		if n.gone == nil {
			n.gone = map[string]struct{}{}
		}
		n.gone[target] = struct{}{}
		n.touch()
	case opaque:
		return a.removeLower(n)
	default:
		if k := n.kids[target]; k != nil && k.touched {
			return a.removeLower(k)
		}
		if _, mine := n.made[target]; mine {
			return nil // whiteouts do not reach files of their own layer
		}
		return a.remove(n, target)
	}
	return nil
}
