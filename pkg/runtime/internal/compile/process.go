// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"encoding/binary"
	"fmt"
	"sort"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/runtime/internal/prog"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/spec"
)

// DefaultPath is searched for programs where the environment has no PATH.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// An Exec says what else is known when a process joins a container.
type Exec struct {
	PidFD      int    // of the container's init
	Root       int    // of init's root directory, -1: the root of its mount namespace
	Namespaces uint64 // CLONE_NEW flags to join
	CPUs       []byte // affinity mask, nil: leave it
	Program    string // path to execute in place of the first argument; empty: search for that
	Privileged bool   // keep user and capabilities: a hook that prepares the container
}

// Process compiles the program of a process that joins a container: exec, and hooks that run in it.
func Process(s *specs.Spec, f *Facts, e Exec) (Result, error) {
	c := newCompiler(s, f)
	c.Do("hide memory and descriptors", "", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	c.closeOthers()
	c.Do("join the container", f.ID, unix.SYS_SETNS, uint64(e.PidFD), e.Namespaces)
	if e.Root >= 0 {
		// Joining a mount namespace leads to that one's root, which pivot_root inside a chroot has not changed.
		c.Do("enter the container's root", "", unix.SYS_FCHDIR, uint64(e.Root))
		c.Do("change root", "", unix.SYS_CHROOT, c.dot)
	}
	flags, cgroup := uint64(unix.CLONE_PARENT), uint64(0)
	if f.CgroupFD >= 0 {
		flags |= unix.CLONE_INTO_CGROUP
		cgroup = uint64(f.CgroupFD)
	}
	c.clone("create the process", flags, cgroup)
	c.Do("new session", "", unix.SYS_SETSID).Ignore(syscall.EPERM)
	if f.UserNS {
		c.Do("become group 0", "", unix.SYS_SETRESGID, 0, 0, 0).Ignore(syscall.EINVAL)
		c.Do("become user 0", "", unix.SYS_SETRESUID, 0, 0, 0).Ignore(syscall.EINVAL)
		c.Do("hide memory and descriptors", "", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	}
	if err := c.confinement(); err != nil {
		return Result{}, err
	}
	c.Do("open", "the root filesystem", unix.SYS_OPENAT, cwdFD, c.Str("/"), openDir).Into(c.root)
	if s.Process.Terminal {
		c.console()
	}
	cwd := c.directory(s.Process.Cwd, false)
	c.waitReadyExec()
	if len(e.CPUs) > 0 {
		c.Do("set the CPU affinity", "", unix.SYS_SCHED_SETAFFINITY, 0, uint64(len(e.CPUs)), c.Bytes(e.CPUs))
	} else if e.Program == "" {
		c.allCPUs()
	}
	c.Do("close what is not the container's", "", unix.SYS_CLOSE_RANGE, uint64(f.FirstFD), 0xffffffff, unix.CLOSE_RANGE_CLOEXEC)
	c.path, c.privileged = e.Program, e.Privileged
	if err := c.process(cwd); err != nil {
		return Result{}, err
	}
	return Result{c.Program, c.waits, c.warnings}, nil
}

// allCPUs gives the process all CPUs that its cgroup has: it does not inherit what ours is bound to.
func (c *compiler) allCPUs() {
	mask := make([]byte, 1024) // NR_CPUS is at most 8192
	for i := range mask {
		mask[i] = 0xff
	}
	c.Do("allow all CPUs of the cgroup", "", unix.SYS_SCHED_SETAFFINITY, 0, uint64(len(mask)), c.Bytes(mask)).Ignore(syscall.EINVAL, syscall.EPERM)
}

func (c *compiler) waitReadyExec() {
	c.ready = true
	c.wait("wait for the cgroup")
}

// process drops privileges and executes the user's program.
//
// Without no_new_privs a filter can be loaded only with CAP_SYS_ADMIN, so it goes in before privileges are
// dropped, and then waiting for start comes before that: the filter may forbid what waiting needs.
func (c *compiler) process(cwd prog.Reg) error {
	p := c.spec.Process
	for _, r := range p.Rlimits {
		c.Do("set "+r.Type, fmt.Sprintf("soft %d, hard %d", r.Soft, r.Hard), unix.SYS_PRLIMIT64, 0, uint64(spec.Rlimit(r.Type).Number()), c.Words(r.Soft, r.Hard), 0)
	}
	if err := c.scheduling(); err != nil {
		return err
	}
	c.Do("enter", p.Cwd, unix.SYS_FCHDIR, cwd.Arg())
	c.close(cwd)
	umask := uint32(0o22)
	if p.User.Umask != nil {
		umask = *p.User.Umask
	}
	c.Do("set the umask", fmt.Sprintf("%04o", umask), unix.SYS_UMASK, uint64(umask))
	candidates := []string{c.path}
	if c.path == "" {
		candidates, _ = Candidates(p)
	}
	if p.NoNewPrivileges {
		c.Do("allow no new privileges", "", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		c.credentials()
		c.find(candidates)
		c.awaitStart()
		c.seccomp()
	} else {
		c.find(candidates)
		c.awaitStart()
		c.seccomp()
		c.credentials()
	}
	c.execute(candidates)
	return nil
}

// Candidates are the paths that a process's program may have, and the PATH that was searched, if one was.
func Candidates(p *specs.Process) (paths []string, searched string) {
	name := p.Args[0]
	if strings.Contains(name, "/") {
		return []string{name}, ""
	}
	search := DefaultPath
	for _, e := range p.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	for _, dir := range strings.Split(search, ":") {
		if dir == "" || dir[0] != '/' {
			continue // the working directory is no place to look for programs
		}
		paths = append(paths, dir+"/"+name)
	}
	if len(paths) == 0 {
		paths = []string{"/" + name}
	}
	return paths, search
}

// find fails if none of the candidates can be executed: create has to say so, not start.
func (c *compiler) find(candidates []string) {
	found := c.NewLabel()
	for _, path := range candidates {
		c.Do("find", path, unix.SYS_FACCESSAT2, cwdFD, c.Str(path), unix.X_OK, unix.AT_EACCESS).IgnoreAll().OK(found)
	}
	c.failed(candidates)
	c.Here(found)
}

// failed lets the parent look for the reason while the container's files can still be seen, then reports.
func (c *compiler) failed(candidates []string) {
	c.tell(ExecFailed, 0)
	c.Do("", "", unix.SYS_READ, uint64(c.facts.Report), c.token.Addr(0), 8).IgnoreAll()
	what := c.spec.Process.Args[0]
	for i, path := range candidates {
		ref := c.Do("execute", what, unix.SYS_FACCESSAT2, cwdFD, c.Str(path), unix.X_OK, unix.AT_EACCESS)
		if i < len(candidates)-1 {
			ref.Ignore(syscall.ENOENT, syscall.ENOTDIR)
		}
	}
	c.Do("", "", unix.SYS_EXIT_GROUP, 127)
}

// awaitStart tells that the container is created and waits for somebody to connect and write: from then on that
// is the parent. Somebody who connects and says nothing is forgotten.
func (c *compiler) awaitStart() {
	f := c.facts
	if f.Start >= 0 {
		conn := c.Reg()
		c.waits = c.Len()
		c.tell(Created, 0)
		again := c.NewLabel()
		next := c.NewLabel()
		started := c.NewLabel()
		c.Here(again)
		c.Do("wait for start", "", unix.SYS_ACCEPT4, uint64(f.Start), 0, 0, unix.SOCK_CLOEXEC).Into(conn).Ignore(syscall.EINTR, syscall.ECONNABORTED).Again()
		c.Do("wait for the word", "", unix.SYS_READ, conn.Arg(), c.token.Addr(0), 8).Ignore(syscall.EINTR, syscall.ECONNRESET).Err(next).Zero(next)
		c.Do("", "", unix.SYS_DUP3, conn.Arg(), uint64(f.Report), unix.O_CLOEXEC).OK(started)
		c.Here(next)
		c.Do("", "", unix.SYS_CLOSE, conn.Arg()).OK(again)
		c.Here(started)
		c.close(conn)
		c.Do("", "", unix.SYS_CLOSE, uint64(f.Start)).IgnoreAll()
	}
	if f.Hooks.Start {
		c.sync(HookStart, 0)
	}
}

// seccomp loads the filter. It goes in after everything that it may forbid.
func (c *compiler) seccomp() {
	f := c.facts
	if f.Seccomp == nil {
		return
	}
	const setModeFilter = 1
	filter := c.Words(uint64(len(f.Seccomp)/8), c.Bytes(f.Seccomp))
	listener := c.Scratch(0)
	c.Do("load the seccomp filter", "", unix.SYS_SECCOMP, setModeFilter, uint64(f.SeccompFlags), filter).IntoScratch(listener, 0)
	if f.SeccompNotify {
		c.tell(Listener, 0)
		c.Do("tell the parent", "the listener", unix.SYS_WRITE, uint64(f.Report), listener.Addr(0), 8)
		c.wait("wait for the parent")
		c.Do("", "", unix.SYS_CLOSE, listener.Arg(0)).IgnoreAll()
	}
}

// credentials sets users, groups and capabilities.
func (c *compiler) credentials() {
	if c.privileged {
		return
	}
	p := c.spec.Process
	u := &p.User
	caps := c.capabilities()
	for n := 0; n <= c.facts.LastCap; n++ {
		if caps.bounding&(1<<n) == 0 {
			c.Do("drop from the bounding set", CapName(n), unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uint64(n), 0, 0, 0)
		}
	}
	if u.UID != 0 {
		c.Do("keep capabilities", "", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	}
	gids := make([]byte, 0, 4*len(u.AdditionalGids))
	for _, g := range u.AdditionalGids {
		gids = binary.NativeEndian.AppendUint32(gids, g)
	}
	groups := c.Do("set groups", "", unix.SYS_SETGROUPS, uint64(len(u.AdditionalGids)), c.Bytes(gids))
	if c.facts.UserNS && len(u.AdditionalGids) == 0 {
		groups.Ignore(syscall.EPERM) // /proc/PID/setgroups says deny
	}
	c.Do("become group", fmt.Sprint(u.GID), unix.SYS_SETRESGID, uint64(u.GID), uint64(u.GID), uint64(u.GID))
	c.Do("become user", fmt.Sprint(u.UID), unix.SYS_SETRESUID, uint64(u.UID), uint64(u.UID), uint64(u.UID))
	low := func(v uint64) uint64 { return v & 0xffffffff }
	// struct __user_cap_data_struct twice: effective, permitted, inheritable of the lower and the upper half.
	const version3 = 0x20080522
	c.Do("set capabilities", "", unix.SYS_CAPSET, c.Words(version3), c.Words(
		low(caps.effective)|low(caps.permitted)<<32,
		low(caps.inheritable)|caps.effective>>32<<32,
		caps.permitted>>32|caps.inheritable>>32<<32))
	c.Do("clear the ambient set", "", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	for n := 0; n <= c.facts.LastCap; n++ {
		if caps.ambient&(1<<n) != 0 {
			c.Do("make ambient", CapName(n), unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uint64(n), 0, 0).Ignore(syscall.EPERM)
		}
	}
	// A change of user made memory and descriptors hidden or not as the system likes; until execve they are.
	c.Do("hide memory and descriptors", "", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
}

// execute becomes the user's program.
func (c *compiler) execute(candidates []string) {
	p := c.spec.Process
	argv, envp := c.Pointers(p.Args), c.Pointers(p.Env)
	for _, path := range candidates {
		c.Do("execute", path, unix.SYS_EXECVE, c.Str(path), argv, envp).IgnoreAll()
	}
	c.tell(ExecFailed, 0)
	c.Do("", "", unix.SYS_READ, uint64(c.facts.Report), c.token.Addr(0), 8).IgnoreAll()
	for i, path := range candidates {
		ref := c.Do("execute", p.Args[0], unix.SYS_EXECVE, c.Str(path), argv, envp)
		if i < len(candidates)-1 {
			ref.Ignore(syscall.ENOENT, syscall.ENOTDIR)
		}
	}
	c.Here(c.die)
	c.Do("", "", unix.SYS_EXIT_GROUP, 127)
}

// scheduling sets scheduler, I/O priority, memory policy and personality.
func (c *compiler) scheduling() error {
	p, l := c.spec.Process, c.spec.Linux
	if s := p.Scheduler; s != nil {
		policy := map[specs.LinuxSchedulerPolicy]uint64{specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2,
			specs.SchedBatch: 3, specs.SchedISO: 4, specs.SchedIdle: 5, specs.SchedDeadline: 6}
		n, ok := policy[s.Policy]
		if !ok {
			return fmt.Errorf("process.scheduler.policy: found %q, want one of sched_setattr(2)", s.Policy)
		}
		flags := uint64(0)
		for _, f := range s.Flags {
			bit, ok := map[specs.LinuxSchedulerFlag]uint64{specs.SchedFlagResetOnFork: 1, specs.SchedFlagReclaim: 2,
				specs.SchedFlagDLOverrun: 4, specs.SchedFlagKeepPolicy: 8, specs.SchedFlagKeepParams: 0x10,
				specs.SchedFlagUtilClampMin: 0x20, specs.SchedFlagUtilClampMax: 0x40}[f]
			if !ok {
				return fmt.Errorf("process.scheduler.flags: found %q, want one of sched_setattr(2)", f)
			}
			flags |= bit
		}
		attr := c.Words(48|n<<32, flags, uint64(uint32(s.Nice))|uint64(uint32(s.Priority))<<32, s.Runtime, s.Deadline, s.Period)
		c.Do("set the scheduler", string(s.Policy), unix.SYS_SCHED_SETATTR, 0, attr, 0)
	}
	if i := p.IOPriority; i != nil {
		class, ok := map[specs.IOPriorityClass]uint64{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}[i.Class]
		if !ok {
			return fmt.Errorf("process.ioPriority.class: found %q, want IOPRIO_CLASS_RT, _BE or _IDLE", i.Class)
		}
		c.Do("set the I/O priority", string(i.Class), unix.SYS_IOPRIO_SET, 1, 0, class<<13|uint64(i.Priority))
	}
	if m := l.MemoryPolicy; m != nil {
		if err := c.memoryPolicy(m); err != nil {
			return err
		}
	}
	if l.Personality != nil {
		domain := uint64(0)
		switch l.Personality.Domain {
		case specs.PerLinux:
		case specs.PerLinux32:
			domain = 8
		default:
			return fmt.Errorf("linux.personality.domain: found %q, want LINUX or LINUX32", l.Personality.Domain)
		}
		if len(l.Personality.Flags) > 0 {
			return fmt.Errorf("linux.personality.flags: found %q, want none", l.Personality.Flags)
		}
		c.Do("set the personality", string(l.Personality.Domain), unix.SYS_PERSONALITY, domain)
	}
	return nil
}

func (c *compiler) memoryPolicy(m *specs.LinuxMemoryPolicy) error {
	modes := map[specs.MemoryPolicyModeType]uint64{"MPOL_DEFAULT": 0, "MPOL_PREFERRED": 1, "MPOL_BIND": 2, "MPOL_INTERLEAVE": 3,
		"MPOL_LOCAL": 4, "MPOL_PREFERRED_MANY": 5, "MPOL_WEIGHTED_INTERLEAVE": 6}
	mode, ok := modes[m.Mode]
	if !ok {
		return fmt.Errorf("linux.memoryPolicy.mode: found %q, want one of set_mempolicy(2)", m.Mode)
	}
	for _, f := range m.Flags {
		bit, ok := map[specs.MemoryPolicyFlagType]uint64{"MPOL_F_NUMA_BALANCING": 1 << 13, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_STATIC_NODES": 1 << 15}[f]
		if !ok {
			return fmt.Errorf("linux.memoryPolicy.flags: found %q, want one of set_mempolicy(2)", f)
		}
		mode |= bit
	}
	mask, err := CPUMask(m.Nodes)
	if err != nil {
		return fmt.Errorf("linux.memoryPolicy.nodes: %w", err)
	}
	if len(mask) == 0 {
		c.Do("set the memory policy", string(m.Mode), unix.SYS_SET_MEMPOLICY, mode, 0, 0)
		return nil
	}
	c.Do("set the memory policy", string(m.Mode), unix.SYS_SET_MEMPOLICY, mode, c.Bytes(mask), uint64(8*len(mask)+1))
	return nil
}

// CPUMask turns a list such as "0-3,7" into a mask whose length is a multiple of 8.
func CPUMask(list string) ([]byte, error) {
	var mask []byte
	for _, item := range strings.Split(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		low, high, isRange := strings.Cut(item, "-")
		if !isRange {
			high = low
		}
		a, okA := small(low)
		b, okB := small(high)
		if !okA || !okB || a > b {
			return nil, fmt.Errorf("found %q, want a list such as 0-3,7 of numbers below 8192", list)
		}
		for len(mask)*8 <= b {
			mask = append(mask, make([]byte, 8)...)
		}
		for ; a <= b; a++ {
			mask[a/8] |= 1 << (a % 8)
		}
	}
	return mask, nil
}

func small(s string) (int, bool) {
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' || n > 8191 {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, s != "" && n < 8192
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func sysctlPath(key string) string { return spec.SysctlPath(key) }
