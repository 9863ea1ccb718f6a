// SPDX-License-Identifier: Apache-2.0

// Package compile turns a config.json and facts about the host into the program that the container's init
// executes (package prog). It is pure: it looks at nothing but its arguments, so what a container will do can
// be printed and compared before anything is done.
//
// The program has two stages. The first process joins existing namespaces and clones the second, init, into
// the new ones and the cgroup, as its own sibling; it tells init's number and ends. Init mounts, waits for the
// parent where it has to, pivots, drops privileges and executes the user's program.
//
// What is made below the root filesystem is reached through descriptors that openat2(2) resolved inside it
// (RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS), never through a path that is resolved a second time.
package compile

import (
	"fmt"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/runtime/internal/prog"
)

// Facts are what the program depends on besides the configuration. Descriptors are numbers in init; -1 is none.
type Facts struct {
	ID      string
	Rootfs  string // absolute
	Report  int    // socket to the parent
	FDs     int    // how many descriptors init is given; what else is open came from our own caller
	FirstFD int    // descriptors from here on are not the user's program's
	Start   int    // listening socket for start; -1: do not wait
	Console int    // socket that gets the terminal's master
	PlainNL bool   // the terminal leaves the ends of lines as they are: its output goes to no terminal

	Joins  []Join
	Mounts []MountFact       // one for each mount of the configuration
	Links  map[string]string // destination (relative, clean) that is missing behind links -> where those lead

	Cgroups    []CgroupDir
	CgroupFD   int    // clone into it (v2)
	CgroupWait bool   // the parent moves init into its cgroups while init mounts
	CgroupTop  string // where the v2 hierarchy is mounted

	RootParent string // mount point that holds the rootfs, wanted with rootfsPropagation shared
	Overlay    *Overlay
	OldOverlay bool // the kernel has no lowerdir+

	Seccomp       []byte // struct sock_filter, nil: none
	SeccompFlags  uint
	SeccompNotify bool

	Hooks        Hooks
	NoPivot      bool
	Bare         []string // with NoPivot: where a procfs or sysfs of the host is mounted
	NoNewKeyring bool
	Rootless     bool
	LastCap      int  // highest capability of the kernel
	UserNS       bool // init will be in another user namespace than the parent
}

// A Join is a namespace to join.
type Join struct {
	Type specs.LinuxNamespaceType
	Path string
	FD   int
}

// A MountFact is what the host says about a mount's source.
type MountFact struct {
	File   bool // the source is no directory
	Inside bool // the source is to be in the root filesystem once earlier mounts are done
	Tree   int  // descriptor of the source as a detached mount, where init may not or cannot open it
}

// A CgroupDir is the container's directory in one hierarchy.
type CgroupDir struct{ Controller, Dir string }

// An Overlay is the root filesystem of annotation dev.ctr.rootfs.overlay with absolute paths.
type Overlay struct {
	Lower       []string
	Upper, Work string
	Options     []string
}

// Hooks says at which points init has to stop for hooks.
type Hooks struct{ Runtime, Container, Start bool }

// A Kind is what a message of init, 8 bytes in host byte order, is about. The upper half of a message is a
// Kind, or the errno of a failure; the lower half is its value, for a failure the number of the op. The first
// message is the exception: init's process number.
type Kind uint32

// The kinds. After all but Created init waits for 8 bytes of any content.
const (
	Created       Kind = 1<<31 | iota // init waits for start
	HookRuntime                       // time for the hooks prestart and createRuntime
	HookContainer                     // for createContainer
	HookStart                         // for startContainer
	CopyUp                            // fill the tmpfs of mount number value; a second message holds its descriptor
	Listener                          // a second message holds the seccomp listener's descriptor
	ExecFailed                        // the program was not found or could not be executed; the failure itself follows
)

// A Result is a program and what the caller may want to say about it.
type Result struct {
	Program  *prog.Program
	Waits    int      // first op of those that follow the wait for start
	Warnings []string // what the configuration asks for and cannot be had, where the specification wants no failure
}

type compiler struct {
	*prog.Program
	spec     *specs.Spec
	facts    *Facts
	warnings []string
	waits    int
	path     string // of the program, if it is not to be searched for

	privileged bool // keep user and capabilities

	root prog.Reg // the root filesystem
	dev  prog.Reg // /dev, a file system of our own; 0: none
	proc prog.Reg // the container's procfs; 0: none

	devReadonly bool // /dev is to be made read-only when all is in it

	ready  bool // init was told that the state is written and the cgroup joined
	token  prog.Scratch
	die    prog.Label
	empty  uint64 // ""
	dot    uint64 // "."
	rdonly uint64 // struct mount_attr

	howDir, howDirNoLinks, howAny uint64 // struct open_how
}

const (
	openDir  = unix.O_PATH | unix.O_CLOEXEC | unix.O_DIRECTORY
	openAny  = unix.O_PATH | unix.O_CLOEXEC
	inRoot   = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	noLinks  = unix.RESOLVE_NO_SYMLINKS
	openHow  = 24          // bytes of struct open_how
	cwdFD    = ^uint64(99) // AT_FDCWD
	attrSize = 32          // bytes of struct mount_attr
)

func newCompiler(s *specs.Spec, f *Facts) *compiler {
	c := &compiler{Program: prog.New(), spec: s, facts: f}
	c.die = c.NewLabel()
	c.root = c.Reg()
	c.token = c.Scratch(0)
	c.empty, c.dot = c.Str(""), c.Str(".")
	c.howDir = c.Words(openDir, 0, inRoot)
	c.howDirNoLinks = c.Words(openDir, 0, inRoot|noLinks)
	c.howAny = c.Words(openAny, 0, inRoot)
	c.rdonly = c.Words(unix.MOUNT_ATTR_RDONLY, 0, 0, 0)
	return c
}

// Init compiles the program of a new container.
func Init(s *specs.Spec, f *Facts) (Result, error) {
	c := newCompiler(s, f)
	c.firstStage()
	c.Do("new session", "", unix.SYS_SETSID).Ignore(syscall.EPERM)
	c.Do("clear the umask", "", unix.SYS_UMASK, 0)
	if !f.NoNewKeyring {
		const joinSessionKeyring = 1
		c.Do("join session keyring", "_ses."+f.ID, unix.SYS_KEYCTL, joinSessionKeyring, c.Str("_ses."+f.ID)).Ignore(syscall.ENOSYS, syscall.EDQUOT)
	}
	if err := c.confinement(); err != nil {
		return Result{}, err
	}
	if err := c.rootfs(); err != nil {
		return Result{}, err
	}
	if err := c.mounts(); err != nil {
		return Result{}, err
	}
	if err := c.devices(); err != nil {
		return Result{}, err
	}
	if s.Process.Terminal {
		c.console()
	}
	if c.devReadonly {
		c.setAttr("make read-only", "/dev", c.dev, 0, c.rdonly)
	}
	if f.Hooks.Runtime {
		c.sync(HookRuntime, 0)
	}
	if f.Hooks.Container {
		c.sync(HookContainer, 0)
	}
	c.names()
	c.sysctls()
	c.readonlyPaths()
	c.maskedPaths()
	if s.Root.Readonly {
		c.Do("make read-only", "/", unix.SYS_MOUNT_SETATTR, c.root.Arg(), c.empty, unix.AT_EMPTY_PATH, c.rdonly, attrSize)
	}
	c.waitReady()
	c.allCPUs()
	cwd := c.directory(s.Process.Cwd, true)
	c.pivot()
	for _, r := range [...]prog.Reg{c.root, c.dev, c.proc} { // a waiting init holds nothing it does not need
		if r != 0 {
			c.close(r)
		}
	}
	c.Do("close what is not the container's", "", unix.SYS_CLOSE_RANGE, uint64(f.FirstFD), 0xffffffff, unix.CLOSE_RANGE_CLOEXEC)
	if err := c.process(cwd); err != nil {
		return Result{}, err
	}
	return Result{c.Program, c.waits, c.warnings}, nil
}

// firstStage joins namespaces, clones init and ends.
func (c *compiler) firstStage() {
	f := c.facts
	c.Do("hide memory and descriptors", "", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, b2u(f.Rootless))
	c.closeOthers()
	c.join()
	flags := uint64(unix.CLONE_PARENT)
	own := uint64(0)
	for _, n := range c.spec.Linux.Namespaces {
		if n.Path != "" {
			continue
		}
		switch n.Type {
		case specs.CgroupNamespace: // later, inside the cgroup: it becomes the root of what init sees
		case specs.TimeNamespace:
			c.timeNamespace()
		default:
			own |= NamespaceFlag(n.Type)
		}
	}
	cgroup := uint64(0)
	if f.CgroupFD >= 0 {
		flags |= unix.CLONE_INTO_CGROUP
		cgroup = uint64(f.CgroupFD)
	}
	c.clone("create the namespaces", flags|own, cgroup)
	if own&unix.CLONE_NEWUSER != 0 {
		c.wait("wait for the id mappings")
	}
	if f.UserNS {
		// Where id 0 is not mapped init keeps the overflow id, with all capabilities in the namespace.
		c.Do("become group 0", "", unix.SYS_SETRESGID, 0, 0, 0).Ignore(syscall.EINVAL)
		c.Do("become user 0", "", unix.SYS_SETRESUID, 0, 0, 0).Ignore(syscall.EINVAL)
		c.Do("hide memory and descriptors", "", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	}
}

// closeOthers closes what our caller left open: it must neither get into a container's namespaces nor be kept
// open by an init that waits.
func (c *compiler) closeOthers() {
	c.Do("close what is not init's", "", unix.SYS_CLOSE_RANGE, uint64(c.facts.FDs), 0xffffffff, 0)
}

// clone makes a process, tells the parent its number and ends; what follows is executed by the new process.
func (c *compiler) clone(verb string, flags, cgroup uint64) {
	child := c.NewLabel()
	args := c.Words(flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, cgroup)
	pid := c.Scratch(0)
	c.Do(verb, "", unix.SYS_CLONE3, args, 88).IntoScratch(pid, 0).Zero(child)
	c.Do("tell the process number", "", unix.SYS_WRITE, uint64(c.facts.Report), pid.Addr(0), 8)
	c.Do("", "", unix.SYS_EXIT_GROUP, 0)
	c.Here(child)
}

// NamespaceFlag is the CLONE_NEW flag of a type of namespace.
func NamespaceFlag(t specs.LinuxNamespaceType) uint64 {
	switch t {
	case specs.PIDNamespace:
		return unix.CLONE_NEWPID
	case specs.NetworkNamespace:
		return unix.CLONE_NEWNET
	case specs.MountNamespace:
		return unix.CLONE_NEWNS
	case specs.IPCNamespace:
		return unix.CLONE_NEWIPC
	case specs.UTSNamespace:
		return unix.CLONE_NEWUTS
	case specs.UserNamespace:
		return unix.CLONE_NEWUSER
	case specs.CgroupNamespace:
		return unix.CLONE_NEWCGROUP
	case specs.TimeNamespace:
		return unix.CLONE_NEWTIME
	}
	return 0
}

// join joins existing namespaces. With a user namespace among them, some of the others may be joined only
// before it (they are the host's) and some only after (they are its own): what could not be joined before is
// tried again. A descriptor is closed when it has done its duty.
func (c *compiler) join() {
	var user *Join
	for i := range c.facts.Joins {
		if c.facts.Joins[i].Type == specs.UserNamespace {
			user = &c.facts.Joins[i]
		}
	}
	do := func(j *Join) prog.Ref {
		return c.Do("join "+string(j.Type)+" namespace", j.Path, unix.SYS_SETNS, uint64(j.FD), NamespaceFlag(j.Type))
	}
	others := func(first bool) {
		for i := range c.facts.Joins {
			j := &c.facts.Joins[i]
			switch {
			case j == user:
			case user == nil:
				do(j)
			case first:
				next := c.NewLabel()
				do(j).Ignore(syscall.EPERM).Err(next)
				c.Do("", "", unix.SYS_CLOSE, uint64(j.FD))
				c.Here(next)
			default:
				do(j).Ignore(syscall.EBADF)
			}
		}
	}
	others(true)
	if user != nil {
		do(user)
		others(false)
	}
}

func (c *compiler) timeNamespace() {
	c.Do("create the time namespace", "", unix.SYS_UNSHARE, unix.CLONE_NEWTIME)
	if len(c.spec.Linux.TimeOffsets) == 0 {
		return
	}
	fd := c.Reg()
	c.Do("open", "/proc/self/timens_offsets", unix.SYS_OPENAT, cwdFD, c.Str("/proc/self/timens_offsets"), unix.O_WRONLY|unix.O_CLOEXEC).Into(fd)
	var text string
	for _, clock := range [...]string{"monotonic", "boottime"} {
		if o, ok := c.spec.Linux.TimeOffsets[clock]; ok {
			text += fmt.Sprintf("%s %d %d\n", clock, o.Secs, o.Nanosecs)
		}
	}
	c.Do("set the clock offsets", strings.TrimSpace(text), unix.SYS_WRITE, fd.Arg(), c.Str(text), uint64(len(text)))
	c.close(fd)
}

// confinement applies a Linux security module's label to the coming execve.
func (c *compiler) confinement() error {
	p := c.spec.Process
	write := func(what, file, text string) {
		fd := c.Reg()
		c.Do("open", file, unix.SYS_OPENAT, cwdFD, c.Str(file), unix.O_WRONLY|unix.O_CLOEXEC).Into(fd)
		c.Do("apply "+what, text, unix.SYS_WRITE, fd.Arg(), c.Str(text), uint64(len(text)))
		c.close(fd)
	}
	if p.ApparmorProfile != "" {
		write("AppArmor profile", "/proc/thread-self/attr/apparmor/exec", "exec "+p.ApparmorProfile)
	}
	if p.SelinuxLabel != "" {
		write("SELinux label", "/proc/thread-self/attr/exec", p.SelinuxLabel)
	}
	return nil
}

// names sets host name and domain name.
func (c *compiler) names() {
	if h := c.spec.Hostname; h != "" {
		c.Do("set hostname", h, unix.SYS_SETHOSTNAME, c.Str(h), uint64(len(h)))
	}
	if d := c.spec.Domainname; d != "" {
		c.Do("set domainname", d, unix.SYS_SETDOMAINNAME, c.Str(d), uint64(len(d)))
	}
}

// wait stops until the parent writes; if the parent is gone, init ends.
func (c *compiler) wait(verb string) {
	c.Do(verb, "", unix.SYS_READ, uint64(c.facts.Report), c.token.Addr(0), 8).Ignore(syscall.EINTR).Again().Zero(c.die)
}

// waitReady waits, once, until the parent has written the state and moved init into its cgroups.
func (c *compiler) waitReady() {
	if !c.ready {
		c.ready = true
		c.wait("wait for state and cgroup")
		if c.ownNamespace(specs.CgroupNamespace) {
			c.Do("create the cgroup namespace", "", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
		}
	}
}

// sync tells the parent that it is time for something and waits until that is done.
func (c *compiler) sync(kind Kind, value uint32) {
	c.waitReady()
	c.tell(kind, value)
	c.wait("wait for the parent")
}

func (c *compiler) tell(kind Kind, value uint32) {
	c.Do("tell the parent", kind.String(), unix.SYS_WRITE, uint64(c.facts.Report), c.Words(message(kind, value)), 8)
}

func message(kind Kind, value uint32) uint64 { return uint64(kind)<<32 | uint64(value) }

// String is what the kind is called in plans.
func (k Kind) String() string {
	switch k {
	case Created:
		return "created"
	case HookRuntime:
		return "hooks createRuntime"
	case HookContainer:
		return "hooks createContainer"
	case HookStart:
		return "hooks startContainer"
	case CopyUp:
		return "copy into the tmpfs"
	case Listener:
		return "seccomp listener"
	case ExecFailed:
		return "execution failed"
	}
	return fmt.Sprintf("kind %#x", uint32(k))
}

// ownNamespace says whether the container gets a new namespace of the type.
func (c *compiler) ownNamespace(t specs.LinuxNamespaceType) bool {
	for _, n := range c.spec.Linux.Namespaces {
		if n.Type == t {
			return n.Path == ""
		}
	}
	return false
}

func (c *compiler) close(r prog.Reg) {
	c.Do("", "", unix.SYS_CLOSE, r.Arg()).IgnoreAll()
	c.Free(r)
}

func (c *compiler) open(object string, dir prog.Reg, path, how uint64) prog.Ref {
	return c.Do("open", object, unix.SYS_OPENAT2, dir.Arg(), path, how, openHow)
}

// pivot makes the root filesystem the root.
func (c *compiler) pivot() {
	if c.facts.NoPivot {
		c.hideBare()
	}
	c.Do("enter the root filesystem", "", unix.SYS_FCHDIR, c.root.Arg())
	if c.facts.NoPivot {
		c.Do("move the root filesystem to", "/", unix.SYS_MOUNT, c.dot, c.Str("/"), 0, unix.MS_MOVE)
		c.Do("change root", "", unix.SYS_CHROOT, c.dot)
	} else {
		c.Do("pivot root", "", unix.SYS_PIVOT_ROOT, c.dot, c.dot)
		c.Do("unmount the old root", "", unix.SYS_UMOUNT2, c.dot, unix.MNT_DETACH)
	}
	c.Do("enter", "/", unix.SYS_CHDIR, c.Str("/"))
	if p := c.spec.Linux.RootfsPropagation; p != "" {
		flag, recursive := propagation(p)
		at := uint64(unix.AT_EMPTY_PATH)
		if recursive {
			at |= unix.AT_RECURSIVE
		}
		if strings.HasSuffix(p, "unbindable") || strings.HasSuffix(p, "shared") {
			c.Do("make "+p, "/", unix.SYS_MOUNT_SETATTR, c.root.Arg(), c.empty, at&^unix.AT_RECURSIVE, c.Words(0, 0, flag, 0), attrSize)
		}
	}
}

// hideBare takes the host's procfs and sysfs out of the container's mount namespace. Without pivot_root they stay
// in it, out of reach; but as long as one is there that nothing covers, the kernel lets a user namespace mount a
// new one, without what the configuration masks.
func (c *compiler) hideBare() {
	for _, at := range c.facts.Bare {
		gone, next := c.NewLabel(), c.NewLabel()
		p := c.Str(at)
		c.Do("make slave", at, unix.SYS_MOUNT, 0, p, 0, unix.MS_SLAVE|unix.MS_REC).Ignore(syscall.ENOENT, syscall.EINVAL).Err(gone)
		c.Do("unmount", at, unix.SYS_UMOUNT2, p, unix.MNT_DETACH).Ignore(syscall.EINVAL, syscall.EPERM).OK(next)
		c.Do("cover", at, unix.SYS_MOUNT, c.Str("tmpfs"), p, c.Str("tmpfs"), unix.MS_RDONLY)
		c.Here(gone)
		c.Here(next)
	}
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
