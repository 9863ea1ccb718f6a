// SPDX-License-Identifier: Apache-2.0

// Package rootfd opens and makes files below a directory that somebody else may have filled: a rootfs, a
// volume, a build context. Every path is resolved by the kernel inside that directory, as if it were the
// root (openat2(2), RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS): absolute links and ".." stay inside, and no
// swap of a component between a check and its use can lead out. Where the last component is what counts
// (to make or to remove), its parent is opened this way and the call is made relative to that handle.
//
// Nothing here takes a joined string; a caller that needs a path for mount(2) or exec uses /proc/self/fd/N
// of a handle.
package rootfd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// A Root is a handle on a directory. It stays valid when the directory is renamed.
type Root struct{ f *os.File }

// Open opens dir, following links: dir itself is the caller's and trusted.
func Open(dir string) (*Root, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &Root{f}, nil
}

// Close releases the handle.
func (r *Root) Close() error { return r.f.Close() }

// Name is the path that the root was opened by, for messages.
func (r *Root) Name() string { return r.f.Name() }

// Fd is the handle's O_PATH descriptor.
func (r *Root) Fd() int { return int(r.f.Fd()) }

func (r *Root) errorf(op, p string, err error) error {
	return &fs.PathError{Op: op, Path: path.Join(r.f.Name(), p), Err: err}
}

// rel makes p relative; the empty path is the root itself.
func rel(p string) string {
	if p = strings.TrimLeft(p, "/"); p == "" {
		return "."
	}
	return p
}

// OpenFile opens p with open(2) flags; O_CLOEXEC is always set. Links are followed inside the root,
// the last one too unless flags has O_NOFOLLOW.
func (r *Root) OpenFile(p string, flags int, perm fs.FileMode) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve}
	if flags&(unix.O_CREAT|unix.O_TMPFILE) != 0 {
		how.Mode = uint64(perm.Perm())
	}
	for {
		fd, err := unix.Openat2(r.Fd(), rel(p), &how)
		if err == unix.EINTR || err == unix.EAGAIN { // EAGAIN: a rename raced with ".."
			continue
		}
		if err != nil {
			return nil, r.errorf("open", p, err)
		}
		return os.NewFile(uintptr(fd), path.Join(r.f.Name(), p)), nil
	}
}

// Sub opens the directory p as a root of its own, which ".." cannot leave.
func (r *Root) Sub(p string) (*Root, error) {
	f, err := r.OpenFile(p, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Root{f}, nil
}

// parent opens the directory that holds p's last component, which must be a name.
func (r *Root) parent(op, p string) (*os.File, string, error) {
	dir, base := path.Split(strings.TrimRight(p, "/"))
	if base == "" || base == "." || base == ".." {
		return nil, "", r.errorf(op, p, unix.EINVAL)
	}
	d, err := r.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	return d, base, err
}

// at calls do with the descriptor of p's parent and p's last component.
func (r *Root) at(op, p string, do func(dir int, base string) error) error {
	d, base, err := r.parent(op, p)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := do(int(d.Fd()), base); err != nil {
		return r.errorf(op, p, err)
	}
	return nil
}

// Lstat describes p; a link in the last place is not followed.
func (r *Root) Lstat(p string) (unix.Stat_t, error) {
	var st unix.Stat_t
	f, err := r.OpenFile(p, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return st, err
	}
	defer f.Close()
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return st, r.errorf("lstat", p, err)
	}
	return st, nil
}

// Mkdir makes one directory. It fails with fs.ErrExist.
func (r *Root) Mkdir(p string, perm fs.FileMode) error {
	return r.at("mkdir", p, func(dir int, base string) error {
		return unix.Mkdirat(dir, base, uint32(perm.Perm()))
	})
}

// MkdirAll makes p and its missing parents. A link on the way is followed inside the root; one that points
// to nothing is an error, never a new directory elsewhere.
func (r *Root) MkdirAll(p string, perm fs.FileMode) error {
	if st, err := r.OpenFile(p, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
		return st.Close()
	}
	done := ""
	for _, c := range strings.Split(path.Clean("/"+p), "/") {
		if c == "" {
			continue
		}
		done += "/" + c
		if err := r.Mkdir(done, perm); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		d, err := r.OpenFile(done, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		d.Close()
	}
	return nil
}

// Symlink makes p a link to target, which is kept as it is.
func (r *Root) Symlink(target, p string) error {
	return r.at("symlink", p, func(dir int, base string) error {
		return unix.Symlinkat(target, dir, base)
	})
}

// Readlink returns the target of the link p.
func (r *Root) Readlink(p string) (target string, err error) {
	err = r.at("readlink", p, func(dir int, base string) error {
		b := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, base, b)
		if err == nil {
			target = string(b[:n])
		}
		return err
	})
	return target, err
}

// Remove removes the file or empty directory p, or the link p itself.
func (r *Root) Remove(p string) error {
	return r.at("remove", p, func(dir int, base string) error {
		err := unix.Unlinkat(dir, base, 0)
		if err == unix.EISDIR || err == unix.EPERM {
			if e := unix.Unlinkat(dir, base, unix.AT_REMOVEDIR); e != unix.ENOTDIR {
				err = e
			}
		}
		return err
	})
}

// RemoveAll removes p and what is below it, by handles, without following links or crossing mounts.
// Nothing there is success.
func (r *Root) RemoveAll(p string) error {
	d, base, err := r.parent("remove", p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if err := removeAllAt(int(d.Fd()), base); err != nil {
		return r.errorf("remove", p, err)
	}
	return nil
}

func removeAllAt(dir int, base string) error {
	err := unix.Unlinkat(dir, base, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	fd, err := unix.Openat2(dir, base, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	for {
		names, err := f.Readdirnames(256)
		for _, n := range names {
			if err := removeAllAt(fd, n); err != nil {
				return fmt.Errorf("%s: %w", n, err)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	return unix.Unlinkat(dir, base, unix.AT_REMOVEDIR)
}

// ReadFile reads a regular file of at most max bytes; devices, FIFOs and larger files are errors, so that
// an untrusted tree can neither block nor exhaust the reader.
func (r *Root) ReadFile(p string, max int64) ([]byte, error) {
	f, err := r.OpenFile(p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, r.errorf("read", p, fmt.Errorf("is a %s, want a regular file", st.Mode().Type()))
	}
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > max {
		return nil, r.errorf("read", p, fmt.Errorf("more than %d bytes", max))
	}
	return b, nil
}

// WriteFile replaces p by a new regular file. What was there, a link too, is replaced and not followed.
func (r *Root) WriteFile(p string, data []byte, perm fs.FileMode) error {
	d, base, err := r.parent("write", p)
	if err != nil {
		return err
	}
	defer d.Close()
	tmp := ".tmp-" + strconv.Itoa(os.Getpid()) + "-" + base
	if len(tmp) > unix.NAME_MAX {
		tmp = tmp[:unix.NAME_MAX]
	}
	unix.Unlinkat(int(d.Fd()), tmp, 0)
	fd, err := unix.Openat(int(d.Fd()), tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(perm.Perm()))
	if err != nil {
		return r.errorf("write", p, err)
	}
	f := os.NewFile(uintptr(fd), tmp)
	_, err = f.Write(data)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = unix.Renameat(int(d.Fd()), tmp, int(d.Fd()), base)
	}
	if err != nil {
		unix.Unlinkat(int(d.Fd()), tmp, 0)
		return r.errorf("write", p, err)
	}
	return nil
}

// FdPath is the /proc path of an open handle, for calls that only take paths.
func FdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
