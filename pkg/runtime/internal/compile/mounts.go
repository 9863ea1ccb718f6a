// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"encoding/binary"
	"fmt"
	"path"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/runtime/internal/prog"
)

// Flags and commands of the mount system calls that package unix has no name for in a convenient type.
const (
	treeClone    = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	fromEmpty    = unix.MOVE_MOUNT_F_EMPTY_PATH
	toEmpty      = unix.MOVE_MOUNT_T_EMPTY_PATH
	longestParam = 255 // bytes of a string that fsconfig takes
)

// clean makes a destination relative to the root filesystem: "/a//b/../c" is "a/c", "/" is "".
func clean(destination string) string { return path.Clean("/" + destination)[1:] }

// rootfs makes the root filesystem a mount of its own, on its place on the host; what is mounted in the
// container's mount namespace is not seen outside.
func (c *compiler) rootfs() error {
	f := c.facts
	flag, what := uint64(unix.MS_SLAVE), "slaves of the host's"
	switch p := c.spec.Linux.RootfsPropagation; p {
	case "private", "rprivate":
		flag, what = unix.MS_PRIVATE, "private"
	case "shared", "rshared":
		flag = 0
		if f.RootParent != "" { // pivot_root wants a parent that is not shared
			c.Do("make private", f.RootParent, unix.SYS_MOUNT, 0, c.Str(f.RootParent), 0, unix.MS_PRIVATE)
		}
	}
	if flag != 0 {
		c.Do("make all mounts", what, unix.SYS_MOUNT, 0, c.Str("/"), 0, unix.MS_REC|flag)
	}
	at := c.Str(f.Rootfs)
	switch o := f.Overlay; {
	case o == nil:
		c.Do("clone the tree", f.Rootfs, unix.SYS_OPEN_TREE, cwdFD, at, treeClone|unix.AT_RECURSIVE).Into(c.root)
	case o.Upper == "" && len(o.Lower) == 1: // overlayfs wants two layers
		c.Do("clone the tree", o.Lower[0], unix.SYS_OPEN_TREE, cwdFD, c.Str(o.Lower[0]), treeClone).Into(c.root)
		c.Do("make read-only", o.Lower[0], unix.SYS_MOUNT_SETATTR, c.root.Arg(), c.empty, unix.AT_EMPTY_PATH, c.rdonly, attrSize)
	default:
		c.overlay(o)
	}
	c.Do("attach the root filesystem to", f.Rootfs, unix.SYS_MOVE_MOUNT, c.root.Arg(), c.empty, cwdFD, at, fromEmpty)
	if flag == 0 { // a clone of a shared mount is shared: what is mounted in the container must not show outside
		c.Do("make private", f.Rootfs, unix.SYS_MOUNT_SETATTR, c.root.Arg(), c.empty, unix.AT_EMPTY_PATH, c.Words(0, 0, unix.MS_PRIVATE, 0), attrSize)
	}
	return nil
}

// overlay makes a detached mount of the layers, c.root. Linux before 6.8 does not know lowerdir+ (before 6.5 it
// takes any option and fails only at the end), and one string of fsconfig(2) is too short for a list of layers:
// there mount(2) does it, on the root filesystem's own place. The release says which it is; where it is wrong, the
// error does.
func (c *compiler) overlay(o *Overlay) {
	if c.facts.OldOverlay {
		c.overlayOld(o)
		return
	}
	fs := c.Reg()
	old, done := c.NewLabel(), c.NewLabel()
	c.Do("open file system", "overlay", unix.SYS_FSOPEN, c.Str("overlay"), unix.FSOPEN_CLOEXEC).Into(fs)
	c.Do("", "", unix.SYS_FSCONFIG, fs.Arg(), unix.FSCONFIG_SET_STRING, c.Str("source"), c.Str("overlay")).IgnoreAll()
	set := func(key, dir string) {
		if len(dir) <= longestParam {
			c.Do("overlay "+key, dir, unix.SYS_FSCONFIG, fs.Arg(), unix.FSCONFIG_SET_STRING, c.Str(key), c.Str(dir), 0).Ignore(syscall.EINVAL).Err(old)
			return
		}
		fd := c.Reg()
		c.Do("open", dir, unix.SYS_OPENAT, cwdFD, c.Str(dir), openDir).Into(fd)
		c.Do("overlay "+key, dir, unix.SYS_FSCONFIG, fs.Arg(), unix.FSCONFIG_SET_FD, c.Str(key), 0, fd.Arg()).Ignore(syscall.EINVAL).Err(old)
		c.close(fd)
	}
	for _, dir := range o.Lower {
		set("lowerdir+", dir)
	}
	if o.Upper != "" {
		set("upperdir", o.Upper)
		set("workdir", o.Work)
	}
	c.fsOptions(fs, "overlay", o.Options)
	c.Do("mount", "overlay", unix.SYS_FSCONFIG, fs.Arg(), unix.FSCONFIG_CMD_CREATE, 0, 0, 0).Ignore(syscall.EINVAL).Err(old)
	c.Do("mount", "overlay", unix.SYS_FSMOUNT, fs.Arg(), unix.FSMOUNT_CLOEXEC, 0).Into(c.root)
	c.Do("", "", unix.SYS_GETPID).OK(done)

	c.Here(old)
	c.overlayOld(o)
	c.Here(done)
	c.close(fs)
}

func (c *compiler) overlayOld(o *Overlay) {
	at := c.Str(c.facts.Rootfs)
	c.Do("mount", "overlay", unix.SYS_MOUNT, c.Str("overlay"), at, c.Str("overlay"), 0, c.Str(c.overlayData(o)))
	c.Do("clone the tree", c.facts.Rootfs, unix.SYS_OPEN_TREE, cwdFD, at, treeClone).Into(c.root)
	c.Do("unmount", c.facts.Rootfs, unix.SYS_UMOUNT2, at, unix.MNT_DETACH)
}

// What overlayData names descriptors by, if paths are too long: the numbers are above those in use.
const (
	mountPage    = 4095 // bytes of options that mount(2) takes
	firstLayerFD = 500
)

// overlayData is the options for mount(2). Where the paths of many layers do not fit, layers are opened and named
// by descriptor, up to about 200 of them.
func (c *compiler) overlayData(o *Overlay) string {
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`)
	data := func(name func(i int) string) string {
		var b strings.Builder
		for i := range o.Lower {
			b.WriteString(map[bool]string{true: "lowerdir=", false: ":"}[i == 0])
			b.WriteString(name(i))
		}
		if o.Upper != "" {
			escape := strings.NewReplacer(`\`, `\\`, `,`, `\,`)
			b.WriteString(",upperdir=" + escape.Replace(o.Upper) + ",workdir=" + escape.Replace(o.Work))
		}
		for _, option := range o.Options {
			b.WriteString("," + option)
		}
		return b.String()
	}
	paths := data(func(i int) string { return escape.Replace(o.Lower[i]) })
	if len(paths) <= mountPage {
		return paths
	}
	fd := c.Reg()
	for i, dir := range o.Lower {
		c.Do("open", dir, unix.SYS_OPENAT, cwdFD, c.Str(dir), openDir).Into(fd)
		c.Do("open", dir, unix.SYS_DUP3, fd.Arg(), uint64(firstLayerFD+i), unix.O_CLOEXEC)
		c.Do("", "", unix.SYS_CLOSE, fd.Arg()).IgnoreAll()
	}
	c.Free(fd)
	return data(func(i int) string { return "/proc/self/fd/" + strconv.Itoa(firstLayerFD+i) })
}

func (c *compiler) fsOptions(fs prog.Reg, kind string, list []string) {
	for _, o := range list {
		if key, value, ok := strings.Cut(o, "="); ok {
			c.Do("mount "+kind+" with option", o, unix.SYS_FSCONFIG, fs.Arg(), unix.FSCONFIG_SET_STRING, c.Str(key), c.Str(value), 0)
		} else {
			c.Do("mount "+kind+" with option", o, unix.SYS_FSCONFIG, fs.Arg(), unix.FSCONFIG_SET_FLAG, c.Str(o), 0, 0)
		}
	}
}

// fileSystem makes a detached mount of a new file system.
func (c *compiler) fileSystem(kind, source, destination string, attrs uint64, list []string) prog.Reg {
	fs, m := c.Reg(), c.Reg()
	c.Do("open file system", kind, unix.SYS_FSOPEN, c.Str(kind), unix.FSOPEN_CLOEXEC).Into(fs)
	if source != "" {
		c.Do("", "", unix.SYS_FSCONFIG, fs.Arg(), unix.FSCONFIG_SET_STRING, c.Str("source"), c.Str(source), 0).IgnoreAll()
	}
	c.fsOptions(fs, kind+" on "+destination, list)
	c.Do("mount "+kind+" on", destination, unix.SYS_FSCONFIG, fs.Arg(), unix.FSCONFIG_CMD_CREATE, 0, 0, 0)
	c.Do("mount "+kind+" on", destination, unix.SYS_FSMOUNT, fs.Arg(), unix.FSMOUNT_CLOEXEC, attrs).Into(m)
	c.close(fs)
	return m
}

// mounts does the mounts of the configuration, in its order.
func (c *compiler) mounts() error {
	for i := range c.spec.Mounts {
		m := &c.spec.Mounts[i]
		o := parseOptions(m.Options)
		name := clean(m.Destination)
		if name == "" {
			return fmt.Errorf("mount %s: found the root filesystem itself, want a directory in it", m.Destination)
		}
		if err := procMount(name, m, &o); err != nil {
			return err
		}
		var err error
		switch {
		case o.remount:
			err = c.remount(m, &o)
		case o.bind:
			err = c.bind(i, m, &o)
		case m.Type == "cgroup" || m.Type == "cgroup2":
			err = c.cgroupMount(m, &o)
		case m.Type == "" || m.Type == "none" || m.Type == "bind":
			err = fmt.Errorf("mount %s: found type %q without the option bind or rbind, want a file system", m.Destination, m.Type)
		case o.idmap || len(m.UIDMappings)+len(m.GIDMappings) > 0:
			err = fmt.Errorf("mount %s: found mapped ids for a %s, want a bind mount", m.Destination, m.Type)
		default:
			err = c.mount(i, m, &o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// procMount refuses mounts on or below /proc that could fake what is written or read there: only procfs itself
// goes on /proc, and only bind mounts of what lxcfs and the like provide go below it.
func procMount(name string, m *specs.Mount, o *options) error {
	if name != "proc" && !strings.HasPrefix(name, "proc/") {
		return nil
	}
	if name == "proc" && (o.bind && path.Clean(m.Source) == "/proc" || !o.bind && m.Type == "proc") {
		return nil
	}
	switch name {
	case "proc/cpuinfo", "proc/diskstats", "proc/meminfo", "proc/stat", "proc/swaps", "proc/uptime", "proc/loadavg",
		"proc/slabinfo", "proc/net/dev", "proc/sys/kernel/ns_last_pid", "proc/sys/crypto/fips_enabled":
		if o.bind {
			return nil
		}
	case "proc/sys", "proc/sys/net", "proc/scsi", "proc/acpi", "proc/asound": // engines unmask or hide them
		if o.bind && strings.HasPrefix(path.Clean(m.Source)+"/", "/"+name+"/") {
			return nil
		}
	}
	if name == "proc/sys/fs/binfmt_misc" && m.Type == "binfmt_misc" {
		return nil
	}
	return fmt.Errorf("mount %s: found a mount that would cover the container's procfs, want none", m.Destination)
}

// mount mounts a new file system.
func (c *compiler) mount(i int, m *specs.Mount, o *options) error {
	name := clean(m.Destination)
	inherited := uint64(0)
	if _, fresh := c.inDev(name); m.Type == "tmpfs" && !o.copyUp && !fresh && name != "dev" && !hasMode(o.data) {
		inherited = c.modeOf(m.Destination, 0o1777)
	}
	var t prog.Reg
	if m.Type == "proc" || m.Type == "sysfs" || name == "dev" {
		// Through a link the file system would be anywhere, and /proc or /dev somebody else's.
		t = c.realDirectory(m.Destination)
	} else {
		t = c.directory(m.Destination, true)
	}
	super := o.super
	if o.copyUp {
		if m.Type != "tmpfs" {
			return fmt.Errorf("mount %s: found the option tmpcopyup for a %s, want a tmpfs", m.Destination, m.Type)
		}
	}
	attrs := o.set
	devReadonly := name == "dev" && m.Type == "tmpfs" && attrs&unix.MOUNT_ATTR_RDONLY != 0
	if o.copyUp || inherited != 0 || devReadonly { // something is to be done to it before
		super = remove(append([]string(nil), super...), "ro")
		attrs &^= unix.MOUNT_ATTR_RDONLY
	}
	r := c.fileSystem(m.Type, m.Source, m.Destination, attrs, append(super[:len(super):len(super)], o.data...))
	if o.copyUp {
		c.waitReady()
		fd := c.Scratch(0)
		c.Do("", "", unix.SYS_FCNTL, r.Arg(), unix.F_DUPFD_CLOEXEC, 0).IntoScratch(fd, 0)
		c.tell(CopyUp, uint32(i))
		c.Do("tell the parent", "which tmpfs", unix.SYS_WRITE, uint64(c.facts.Report), fd.Addr(0), 8)
		c.wait("wait for the parent to fill the tmpfs on " + m.Destination)
		c.Do("", "", unix.SYS_CLOSE, fd.Arg(0)).IgnoreAll()
	}
	if inherited != 0 {
		c.Do("set the mode of", m.Destination, unix.SYS_FCHMODAT, r.Arg(), c.dot, c.Value(inherited))
	}
	if (o.copyUp || inherited != 0) && o.set&unix.MOUNT_ATTR_RDONLY != 0 {
		c.setAttr("make read-only", m.Destination, r, 0, c.rdonly)
	}
	if o.recSet|o.recClear != 0 {
		c.setAttr("set the attributes of", m.Destination, r, unix.AT_RECURSIVE, c.Words(o.recSet, o.recClear, 0, 0))
	}
	c.attach(m.Destination, r, t)
	c.propagate(m.Destination, r, o)
	switch {
	case name == "dev":
		c.forgetDev()
		c.dev, c.devReadonly = r, devReadonly
	case name == "proc" && m.Type == "proc":
		if c.proc != 0 {
			c.close(c.proc)
		}
		c.proc = r
	default:
		c.close(r)
	}
	return nil
}

func hasMode(data []string) bool {
	for _, o := range data {
		if strings.HasPrefix(o, "mode=") {
			return true
		}
	}
	return false
}

// modeOf reads the mode of a directory below the root and returns the address of where it will stand; a directory
// that is missing has the given one. More than the mode stands there: system calls take a mode's 16 bits.
func (c *compiler) modeOf(destination string, missing uint32) (at uint64) {
	const statxSize, modeAt = 256, 28
	buf := make([]byte, statxSize)
	binary.NativeEndian.PutUint32(buf[modeAt:], missing)
	at = c.Bytes(buf)
	t, none := c.Reg(), c.NewLabel()
	c.open(destination, c.root, c.Str(clean(destination)), c.howDir).Into(t).Ignore(syscall.ENOENT).Err(none)
	c.Do("look at", destination, unix.SYS_STATX, t.Arg(), c.empty, unix.AT_EMPTY_PATH, unix.STATX_MODE, at)
	c.close(t)
	c.Here(none)
	return at + modeAt
}

// forgetDev gives up the idea of /dev as a file system of our own.
func (c *compiler) forgetDev() {
	c.devReadonly = false
	if c.dev != 0 {
		c.close(c.dev)
		c.dev = 0
	}
}

func (c *compiler) setAttr(verb, destination string, m prog.Reg, flags uint64, attr uint64) {
	c.Do(verb, destination, unix.SYS_MOUNT_SETATTR, m.Arg(), c.empty, unix.AT_EMPTY_PATH|flags, attr, attrSize)
}

// attach puts the detached mount m on the open directory or file t, which is closed.
func (c *compiler) attach(destination string, m, t prog.Reg) {
	c.Do("mount on", destination, unix.SYS_MOVE_MOUNT, m.Arg(), c.empty, t.Arg(), c.empty, fromEmpty|toEmpty)
	c.close(t)
}

func (c *compiler) propagate(destination string, m prog.Reg, o *options) {
	for _, name := range o.propagation {
		flag, recursive := propagation(name)
		at := uint64(0)
		if recursive {
			at = unix.AT_RECURSIVE
		}
		c.setAttr("make "+name, destination, m, at, c.Words(0, 0, flag, 0))
	}
}

// bind mounts a directory or file of the host.
func (c *compiler) bind(i int, m *specs.Mount, o *options) error {
	if err := o.bindData(m.Destination); err != nil {
		return err
	}
	if m.Source == "" {
		return fmt.Errorf("mount %s: found no source, want what to bind", m.Destination)
	}
	fact := MountFact{Tree: -1}
	if i < len(c.facts.Mounts) {
		fact = c.facts.Mounts[i]
	}
	r := c.Reg()
	if fact.Tree >= 0 {
		c.Do("take the tree", m.Source, unix.SYS_FCNTL, uint64(fact.Tree), unix.F_DUPFD_CLOEXEC, 0).Into(r)
	} else {
		if o.idmap || len(m.UIDMappings)+len(m.GIDMappings) > 0 {
			return fmt.Errorf("mount %s: found the option %s, but the host made no mapping for it", m.Destination, "idmap")
		}
		flags := uint64(treeClone)
		if o.rbind {
			flags |= unix.AT_RECURSIVE
		}
		c.Do("bind", m.Source, unix.SYS_OPEN_TREE, cwdFD, c.Str(m.Source), flags).Into(r)
	}
	if o.set|o.clear != 0 {
		c.setAttr("set the attributes of", m.Destination, r, 0, c.Words(o.set, o.clear, 0, 0))
	}
	if o.recSet|o.recClear != 0 {
		c.setAttr("set all attributes of", m.Destination, r, unix.AT_RECURSIVE, c.Words(o.recSet, o.recClear, 0, 0))
	}
	name := clean(m.Destination)
	var t prog.Reg
	switch {
	case fact.File:
		t = c.file(m.Destination)
	case name == "proc" || name == "sys" || name == "dev":
		t = c.realDirectory(m.Destination)
	default:
		t = c.directory(m.Destination, true)
	}
	c.attach(m.Destination, r, t)
	c.propagate(m.Destination, r, o)
	c.close(r)
	if name == "dev" {
		c.forgetDev()
	}
	return nil
}

// remount changes the attributes of a mount that is there.
func (c *compiler) remount(m *specs.Mount, o *options) error {
	if !o.bind && len(o.data)+len(o.super) > 0 {
		return fmt.Errorf("mount %s: found a remount of a file system, want the option bind too: only the mount's own attributes can be changed", m.Destination)
	}
	t := c.Reg()
	c.open(m.Destination, c.root, c.Str(clean(m.Destination)), c.howAny).Into(t)
	if o.set|o.clear != 0 {
		c.setAttr("set the attributes of", m.Destination, t, 0, c.Words(o.set, o.clear, 0, 0))
	}
	if o.recSet|o.recClear != 0 {
		c.setAttr("set all attributes of", m.Destination, t, unix.AT_RECURSIVE, c.Words(o.recSet, o.recClear, 0, 0))
	}
	c.propagate(m.Destination, t, o)
	c.close(t)
	return nil
}

// inDev says whether a destination is a direct child of a /dev that is our own file system: then nothing is
// there yet, and nobody can have put a link in the way.
func (c *compiler) inDev(name string) (child string, ok bool) {
	child, ok = strings.CutPrefix(name, "dev/")
	return child, ok && c.dev != 0 && !strings.Contains(child, "/")
}

// realDirectory opens a directory that must not be reached through a link, and makes it if it is missing.
func (c *compiler) realDirectory(destination string) prog.Reg {
	t := c.Reg()
	name := clean(destination)
	have := c.NewLabel()
	how := c.howDirNoLinks
	c.open(destination, c.root, c.Str(name), how).Into(t).Ignore(syscall.ENOENT).OK(have)
	c.makeParents(destination, name, t, how)
	c.Here(have)
	return t
}

// directory opens a directory below the root, and makes it if it is missing and make is set.
func (c *compiler) directory(destination string, make bool) prog.Reg {
	t := c.Reg()
	name := clean(destination)
	if child, ok := c.inDev(name); ok && make {
		n := c.Str(child)
		c.Do("make directory", destination, unix.SYS_MKDIRAT, c.dev.Arg(), n, 0o755).Ignore(syscall.EEXIST)
		c.open(destination, c.dev, n, c.howDirNoLinks).Into(t)
		return t
	}
	if name == "" {
		name = "."
	}
	ref := c.open(destination, c.root, c.Str(name), c.howDir).Into(t)
	if !make || name == "." {
		return t
	}
	have := c.NewLabel()
	ref.Ignore(syscall.ENOENT).OK(have)
	c.makeParents(destination, c.behindLinks(name), t, c.howDir)
	c.Here(have)
	return t
}

// behindLinks is where a name that is missing has to be made.
func (c *compiler) behindLinks(name string) string {
	if to, ok := c.facts.Links[name]; ok {
		return to
	}
	return name
}

// makeParents makes the directories of name one after the other and leaves the last one open in t. Each one is
// opened from the root again, so a link on the way is followed inside the root; one that leads to nothing is an
// error and makes nothing.
func (c *compiler) makeParents(destination, name string, t prog.Reg, how uint64) {
	parent := c.root
	next := c.Reg()
	for end := 0; end <= len(name); end++ {
		if end < len(name) && name[end] != '/' {
			continue
		}
		part := name[strings.LastIndexByte(name[:end], '/')+1 : end]
		c.Do("make directory", destination, unix.SYS_MKDIRAT, parent.Arg(), c.Str(part), 0o755).Ignore(syscall.EEXIST)
		c.open(destination, c.root, c.Str(name[:end]), how).Into(next)
		if parent == t {
			c.Do("", "", unix.SYS_CLOSE, t.Arg()).IgnoreAll()
		}
		c.Do("", "", unix.SYS_FCNTL, next.Arg(), unix.F_DUPFD_CLOEXEC, 0).Into(t)
		c.Do("", "", unix.SYS_CLOSE, next.Arg()).IgnoreAll()
		parent = t
	}
	c.Free(next)
}

// file opens a file below the root as the target of a bind mount, and makes an empty one if it is missing.
func (c *compiler) file(destination string) prog.Reg {
	name := clean(destination)
	t := c.Reg()
	have := c.NewLabel()
	c.open(destination, c.root, c.Str(name), c.howAny).Into(t).Ignore(syscall.ENOENT).OK(have)
	made := c.behindLinks(name)
	dir := c.directory("/"+path.Dir(made), true)
	c.Do("make file", destination, unix.SYS_MKNODAT, dir.Arg(), c.Str(path.Base(made)), unix.S_IFREG|0o644, 0).Ignore(syscall.EEXIST)
	c.close(dir)
	c.open(destination, c.root, c.Str(name), c.howAny).Into(t)
	c.Here(have)
	return t
}

// cgroupMount shows the container its cgroups. They are bound from the host's mounts: a new cgroup2 mount
// waits for 10 ms in the kernel.
func (c *compiler) cgroupMount(m *specs.Mount, o *options) error {
	f := c.facts
	c.waitReady()
	t := c.directory(m.Destination, true)
	var v1 []CgroupDir
	unified := ""
	for _, g := range f.Cgroups {
		if g.Controller == "" {
			unified = g.Dir
		} else {
			v1 = append(v1, g)
		}
	}
	attrs := c.Words(o.set, o.clear, 0, 0)
	if len(v1) == 0 {
		dir := unified
		if !c.ownNamespace(specs.CgroupNamespace) && f.CgroupTop != "" {
			dir = f.CgroupTop
		}
		if dir == "" {
			r := c.fileSystem("cgroup2", m.Source, m.Destination, o.set, o.data)
			c.attach(m.Destination, r, t)
			c.close(r)
			return nil
		}
		r := c.Reg()
		c.Do("bind", dir, unix.SYS_OPEN_TREE, cwdFD, c.Str(dir), treeClone).Into(r)
		c.setAttr("set the attributes of", m.Destination, r, 0, attrs)
		c.attach(m.Destination, r, t)
		c.close(r)
		return nil
	}
	top := c.fileSystem("tmpfs", "tmpfs", m.Destination, o.set&^unix.MOUNT_ATTR_RDONLY, []string{"mode=755"})
	for _, g := range v1 {
		name := strings.TrimPrefix(g.Controller, "name=")
		c.Do("make directory", m.Destination+"/"+name, unix.SYS_MKDIRAT, top.Arg(), c.Str(name), 0o755)
		if strings.Contains(name, ",") { // cpu,cpuacct is known by each name, too
			for _, single := range strings.Split(name, ",") {
				c.Do("make link", m.Destination+"/"+single, unix.SYS_SYMLINKAT, c.Str(name), top.Arg(), c.Str(single))
			}
		}
	}
	c.attach(m.Destination, top, t)
	for _, g := range v1 {
		r := c.Reg()
		c.Do("bind", g.Dir, unix.SYS_OPEN_TREE, cwdFD, c.Str(g.Dir), treeClone).Into(r)
		c.setAttr("set the attributes of", g.Dir, r, 0, attrs)
		name := strings.TrimPrefix(g.Controller, "name=")
		c.Do("mount on", m.Destination+"/"+name, unix.SYS_MOVE_MOUNT, r.Arg(), c.empty, top.Arg(), c.Str(name), fromEmpty)
		c.close(r)
	}
	if o.set&unix.MOUNT_ATTR_RDONLY != 0 {
		c.setAttr("make read-only", m.Destination, top, 0, c.rdonly)
	}
	c.close(top)
	return nil
}

// readonlyPaths puts read-only binds of paths over themselves.
func (c *compiler) readonlyPaths() {
	for _, p := range c.spec.Linux.ReadonlyPaths {
		t, m := c.Reg(), c.Reg()
		skip := c.NewLabel()
		c.open(p, c.root, c.Str(clean(p)), c.howAny).Into(t).Ignore(syscall.ENOENT).Err(skip)
		c.Do("make read-only", p, unix.SYS_OPEN_TREE, t.Arg(), c.empty, unix.AT_EMPTY_PATH|unix.AT_RECURSIVE|treeClone).Into(m)
		c.Do("make read-only", p, unix.SYS_MOUNT_SETATTR, m.Arg(), c.empty, unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, c.rdonly, attrSize)
		c.Do("make read-only", p, unix.SYS_MOVE_MOUNT, m.Arg(), c.empty, t.Arg(), c.empty, fromEmpty|toEmpty)
		c.close(m)
		c.close(t)
		c.Here(skip)
	}
}

// maskedPaths covers files with the host's /dev/null, which the parent has looked at, and directories with one
// empty read-only tmpfs.
func (c *compiler) maskedPaths() {
	if len(c.spec.Linux.MaskedPaths) == 0 {
		return
	}
	null := c.Reg()
	c.Do("open", "/dev/null", unix.SYS_OPENAT, cwdFD, c.Str("/dev/null"), openAny|unix.O_NOFOLLOW).Into(null)
	tmp := c.fileSystem("tmpfs", "tmpfs", "masked directories", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, []string{"ro", "nr_inodes=2", "size=4k"})
	covered := map[string]bool{}
	for _, p := range c.spec.Linux.MaskedPaths {
		if covered[clean(p)] {
			continue
		}
		covered[clean(p)] = true
		t, m := c.Reg(), c.Reg()
		skip, dir, done, first, last := c.NewLabel(), c.NewLabel(), c.NewLabel(), c.NewLabel(), c.NewLabel()
		name := c.Str(clean(p))
		c.open(p, c.root, name, c.howDir).Into(t).Ignore(syscall.ENOENT, syscall.ENOTDIR).OK(dir)
		c.open(p, c.root, name, c.howAny).Into(t).Ignore(syscall.ENOENT, syscall.ENOTDIR).Err(skip)
		c.Do("mask", p, unix.SYS_OPEN_TREE, null.Arg(), c.empty, unix.AT_EMPTY_PATH|treeClone).Into(m)
		c.Do("mask", p, unix.SYS_MOVE_MOUNT, m.Arg(), c.empty, t.Arg(), c.empty, fromEmpty|toEmpty).OK(done)
		c.Here(dir)
		// Before Linux 6.15 a detached mount cannot be cloned: then the first use attaches it, the next ones clone
		// what is attached. Attaching it twice would move it away from the first place.
		c.Do("mask", p, unix.SYS_OPEN_TREE, tmp.Arg(), c.empty, unix.AT_EMPTY_PATH|treeClone).Into(m).Ignore(syscall.EINVAL).Err(first)
		c.Do("mask", p, unix.SYS_MOVE_MOUNT, m.Arg(), c.empty, t.Arg(), c.empty, fromEmpty|toEmpty).OK(done)
		c.Here(first)
		c.Do("mask", p, unix.SYS_MOVE_MOUNT, tmp.Arg(), c.empty, t.Arg(), c.empty, fromEmpty|toEmpty).OK(last)
		c.Here(done)
		c.close(m)
		c.Here(last)
		c.close(t)
		c.Here(skip)
	}
	c.close(null)
	c.close(tmp)
}
