// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// Defaults of the limits in Options.
const (
	defaultMaxBytes   = 128 << 30
	defaultMaxEntries = 4 << 20
	defaultMaxRatio   = 2000
	ratioFrom         = 64 << 20
)

// Apply unpacks the layer archive r, compressed or not, into dir, and reads r to its end, so that an error of
// a verifying reader counts. Where it fails, what dir then holds is undefined and to be removed by the caller.
// Two calls at a time must not work on one tree.
func Apply(ctx context.Context, r io.Reader, dir *rootfd.Root, o Options) (Result, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = defaultMaxEntries
	}
	if o.MaxRatio <= 0 {
		o.MaxRatio = defaultMaxRatio
	}
	if o.Form == nil {
		o.Form = Overlay{}
	}
	source := newAhead(r, nil)
	defer source.Close()
	a := &applier{ctx: ctx, o: o, dir: dir}
	a.overlay, a.isOverlay = o.Form.(Overlay)
	err := a.stream(source)
	a.close()
	if err != nil && ctx.Err() == nil {
		// A blob that is not what its digest says is the better reason for an archive that makes no sense.
		if _, e := io.Copy(io.Discard, source); errors.Is(e, fault.ErrUnverified) {
			err = e
		}
	}
	return a.res, err
}

// stream reads the whole archive: inflating and hashing have goroutines of their own.
func (a *applier) stream(source io.Reader) error {
	in := &counter{r: source}
	plain, _, err := Decompress(in, a.o.MediaType)
	if err != nil {
		return err
	}
	defer plain.Close()
	inflated := newAhead(plain, func(b []byte) error { // same goroutine as in's reader
		a.inflated += int64(len(b))
		if a.inflated > a.o.MaxBytes {
			return fmt.Errorf("%w: archive of more than %d bytes", ErrLimit, a.o.MaxBytes)
		}
		if a.inflated > ratioFrom && a.inflated/max(in.n, 1) > a.o.MaxRatio {
			return fmt.Errorf("%w: %d bytes inflate to more than %d times as many", ErrLimit, in.n, a.o.MaxRatio)
		}
		return nil
	})
	defer inflated.Close()
	sum := digest.SHA256.Digester()
	hashed := newAhead(inflated, hashTap(sum.Hash()))
	total := &counter{r: hashed}
	err = a.archive(total)
	if err == nil {
		_, err = io.Copy(io.Discard, total) // what stands behind the archive's end belongs to the diffID
	}
	if err == nil {
		_, err = io.Copy(io.Discard, source)
	}
	hashed.abandon(inflated)
	a.res.Bytes = total.n
	if err != nil {
		return err
	}
	a.res.DiffID = sum.Digest()
	if a.o.DiffID != "" && a.res.DiffID != a.o.DiffID {
		return fault.As(fault.ErrUnverified, fmt.Errorf("uncompressed layer is %s, image config says %s", a.res.DiffID, a.o.DiffID))
	}
	return a.finish()
}

func (a *applier) start() error {
	fd, err := unix.Openat(a.dir.Fd(), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: a.dir.Name(), Err: err}
	}
	a.root = &node{fd: fd}
	return a.remember(a.root)
}

func (a *applier) close() {
	if a.root != nil {
		a.release(a.root)
		unix.Close(a.root.fd)
	}
}

func hashTap(h hash.Hash) func([]byte) error {
	return func(b []byte) error { h.Write(b); return nil }
}

func (a *applier) archive(r io.Reader) error {
	err := a.start()
	if err != nil {
		return err
	}
	a.base = a.root
	if a.o.Dir != "" {
		if a.base, err = a.walk(a.root, a.o.Dir, true); err != nil {
			return err
		}
	}
	tr := tar.NewReader(r)
	for {
		if a.ctx.Err() != nil {
			return context.Cause(a.ctx)
		}
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("layer archive: %w", err)
		}
		if a.res.Entries++; a.res.Entries > a.o.MaxEntries {
			return fmt.Errorf("%w: more than %d entries", ErrLimit, a.o.MaxEntries)
		}
		if err := a.entry(h, tr); err != nil {
			return fmt.Errorf("layer entry %q: %w", short(h.Name), err)
		}
	}
}

// short keeps names from outside from flooding a message.
func short(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

// An applier is one Apply at work.
type applier struct {
	ctx       context.Context
	o         Options
	overlay   Overlay
	isOverlay bool
	dir       *rootfd.Root
	root      *node
	base      *node   // where names start
	open      []*node // with a descriptor, least recently used first; without the root, which always has one
	buf       []byte
	inflated  int64
	claimed   int64 // sum of file sizes, holes counted
	parents   []*rootfd.Root
	asked     bool
	copies    []copied
	res       Result
}

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
