// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/bundle"
	"github.com/ctr-tools/ctr/pkg/fault"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/cgroup"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/compile"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/seccomp"
	"github.com/ctr-tools/ctr/pkg/runtime/internal/spec"
	"github.com/ctr-tools/ctr/pkg/strictjson"
)

// A config is a bundle's configuration and what was found out about the host for it. Close closes the
// descriptors it holds.
type config struct {
	raw    []byte
	spec   *specs.Spec
	bundle string // absolute
	facts  compile.Facts
	fds    fdTable
}

// A fdTable is the descriptors that a child will have, by their numbers there.
type fdTable struct {
	files []uintptr
	own   []int // to be closed here
}

// add gives the child a descriptor of ours and returns its number there.
func (t *fdTable) add(fd int, own bool) int {
	t.files = append(t.files, uintptr(fd))
	if own {
		t.own = append(t.own, fd)
	}
	return len(t.files) - 1
}

func (t *fdTable) close() {
	for _, fd := range t.own {
		syscall.Close(fd)
	}
	t.own = nil
}

// start fills in the standard streams and the descriptors that the user's program keeps.
func (t *fdTable) start(stdio Stdio, preserve int) error {
	t.files = make([]uintptr, 0, 16)
	for fd, f := range [...]*os.File{stdio.Stdin, stdio.Stdout, stdio.Stderr} {
		n := fd
		if f != nil {
			n = int(f.Fd())
		}
		t.files = append(t.files, uintptr(n))
	}
	for fd := 3; fd < 3+preserve; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return fault.Usagef("preserve %d descriptors: found none with number %d, want 3 to %d to be open", preserve, fd, 2+preserve)
		}
		t.files = append(t.files, uintptr(fd))
	}
	return nil
}

// readConfig reads and parses a bundle's config.json.
func readConfig(dir string) (*config, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	path := abs + "/" + bundle.ConfigFile
	raw, err := readRegular(path, bundle.MaxConfigBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Hint(fmt.Errorf("bundle %s: no config.json: %w", abs, fs.ErrNotExist),
			"make one: ctr-fetch unpack IMAGE %s, or ctr-run spec --bundle %s", abs, abs)
	}
	if err != nil {
		return nil, err
	}
	s, err := spec.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &config{raw: raw, spec: s, bundle: abs}, nil
}

// readRegular reads a regular file of at most limit bytes.
func readRegular(path string, limit int64) ([]byte, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG || st.Size > limit {
		return nil, fmt.Errorf("%s: mode %#o, %d bytes: want a regular file of at most %d bytes", path, st.Mode, st.Size, limit)
	}
	b := make([]byte, st.Size+512)
	n := 0
	for {
		m, err := syscall.Read(fd, b[n:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if m == 0 {
			return b[:n], nil
		}
		if n += m; int64(n) > limit {
			return nil, fmt.Errorf("%s: more than %d bytes", path, limit)
		}
		if n == len(b) {
			b = append(b, make([]byte, len(b))...)
		}
	}
}

// resolve makes the configuration's paths absolute and looks at the host, without changing anything: what plan
// does, too.
func (c *config) resolve(id string) error {
	s, f := c.spec, &c.facts
	f.ID = id
	f.Start, f.Console, f.CgroupFD = -1, -1, -1
	f.Rootless = os.Geteuid() != 0
	f.LastCap = lastCap()
	f.Rootfs = s.Root.Path
	if !filepath.IsAbs(f.Rootfs) {
		f.Rootfs = c.bundle + "/" + f.Rootfs
	}
	f.Rootfs = filepath.Clean(f.Rootfs)
	if f.Rootfs == "/" {
		return errors.New("root.path: found the host's root, want a directory below it")
	}
	if err := c.overlay(); err != nil {
		return err
	}
	if err := directory("root.path", f.Rootfs); err != nil {
		return err
	}
	for _, n := range s.Linux.Namespaces {
		f.UserNS = f.UserNS || n.Type == specs.UserNamespace
	}
	if p := s.Linux.RootfsPropagation; p == "shared" || p == "rshared" {
		at, err := mountPoint(f.Rootfs)
		if err != nil {
			return err
		}
		f.RootParent = at
	}
	if err := c.sources(); err != nil {
		return err
	}
	c.links()
	if len(s.Linux.MaskedPaths) > 0 {
		var st unix.Stat_t
		if err := unix.Lstat("/dev/null", &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
			return fmt.Errorf("/dev/null: mode %#o, device %#x: want the device 1:3 to mask paths with", st.Mode, st.Rdev)
		}
	}
	if p := s.Process.ApparmorProfile; p != "" && !enabled("/sys/module/apparmor/parameters/enabled") {
		return fmt.Errorf("process.apparmorProfile: found %q, but AppArmor is not enabled on this host", p)
	}
	if l := s.Process.SelinuxLabel; l != "" && !exists("/sys/fs/selinux/enforce") {
		return fmt.Errorf("process.selinuxLabel: found %q, but SELinux is not enabled on this host", l)
	}
	if s.Linux.Seccomp != nil {
		filter, err := seccomp.Compile(s.Linux.Seccomp)
		if err != nil {
			return err
		}
		f.Seccomp, f.SeccompFlags, f.SeccompNotify = filter.Prog, filter.Flags, filter.Notify
		if filter.Notify && s.Linux.Seccomp.ListenerPath == "" {
			return errors.New("linux.seccomp.listenerPath: found nothing, want a socket: the filter has SCMP_ACT_NOTIFY")
		}
	}
	if h := s.Hooks; h != nil {
		f.Hooks = compile.Hooks{
			//lint:ignore SA1019 deprecated by the specification, but callers still send it
			Runtime:   len(h.Prestart)+len(h.CreateRuntime) > 0,
			Container: len(h.CreateContainer) > 0,
			Start:     len(h.StartContainer) > 0,
		}
	}
	return nil
}

func enabled(path string) bool {
	b, err := os.ReadFile(path)
	return err == nil && len(b) > 0 && b[0] == 'Y'
}

func exists(path string) bool { return syscall.Access(path, 0) == nil }

func directory(name, path string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return fmt.Errorf("%s: %w", name, &fs.PathError{Op: "stat", Path: path, Err: err})
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return fmt.Errorf("%s: %s: found mode %#o, want a directory", name, path, st.Mode)
	}
	return nil
}

// overlay reads the annotation that describes a root filesystem of layers.
func (c *config) overlay() error {
	text, ok := c.spec.Annotations[bundle.AnnotationOverlay]
	if !ok {
		return nil
	}
	o := new(compile.Overlay)
	r := strictjson.New([]byte(text))
	r.Object(func(key string) {
		switch key {
		case "lower":
			o.Lower = r.Strings()
		case "upper":
			o.Upper = r.String()
		case "work":
			o.Work = r.String()
		case "options":
			o.Options = r.Strings()
		default:
			r.Skip()
		}
	})
	err := r.End()
	switch {
	case err != nil:
	case len(o.Lower) == 0:
		err = errors.New("lower: found nothing, want at least one directory")
	case (o.Upper == "") != (o.Work == ""):
		err = fmt.Errorf("upper, work: found %q and %q, want both or none", o.Upper, o.Work)
	}
	abs := func(name string, path *string) {
		if *path == "" || err != nil {
			return
		}
		if !filepath.IsAbs(*path) {
			*path = filepath.Join(c.bundle, *path)
		}
		err = directory(name, *path)
	}
	for i := range o.Lower {
		abs("lower", &o.Lower[i])
	}
	abs("upper", &o.Upper)
	abs("work", &o.Work)
	for _, option := range o.Options {
		if key, _, _ := strings.Cut(option, "="); strings.HasPrefix(key, "lowerdir") || key == "upperdir" || key == "workdir" {
			err = fmt.Errorf("options: found %q, want it in lower, upper or work", option)
		}
	}
	if err != nil {
		return fmt.Errorf("annotation %s: %w", bundle.AnnotationOverlay, err)
	}
	c.facts.Overlay, c.facts.OldOverlay = o, kernelBefore(6, 8)
	return nil
}

// sources looks at the sources of bind mounts, relative ones from the bundle.
func (c *config) sources() error {
	s := c.spec
	c.facts.Mounts = make([]compile.MountFact, len(s.Mounts))
	for i := range s.Mounts {
		m, fact := &s.Mounts[i], &c.facts.Mounts[i]
		fact.Tree = -1
		bind, _, _, _ := compile.IsBind(m.Options)
		if !bind {
			continue
		}
		if m.Source != "" && !filepath.IsAbs(m.Source) {
			m.Source = filepath.Join(c.bundle, m.Source)
		}
		var st syscall.Stat_t
		err := syscall.Stat(m.Source, &st)
		if err == syscall.ENOENT && strings.HasPrefix(m.Source, c.facts.Rootfs+"/") {
			fact.Inside = true // an earlier mount may bring it
			continue
		}
		if err != nil {
			return fmt.Errorf("mount %s: source: %w", m.Destination, &fs.PathError{Op: "stat", Path: m.Source, Err: err})
		}
		fact.File = st.Mode&syscall.S_IFMT != syscall.S_IFDIR
	}
	return nil
}

// mountPoint is the mount point of the file system that holds path.
func mountPoint(path string) (string, error) {
	for {
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, path, 0, 0, &st); err != nil {
			return "", &fs.PathError{Op: "statx", Path: path, Err: err}
		}
		if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 || path == "/" {
			return path, nil
		}
		path = filepath.Dir(path)
	}
}

// bareMounts finds the mount points of procfs and sysfs outside a directory.
func bareMounts(dir string) (points []string, err error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(b)) {
		// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
		mount, system, _ := strings.Cut(line, " - ")
		f := strings.Fields(mount)
		kind, _, _ := strings.Cut(system, " ")
		if len(f) < 5 || kind != "proc" && kind != "sysfs" {
			continue
		}
		if at := unescape.Replace(f[4]); !strings.HasPrefix(at+"/", dir+"/") {
			points = append(points, at)
		}
	}
	return points, nil
}

// lastCap is the highest capability of the kernel that we know, too.
func lastCap() int {
	for n := compile.Capabilities - 1; n > 0; n-- {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0); err == nil {
			return n
		}
	}
	return 0
}

// findCgroup says where the container's cgroups are to be.
func (c *config) findCgroup(id string) (*cgroup.Cgroup, error) {
	g, err := cgroup.Find(c.spec.Linux.CgroupsPath, id)
	if err != nil {
		return nil, err
	}
	for _, p := range g.Paths() {
		c.facts.Cgroups = append(c.facts.Cgroups, compile.CgroupDir{Controller: p.Controller, Dir: p.Dir})
	}
	if g.V2() {
		c.facts.CgroupTop = "/sys/fs/cgroup"
	}
	return g, nil
}

// namespaces opens the namespaces to join and checks that each one is of the type that is asked for.
func (c *config) namespaces() error {
	for _, n := range c.spec.Linux.Namespaces {
		if n.Path == "" {
			continue
		}
		fd, err := openNamespace(n)
		if err != nil {
			return err
		}
		c.facts.Joins = append(c.facts.Joins, compile.Join{Type: n.Type, Path: n.Path, FD: c.fds.add(fd, true)})
	}
	return nil
}

func openNamespace(n specs.LinuxNamespace) (int, error) {
	fd, err := syscall.Open(n.Path, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("linux.namespaces: %s: %w", n.Type, &fs.PathError{Op: "open", Path: n.Path, Err: err})
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || uint64(kind) != compile.NamespaceFlag(n.Type) {
		syscall.Close(fd)
		return -1, fmt.Errorf("linux.namespaces: %s: found no such namespace at %s, want one of this type", n.Type, n.Path)
	}
	return fd, nil
}

// home leaves one value of each variable and puts HOME into the environment where it is not there or empty, from the container's account file; callers of runc
// rely on that.
func home(p *specs.Process, lookup func() string) {
	p.Env = lastOfEach(p.Env)
	for i, e := range p.Env {
		if e == "HOME=" {
			p.Env = append(p.Env[:i], p.Env[i+1:]...)
			break
		}
		if strings.HasPrefix(e, "HOME=") {
			return
		}
	}
	dir := lookup()
	if dir == "" {
		dir = "/"
	}
	p.Env = append(p.Env[:len(p.Env):len(p.Env)], "HOME="+dir)
}

// lastOfEach leaves the last value that a variable is given: programs do not agree on which of several counts.
func lastOfEach(env []string) []string {
	seen := make(map[string]bool, len(env))
	kept := make([]string, len(env))
	n := len(kept)
	for i := len(env) - 1; i >= 0; i-- {
		name, _, _ := strings.Cut(env[i], "=")
		if !seen[name] {
			seen[name] = true
			n--
			kept[n] = env[i]
		}
	}
	return kept[n:]
}

const maxPasswdBytes = 1 << 20

// homeIn finds the home directory of a user in etc/passwd below an open root directory.
func homeIn(root int, uid uint32) (dir string, found bool) {
	fd, err := unix.Openat2(root, "etc/passwd", &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return "", false
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if syscall.Fstat(fd, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG || st.Size > maxPasswdBytes {
		return "", false
	}
	b := make([]byte, st.Size)
	n, err := syscall.Read(fd, b)
	if err != nil {
		return "", false
	}
	want := strconv.FormatUint(uint64(uid), 10)
	for line := range strings.Lines(string(b[:n])) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) >= 6 && f[2] == want && strings.HasPrefix(f[5], "/") && strings.IndexFunc(f[5], control) < 0 {
			return f[5], true
		}
	}
	return "", true
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

// homeOnHost is homeIn for a root filesystem that is not mounted yet: the topmost layer with accounts counts.
func (c *config) homeOnHost(uid uint32) string {
	for _, dir := range c.layers() {
		fd, err := syscall.Open(dir, unix.O_PATH|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		home, found := homeIn(fd, uid)
		syscall.Close(fd)
		if found {
			return home
		}
	}
	return ""
}

// kernelBefore compares the running kernel's release; one that cannot be read counts as new.
func kernelBefore(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	release := unix.ByteSliceToString(u.Release[:])
	a, rest, _ := strings.Cut(release, ".")
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	x, err1 := strconv.Atoi(a)
	y, err2 := strconv.Atoi(rest[:end])
	return err1 == nil && err2 == nil && (x < major || x == major && y < minor)
}
