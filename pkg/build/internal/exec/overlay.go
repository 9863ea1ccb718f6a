// SPDX-License-Identifier: Apache-2.0

package exec

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// overlay opens the merged view of directories, topmost first, as a mount without a place: nobody else sees
// it, and the kernel removes it with the last handle. Without upper it can only be read. tmp is a private
// directory that old kernels (before 6.7) need for a moment.
//
// redirect_dir and metacopy stay off: the upper directory has to mean something without the mount. volatile
// saves the syncs of a directory that is worthless until it is packed.
func overlay(lower []string, upper, work, tmp string) (*rootfd.Root, error) {
	var open []*os.File
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	handle := func(dir string) (string, error) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", &os.PathError{Op: "open", Path: dir, Err: err}
		}
		f := os.NewFile(uintptr(fd), dir)
		open = append(open, f)
		return "/proc/self/fd/" + strconv.Itoa(fd), nil
	}
	var lowers []string
	for _, dir := range lower {
		p, err := handle(dir)
		if err != nil {
			return nil, err
		}
		lowers = append(lowers, p)
	}
	options := [][2]string{{"redirect_dir", "off"}, {"metacopy", "off"}, {"index", "off"}}
	if upper != "" {
		for _, o := range [][2]string{{"upperdir", upper}, {"workdir", work}} {
			p, err := handle(o[1])
			if err != nil {
				return nil, err
			}
			options = append(options, [2]string{o[0], p})
		}
		options = append(options, [2]string{"volatile", ""})
	}
	fd, err := detached(lowers, options)
	if err == unix.EINVAL || err == unix.ENOSYS {
		return attached(lowers, options, tmp)
	}
	if err != nil {
		return nil, fmt.Errorf("mount overlay of %d directories: %w", len(lower), err)
	}
	defer unix.Close(fd)
	return rootfd.Open("/proc/self/fd/" + strconv.Itoa(fd))
}

func detached(lowers []string, options [][2]string) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	for _, l := range lowers {
		if err := unix.FsconfigSetString(fs, "lowerdir+", l); err != nil {
			return -1, err
		}
	}
	for _, o := range options {
		if o[1] == "" {
			err = unix.FsconfigSetFlag(fs, o[0])
		} else {
			err = unix.FsconfigSetString(fs, o[0], o[1])
		}
		if err != nil {
			return -1, err
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
}

// attached mounts in the old way and takes the mount out of the table at once.
func attached(lowers []string, options [][2]string, tmp string) (*rootfd.Root, error) {
	data := "lowerdir=" + strings.Join(lowers, ":")
	for _, o := range options {
		data += "," + o[0]
		if o[1] != "" {
			data += "=" + o[1]
		}
	}
	at, err := os.MkdirTemp(tmp, "view-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(at)
	if err := unix.Mount("overlay", at, "overlay", unix.MS_NODEV|unix.MS_NOSUID, data); err != nil {
		return nil, fmt.Errorf("mount overlay of %d directories in %s: %w", len(lowers), filepath.Dir(at), err)
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	return rootfd.Open(at)
}
