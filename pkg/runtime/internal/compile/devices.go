// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"path"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/runtime/internal/prog"
)

// standardDevices are those that every container has (runtime-spec, "Default Devices").
var standardDevices = [...]struct {
	name         string
	major, minor uint32
}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}

// links are what stands in every /dev (runtime-spec, "Dev symbolic links").
var links = [...][2]string{
	{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
	{"ptmx", "pts/ptmx"}, {"core", "/proc/kcore"},
}

// devices makes /dev what a program expects. Where the host's /dev was bound, it is left as it is.
func (c *compiler) devices() error {
	own := c.dev != 0
	if !own {
		for i := range c.spec.Mounts {
			if m := &c.spec.Mounts[i]; clean(m.Destination) == "dev" {
				return nil
			}
		}
		c.dev = c.realDirectory("/dev")
	}
	listed := map[string]bool{}
	for _, d := range c.spec.Linux.Devices {
		listed[clean(d.Path)] = true
	}
	for _, d := range standardDevices {
		if !listed["dev/"+d.name] {
			c.node("/dev/"+d.name, c.dev, d.name, unix.S_IFCHR|0o666, unix.Mkdev(d.major, d.minor), 0, 0)
		}
	}
	for _, d := range c.spec.Linux.Devices {
		c.device(d)
	}
	for _, l := range links {
		if l[0] == "ptmx" && !c.hasMount("dev/pts") {
			continue
		}
		c.Do("make link", "/dev/"+l[0], unix.SYS_SYMLINKAT, c.Str(l[1]), c.dev.Arg(), c.Str(l[0])).Ignore(syscall.EEXIST)
	}
	return nil
}

func (c *compiler) hasMount(name string) bool {
	for i := range c.spec.Mounts {
		if clean(c.spec.Mounts[i].Destination) == name {
			return true
		}
	}
	return false
}

// device makes a node that the configuration asks for.
func (c *compiler) device(d specs.LinuxDevice) {
	mode := uint32(0o666)
	if d.FileMode != nil {
		mode = uint32(*d.FileMode) & 0o7777
	}
	switch d.Type {
	case "b":
		mode |= unix.S_IFBLK
	case "p":
		mode |= unix.S_IFIFO
	default:
		mode |= unix.S_IFCHR
	}
	number := uint64(0)
	if d.Type != "p" {
		number = unix.Mkdev(uint32(d.Major), uint32(d.Minor))
	}
	var uid, gid uint32
	if d.UID != nil {
		uid = *d.UID
	}
	if d.GID != nil {
		gid = *d.GID
	}
	name := clean(d.Path)
	if child, ok := c.inDev(name); ok {
		c.node(d.Path, c.dev, child, mode, number, uid, gid)
		return
	}
	dir := c.directory("/"+path.Dir(name), true)
	c.node(d.Path, dir, path.Base(name), mode, number, uid, gid)
	c.close(dir)
}

// node makes one node in an open directory. In a user namespace nobody may make devices: there the host's is
// bound.
func (c *compiler) node(object string, dir prog.Reg, name string, mode uint32, number uint64, uid, gid uint32) {
	n := c.Str(name)
	if c.facts.UserNS && mode&unix.S_IFMT != unix.S_IFIFO {
		m, t := c.Reg(), c.Reg()
		c.Do("make file", object, unix.SYS_MKNODAT, dir.Arg(), n, unix.S_IFREG|0o666, 0).Ignore(syscall.EEXIST)
		c.open(object, dir, n, c.Words(openAny|unix.O_NOFOLLOW, 0, inRoot)).Into(t)
		c.Do("bind", object, unix.SYS_OPEN_TREE, cwdFD, c.Str(object), treeClone).Into(m)
		c.attach(object, m, t)
		c.close(m)
		return
	}
	ref := c.Do("make device", object, unix.SYS_MKNODAT, dir.Arg(), n, uint64(mode), number)
	if uid|gid == 0 {
		ref.Ignore(syscall.EEXIST)
		return
	}
	have := c.NewLabel()
	ref.Ignore(syscall.EEXIST).Err(have)
	c.Do("change the owner of", object, unix.SYS_FCHOWNAT, dir.Arg(), n, uint64(uid), uint64(gid), unix.AT_SYMLINK_NOFOLLOW)
	c.Here(have)
}

// sysctls writes kernel parameters through the container's own procfs, by descriptor and without crossing into
// a mount: nothing that the configuration or the image put below /proc can catch the write.
func (c *compiler) sysctls() {
	list := c.spec.Linux.Sysctl
	if len(list) == 0 {
		return
	}
	proc := c.proc
	if proc == 0 {
		proc = c.fileSystem("proc", "proc", "a private place", 0, nil)
	}
	how := c.Words(unix.O_WRONLY|unix.O_CLOEXEC, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV)
	for _, key := range sortedKeys(list) {
		value := list[key]
		fd := c.Reg()
		c.open("sysctl "+key, proc, c.Str("sys/"+sysctlPath(key)), how).Into(fd)
		c.Do("set sysctl", key+"="+value, unix.SYS_WRITE, fd.Arg(), c.Str(value), uint64(len(value)))
		c.close(fd)
	}
	if c.proc == 0 {
		c.close(proc)
	}
}

// console makes a terminal in the container's devpts, sends its master away, and makes the slave the standard
// streams and /dev/console. The slave is bound from its descriptor: a name in the container could be a link.
func (c *compiler) console() {
	ptmx, slave := c.Reg(), c.Reg()
	how := c.Words(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0, inRoot|noLinks)
	c.open("/dev/pts/ptmx", c.root, c.Str("dev/pts/ptmx"), how).Into(ptmx)
	c.Do("unlock the terminal", "", unix.SYS_IOCTL, ptmx.Arg(), unix.TIOCSPTLCK, c.Words(0))
	c.Do("open the terminal's slave", "", unix.SYS_IOCTL, ptmx.Arg(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC).Into(slave)
	if s := c.spec.Process.ConsoleSize; s != nil && s.Height > 0 && s.Width > 0 {
		c.Do("set the terminal's size", "", unix.SYS_IOCTL, ptmx.Arg(), unix.TIOCSWINSZ, c.Words(uint64(s.Height)|uint64(s.Width)<<16))
	}
	if c.facts.PlainNL {
		// struct termios as a new terminal has it, control characters included, but for ONLCR: "\n" does not
		// become "\r\n".
		const iflag, oflag = unix.ICRNL | unix.IXON, unix.OPOST
		const cflag = unix.B38400 | unix.CS8 | unix.CREAD
		const lflag = unix.ISIG | unix.ICANON | unix.ECHO | unix.ECHOE | unix.ECHOK | unix.ECHOCTL | unix.ECHOKE | unix.IEXTEN
		c.Do("leave line ends as they are", "", unix.SYS_IOCTL, slave.Arg(), unix.TCSETS, c.Words(iflag|oflag<<32, cflag|lflag<<32,
			0x0100_0415_7f1c_0300, 0x170f_1200_1a13_1100, 0x16))
	}
	// struct msghdr with a control message of one descriptor, which the call itself stores there.
	control := c.Scratch(20, unix.SOL_SOCKET|unix.SCM_RIGHTS<<32, 0)
	text := c.Str("/dev/pts/ptmx")
	vector := c.Words(text, uint64(len("/dev/pts/ptmx")))
	header := c.Words(0, 0, vector, 1, control.Addr(0), 24, 0)
	c.Do("", "", unix.SYS_FCNTL, ptmx.Arg(), unix.F_DUPFD_CLOEXEC, 0).IntoScratch(control, 2)
	c.Do("send the terminal to", "the console socket", unix.SYS_SENDMSG, uint64(c.facts.Console), header, 0)
	c.Do("", "", unix.SYS_CLOSE, control.Arg(2)).IgnoreAll()
	c.Do("take the terminal", "", unix.SYS_IOCTL, slave.Arg(), unix.TIOCSCTTY, 0)
	if uid := c.spec.Process.User.UID; uid != 0 {
		c.Do("give the terminal to the user", "", unix.SYS_FCHOWN, slave.Arg(), uint64(uid), ^uint64(0)).Ignore(syscall.EINVAL)
	}
	for fd := range uint64(3) {
		c.Do("make the terminal a standard stream", "", unix.SYS_DUP3, slave.Arg(), fd, 0)
	}
	if c.dev != 0 {
		m, t := c.Reg(), c.Reg()
		n := c.Str("console")
		c.Do("make file", "/dev/console", unix.SYS_MKNODAT, c.dev.Arg(), n, unix.S_IFREG|0o600, 0).Ignore(syscall.EEXIST)
		c.open("/dev/console", c.dev, n, c.Words(openAny|unix.O_NOFOLLOW, 0, inRoot|noLinks)).Into(t)
		c.Do("bind", "/dev/console", unix.SYS_OPEN_TREE, slave.Arg(), c.empty, unix.AT_EMPTY_PATH|treeClone).Into(m)
		c.attach("/dev/console", m, t)
		c.close(m)
	}
	c.close(ptmx)
	c.close(slave)
}
