// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/runtime/internal/compile"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/prog"
	"github.com/ctr-tools/ctr/pkg/state"
)

// trees opens the sources of bind mounts as detached mounts where init could not: in a user namespace it may
// have no way to them, and it may not map their ids.
func (c *config) trees() error {
	for i := range c.spec.Mounts {
		m := &c.spec.Mounts[i]
		bind, recursive, idmap, ridmap := compile.IsBind(m.Options)
		idmap = idmap || len(m.UIDMappings)+len(m.GIDMappings) > 0
		if !bind || c.facts.Mounts[i].Inside || !idmap && (!c.facts.UserNS || c.facts.Rootless) {
			continue
		}
		flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
		if recursive {
			flags |= unix.AT_RECURSIVE
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, m.Source, flags)
		if err != nil {
			return fmt.Errorf("mount %s: open %s: %w", m.Destination, m.Source, err)
		}
		c.facts.Mounts[i].Tree = c.fds.add(fd, true)
		// A clone of a shared mount is its peer: what the container mounts on it would show on the host.
		slave := unix.MountAttr{Propagation: unix.MS_SLAVE}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &slave); err != nil {
			return fmt.Errorf("mount %s: make slave: %w", m.Destination, err)
		}
		if !idmap {
			continue
		}
		if err := c.idmap(fd, m, ridmap); err != nil {
			return fmt.Errorf("mount %s: idmap: %w", m.Destination, err)
		}
	}
	return nil
}

// idmap maps the ids of a detached mount: by its own mappings, else by the container's.
func (c *config) idmap(tree int, m *specs.Mount, recursive bool) error {
	uids, gids := m.UIDMappings, m.GIDMappings
	var ns int
	var err error
	switch {
	case len(uids) > 0 && len(gids) > 0:
		ns, err = userNamespace(uids, gids)
	case len(uids)+len(gids) > 0:
		return errors.New("found mappings for users or groups only, want both")
	case hasOwn(c.spec, specs.UserNamespace):
		ns, err = userNamespace(c.spec.Linux.UIDMappings, c.spec.Linux.GIDMappings)
	default:
		joined := -1
		for _, j := range c.facts.Joins {
			if j.Type == specs.UserNamespace {
				joined = int(c.fds.files[j.FD])
			}
		}
		if joined < 0 {
			return errors.New("found neither mappings nor a user namespace, want one of them")
		}
		ns, err = unix.FcntlInt(uintptr(joined), unix.F_DUPFD_CLOEXEC, 3)
	}
	if err != nil {
		return err
	}
	defer syscall.Close(ns)
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(tree, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)})
}

// userNamespace makes a user namespace with these mappings and returns a descriptor of it. A process is needed
// to make one: a program of a single call that waits to be killed.
func userNamespace(uids, gids []specs.LinuxIDMapping) (int, error) {
	p := prog.New()
	p.Do("wait to be killed", "", unix.SYS_PPOLL, 0, 0, 0, 0, 0)
	elf, err := p.ELF(2)
	if err != nil {
		return -1, err
	}
	exe, err := prog.File(elf, nil, "/tmp", "/dev/shm")
	if err != nil {
		return -1, err
	}
	defer syscall.Close(exe)
	maps := func(list []specs.LinuxIDMapping) (out []syscall.SysProcIDMap) {
		for _, m := range list {
			out = append(out, syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)})
		}
		return out
	}
	pid, err := syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(exe), []string{"userns"}, &syscall.ProcAttr{Env: []string{}, Sys: &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: maps(uids), GidMappings: maps(gids), GidMappingsEnableSetgroups: true, Pdeathsig: syscall.SIGKILL}})
	if err != nil {
		return -1, fmt.Errorf("make a user namespace: %w", err)
	}
	fd, err := syscall.Open("/proc/"+strconv.Itoa(pid)+"/ns/user", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	syscall.Kill(pid, syscall.SIGKILL)
	wait(pid)
	if err != nil {
		return -1, fmt.Errorf("open the user namespace: %w", err)
	}
	return fd, nil
}

// copyUp fills a tmpfs that init is about to mount with what is at its destination. fd is the tmpfs's number in
// init.
func copyUp(pid int, f *compile.Facts, destination string, fd int) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(pidfd)
	tmpfs, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return fmt.Errorf("tmpfs of init: %w", err)
	}
	defer syscall.Close(tmpfs)
	top, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("root of init: %w", err)
	}
	defer syscall.Close(top)
	// Links in the path lead where init sees them lead: to our root they could be others.
	root, err := unix.Openat2(top, strings.TrimLeft(f.Rootfs, "/"), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return fmt.Errorf("root filesystem of init: %w", err)
	}
	defer syscall.Close(root)
	from, err := unix.Openat2(root, strings.TrimLeft(path.Clean("/"+destination), "/"), &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return fmt.Errorf("mount %s: tmpcopyup: %w", destination, err)
	}
	to, err := unix.Openat(tmpfs, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		syscall.Close(from)
		return fmt.Errorf("mount %s: tmpcopyup: %w", destination, err)
	}
	if err := copyTree(os.NewFile(uintptr(from), destination), os.NewFile(uintptr(to), destination)); err != nil {
		return fmt.Errorf("mount %s: tmpcopyup: %w", destination, err)
	}
	return nil
}

// copyTree copies the content of a directory and its own mode and owner. Both files are closed. Nothing is
// followed: each entry is opened below its directory's descriptor.
func copyTree(from, to *os.File) error {
	defer from.Close()
	defer to.Close()
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	src, dst := int(from.Fd()), int(to.Fd())
	for _, name := range names {
		if err := copyEntry(src, dst, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	if err := unix.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Fchmod(dst, st.Mode&0o7777)
}

func copyEntry(src, dst int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(src, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	const flags = unix.O_NOFOLLOW | unix.O_CLOEXEC
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := unix.Mkdirat(dst, name, 0o700); err != nil {
			return err
		}
		from, err := unix.Openat(src, name, unix.O_RDONLY|unix.O_DIRECTORY|flags, 0)
		if err != nil {
			return err
		}
		to, err := unix.Openat(dst, name, unix.O_RDONLY|unix.O_DIRECTORY|flags, 0)
		if err != nil {
			syscall.Close(from)
			return err
		}
		return copyTree(os.NewFile(uintptr(from), name), os.NewFile(uintptr(to), name))
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(src, name, target)
		if err == nil {
			err = unix.Symlinkat(string(target[:n]), dst, name)
		}
		if err == nil {
			err = unix.Fchownat(dst, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
		}
		return err
	case unix.S_IFREG:
		from, err := unix.Openat(src, name, unix.O_RDONLY|unix.O_NONBLOCK|flags, 0)
		if err != nil {
			return err
		}
		in := os.NewFile(uintptr(from), name)
		defer in.Close()
		to, err := unix.Openat(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|flags, 0o600)
		if err != nil {
			return err
		}
		out := os.NewFile(uintptr(to), name)
		defer out.Close()
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
		if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
		return unix.Fchmod(to, st.Mode&0o7777)
	default:
		if err := unix.Mknodat(dst, name, st.Mode, int(st.Rdev)); err != nil {
			return err
		}
		return unix.Fchownat(dst, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	}
}

// sendListener sends a seccomp listener to the socket of linux.seccomp.listenerPath, with the state that the
// specification wants (config-linux.md, "The Container Process State").
func sendListener(pid, fd int, s *specs.LinuxSeccomp, st *state.State) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(pidfd)
	listener, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return fmt.Errorf("seccomp listener of init: %w", err)
	}
	defer syscall.Close(listener)
	agent, err := connect(s.ListenerPath)
	if err != nil {
		return fmt.Errorf("linux.seccomp.listenerPath: %w", err)
	}
	defer syscall.Close(agent)
	status := state.Creating
	if pid != st.Pid {
		status = state.Running
	}
	if err := syscall.Sendmsg(agent, st.ProcessState(pid, s.ListenerMetadata, status), syscall.UnixRights(listener), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("linux.seccomp.listenerPath: %s: %w", s.ListenerPath, err)
	}
	return nil
}
