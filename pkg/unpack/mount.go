// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// mount mounts the overlay on rootfs/. Directories are handed over as descriptors (kernel 6.13), else as
// /proc/self/fd names: no path is too long for fsconfig's 255 bytes, and before lowerdir+ (kernel 6.8) the whole
// list of about 200 layers fits into mount(2)'s one page.
func (m *maker) mount(o *bundle.Overlay) error {
	var dirs []*os.File
	defer func() {
		for _, d := range dirs {
			d.Close()
		}
	}()
	open := func(path string) (*os.File, error) {
		d, err := os.OpenFile(m.b.Resolve(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			dirs = append(dirs, d)
		}
		return d, err
	}
	for _, p := range append([]string{o.Upper, o.Work}, o.Lower...) {
		if _, err := open(p); err != nil {
			return err
		}
	}
	upper, work, lower := dirs[0], dirs[1], dirs[2:]
	target, err := open(bundle.RootfsDir)
	if err != nil {
		return err
	}
	err = mountNew(target, upper, work, lower, o.Options)
	if err == errOld {
		names := make([]string, len(lower))
		for i, l := range lower {
			names[i] = rootfd.FdPath(l)
		}
		data := append([]string{"lowerdir=" + strings.Join(names, ":"), "upperdir=" + rootfd.FdPath(upper), "workdir=" + rootfd.FdPath(work)}, o.Options...)
		err = unix.Mount("overlay", rootfd.FdPath(target), "overlay", 0, strings.Join(data, ","))
	}
	if err != nil {
		return fmt.Errorf("mount overlay of %d layers on %s: %w", len(lower), m.b.Path(bundle.RootfsDir), err)
	}
	m.undo = append(m.undo, func() { unix.Unmount(m.b.Path(bundle.RootfsDir), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) })
	return nil
}

// errOld says that the kernel takes no single lower directories.
var errOld = errors.New("kernel without lowerdir+")

func mountNew(target, upper, work *os.File, lower []*os.File, options []string) error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err == unix.ENOSYS {
		return errOld
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	give := func(key string, dir *os.File) error {
		if len(dir.Name()) < 255 {
			return unix.FsconfigSetString(fd, key, dir.Name()) // so that mountinfo shows it
		}
		err := unix.FsconfigSetFd(fd, key, int(dir.Fd()))
		if err != nil {
			err = unix.FsconfigSetString(fd, key, rootfd.FdPath(dir))
		}
		return err
	}
	if err := unix.FsconfigSetString(fd, "source", "overlay"); err != nil {
		return err
	}
	for _, l := range lower {
		if give("lowerdir+", l) != nil {
			return errOld
		}
	}
	if err := give("upperdir", upper); err != nil {
		return fmt.Errorf("upperdir: %w", err)
	}
	if err := give("workdir", work); err != nil {
		return fmt.Errorf("workdir: %w", err)
	}
	for _, o := range options {
		k, v, has := strings.Cut(o, "=")
		if has {
			err = unix.FsconfigSetString(fd, k, v)
		} else {
			err = unix.FsconfigSetFlag(fd, k)
		}
		if err != nil {
			return fmt.Errorf("option %s: %w", o, err)
		}
	}
	if err := unix.FsconfigCreate(fd); err == unix.EINVAL { // before 6.5 it is only now that options are looked at
		return errOld
	} else if err != nil {
		return err
	}
	mnt, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(mnt)
	return unix.MoveMount(mnt, "", int(target.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}
