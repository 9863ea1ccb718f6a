// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/atomicfile"
	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// fill copies what the bundle's image has at the mount's destination into the volume, with owners, modes and
// times, if the volume is empty. It happens once in a volume's life. The copy is made beside and put in place
// when it is complete.
func (s *Store) fill(ctx context.Context, b *bundle.Bundle, m *Mount, v *Volume) error {
	entries, err := os.ReadDir(s.Data(v.Name))
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		if err := s.copyUp(ctx, b, m.Destination, v.Name); err != nil {
			return err
		}
	}
	v.Filled = true
	return s.write(v)
}

func (s *Store) copyUp(ctx context.Context, b *bundle.Bundle, destination, name string) error {
	dir, err := os.MkdirTemp(s.path(name), "."+fillDir+"-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	image, err := imageRoot(b, dir)
	if err != nil {
		return err
	}
	if image == nil {
		return nil
	}
	defer image.Close()
	// In-root: a link in the image at the destination leads to another place of the image (CVE-2022-23648).
	from, err := image.OpenFile(destination, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer from.Close()

	parent, err := rootfd.Open(s.path(name))
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := parent.RemoveAll(fillDir); err != nil { // of a tool that died
		return err
	}
	if err := parent.Mkdir(fillDir, 0o700); err != nil {
		return err
	}
	to, err := parent.OpenFile(fillDir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer to.Close()
	c := copier{ctx: ctx, top: to, links: map[[2]uint64]string{}}
	if err := c.dir(from, to, ""); err != nil {
		parent.RemoveAll(fillDir)
		return err
	}
	if err := unix.Syncfs(int(to.Fd())); err != nil {
		return err
	}
	// The empty directory is replaced; rename(2) refuses one that is not empty (os.Rename refuses both).
	if err := unix.Rename(s.path(name, fillDir), s.Data(name)); err != nil {
		return err
	}
	return atomicfile.SyncDir(s.path(name))
}

// imageRoot is a handle on the root filesystem as the image has it, nil if the bundle has none. Layers are
// stacked by an overlay in a mount namespace of one thread: the mount lives as long as the handle, and is
// nowhere to be seen. scratch is an empty directory.
func imageRoot(b *bundle.Bundle, scratch string) (*rootfd.Root, error) {
	spec, err := b.Config()
	if err != nil {
		return nil, err
	}
	annotation, ok := spec.Annotations[bundle.AnnotationOverlay]
	if !ok {
		if spec.Root == nil || spec.Root.Path == "" {
			return nil, nil
		}
		root, err := rootfd.Open(b.Resolve(spec.Root.Path))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return root, err
	}
	var o bundle.Overlay
	if err := json.Unmarshal([]byte(annotation), &o); err != nil {
		return nil, fmt.Errorf("%s: annotation %s: %w", b.Path(bundle.ConfigFile), bundle.AnnotationOverlay, err)
	}
	if len(o.Lower) == 1 {
		return rootfd.Open(b.Resolve(o.Lower[0]))
	}
	type result struct {
		root *rootfd.Root
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread and its mount namespace end here
		root, err := func() (*rootfd.Root, error) {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return nil, fmt.Errorf("new mount namespace: %w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return nil, fmt.Errorf("make mounts private: %w", err)
			}
			var lower []string
			for _, dir := range o.Lower {
				// Opened here: an overlay takes no layers of another mount namespace.
				d, err := os.OpenFile(b.Resolve(dir), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				if err != nil {
					return nil, fmt.Errorf("layer: %w", err)
				}
				defer d.Close()
				// By descriptor: however long and strange the paths are, mount(2) has 4096 bytes for all.
				lower = append(lower, rootfd.FdPath(d))
			}
			options := strings.Join(append([]string{"lowerdir=" + strings.Join(lower, ":")}, o.Options...), ",")
			if err := unix.Mount("overlay", scratch, "overlay", unix.MS_RDONLY, options); err != nil {
				return nil, fmt.Errorf("stack %d layers: %w", len(lower), err)
			}
			return rootfd.Open(scratch)
		}()
		done <- result{root, err}
	}()
	r := <-done
	return r.root, r.err
}

// A copier copies a tree that an image holds into an empty directory that nobody else knows.
type copier struct {
	ctx   context.Context
	top   *os.File
	links map[[2]uint64]string // files with several names: where the first one is
}

// dir copies the content and then the metadata of a directory. at is its path below the top.
func (c *copier) dir(from, to *os.File, at string) error {
	for {
		names, err := from.Readdirnames(256)
		for _, name := range names {
			if err := c.ctx.Err(); err != nil {
				return context.Cause(c.ctx)
			}
			if err := c.entry(int(from.Fd()), int(to.Fd()), name, strings.TrimPrefix(at+"/"+name, "/")); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	return metadata(from, to)
}

func (c *copier) entry(from, to int, name, at string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		key := [2]uint64{uint64(st.Dev), st.Ino}
		if first, ok := c.links[key]; ok {
			return unix.Linkat(int(c.top.Fd()), first, to, name, 0)
		}
		c.links[key] = at
	}
	switch kind {
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(from, name, target)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(string(target[:n]), to, name); err != nil {
			return err
		}
	case unix.S_IFIFO:
		if err := unix.Mknodat(to, name, unix.S_IFIFO|0o600, 0); err != nil {
			return err
		}
	case unix.S_IFREG, unix.S_IFDIR:
		return c.open(from, to, name, at, kind)
	default:
		return nil // devices and sockets: the runtime makes devices, programs make sockets
	}
	if err := unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if kind == unix.S_IFIFO {
		if err := unix.Fchmodat(to, name, st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(to, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// open copies what has content: a file or a directory.
func (c *copier) open(from, to int, name, at string, kind uint32) error {
	flags, made := unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL
	if kind == unix.S_IFDIR {
		if err := unix.Mkdirat(to, name, 0o700); err != nil {
			return err
		}
		flags, made = flags|unix.O_DIRECTORY, unix.O_RDONLY|unix.O_DIRECTORY
	}
	src, err := openat(from, name, flags)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := openat(to, name, made|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	defer dst.Close()
	if kind == unix.S_IFDIR {
		return c.dir(src, dst, at)
	}
	// Shared extents where the file system has them, else a copy by the kernel.
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) != nil {
		if _, err := io.Copy(dst, src); err != nil {
			return err
		}
	}
	return metadata(src, dst)
}

func openat(dir int, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(dir, name, flags, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// metadata gives a copy the owner, extended attributes, mode and times of the original, in this order: chown
// drops set-user-ID bits and capabilities, and all of them change times.
func metadata(from, to *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	if err := unix.Fchown(int(to.Fd()), int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := xattrs(int(from.Fd()), int(to.Fd())); err != nil {
		return err
	}
	if err := unix.Fchmod(int(to.Fd()), st.Mode&0o7777); err != nil {
		return err
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	return unix.UtimesNanoAt(unix.AT_FDCWD, rootfd.FdPath(to), times, 0)
}

func xattrs(from, to int) error {
	names := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Flistxattr(from, names)
	if err != nil {
		if errors.Is(err, unix.ENOTSUP) {
			return nil
		}
		return err
	}
	for _, name := range strings.Split(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		// What an overlay would take as its own must not come from an image.
		if name == "" || strings.HasPrefix(name, "trusted.") || strings.HasPrefix(name, "user.overlay.") || name == "security.selinux" {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		size, err := unix.Fgetxattr(from, name, value)
		if err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
		if err := unix.Fsetxattr(to, name, value[:size], 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}
