// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ctr-tools/ctr/pkg/fault"
)

const root = "/sys/fs/cgroup"

// Find says where the container's cgroups are to be; it makes nothing. cgroupsPath is linux.cgroupsPath:
//
//   - absolute: below the mount point of each hierarchy, which inside a container is the container's own cgroup;
//   - relative: below the caller's own cgroup in each v1 hierarchy; on v2 beside it, because a v2 cgroup with
//     processes cannot pass controllers on;
//   - empty: as the relative path id.
//
// A path cannot climb: "..", as everywhere with an absolute path, stops at the top.
func Find(cgroupsPath, id string) (*Cgroup, error) {
	c := &Cgroup{optional: cgroupsPath == ""}
	if cgroupsPath == "" {
		cgroupsPath = id
	} else if strings.Count(cgroupsPath, ":") == 2 && cgroupsPath[0] != '/' {
		return nil, systemdForm(cgroupsPath)
	}
	inner := filepath.Clean("/" + cgroupsPath)
	if inner == "/" {
		return nil, fmt.Errorf("linux.cgroupsPath %q is the top of the hierarchy: its limits would hold for everything else, too", cgroupsPath)
	}
	if strings.ContainsAny(inner, "\n\x00") {
		return nil, fmt.Errorf("linux.cgroupsPath %q holds a control character", cgroupsPath)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		if c.optional {
			return &Cgroup{}, nil
		}
		return nil, fault.Hint(fmt.Errorf("find cgroups: %s: %w", root, err), "mount -t cgroup2 none %s", root)
	}
	own, err := readFile("/proc/self", "cgroup")
	if err != nil {
		return nil, err
	}
	l := locator{rel: cgroupsPath[0] != '/', inner: inner, pure: st.Type == unix.CGROUP2_SUPER_MAGIC}
	if l.pure {
		for line := range bytes.Lines(own) {
			if p, ok := bytes.CutPrefix(bytes.TrimSuffix(line, []byte("\n")), []byte("0::")); ok {
				p, err := l.place("", string(p))
				c.paths = []Path{p}
				return c, err
			}
		}
		return nil, errors.New("find cgroups: /proc/self/cgroup has no v2 line (0::)")
	}
	c.paths = make([]Path, 0, 16)
	for line := range bytes.Lines(own) {
		f := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(f) != 3 {
			return nil, fmt.Errorf("find cgroups: /proc/self/cgroup: line %q", line)
		}
		p, err := l.place(f[1], f[2])
		if errors.Is(err, errNotMounted) {
			if has(f[1], "devices") {
				return nil, fault.Hint(fmt.Errorf("find cgroups: the devices controller is a v1 hierarchy that is not mounted: device access could not be limited"),
					"mount -t cgroup -o %s none %s/%s", f[1], root, f[1])
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		c.paths = append(c.paths, p)
	}
	return c, nil
}

func systemdForm(path string) error {
	var st unix.Stat_t
	if unix.Lstat("/run/systemd/system", &st) != nil {
		return fault.Hint(fmt.Errorf("linux.cgroupsPath %q has the systemd form slice:prefix:name, and systemd is not running here", path),
			"use a path such as /%s in config.json", strings.ReplaceAll(path, ":", "/"))
	}
	return fault.Hint(fmt.Errorf("linux.cgroupsPath %q: systemd's cgroups are not supported yet", path),
		"use the cgroupfs driver of the engine (podman --cgroup-manager=cgroupfs; Docker: native.cgroupdriver=cgroupfs)")
}

var errNotMounted = errors.New("hierarchy is not mounted")

// A locator finds mount points; it reads mountinfo at most once.
type locator struct {
	rel    bool   // inner counts from the caller's cgroup
	inner  string // clean, absolute
	pure   bool   // v2 is mounted on root
	mounts []mount
}

// place finds the directory in one hierarchy, where the caller's cgroup is own.
func (l *locator) place(controllers, own string) (Path, error) {
	p := Path{Controller: controllers}
	switch {
	case l.pure:
		p.mount = root
	case controllers == "":
		p.mount = root + "/unified"
	default:
		p.mount = root + "/" + strings.TrimPrefix(controllers, "name=")
	}
	base := ""
	if l.rel && own != "/" {
		base = own
		if controllers == "" && l.pure {
			base = filepath.Dir(own)
		}
		base = strings.TrimSuffix(base, "/")
	}
	var st unix.Statfs_t
	ok := unix.Statfs(p.mount+base, &st) == nil
	if controllers == "" {
		ok = ok && st.Type == unix.CGROUP2_SUPER_MAGIC
	} else {
		ok = ok && st.Type == unix.CGROUP_SUPER_MAGIC
	}
	if ok {
		p.Dir = p.mount + base + l.inner
		return p, nil
	}
	// Mounted elsewhere, or, in a container without a cgroup namespace, own is the host's view of a tree of which
	// only a part is mounted.
	m, err := l.lookup(controllers)
	if err != nil {
		return p, err
	}
	p.mount = m.point
	if base != "" {
		switch {
		case m.root == "/":
		case base == m.root:
			base = ""
		case strings.HasPrefix(base, m.root+"/"):
			base = base[len(m.root):]
		default: // the parent of our own cgroup (v2), or a tree that we are not in: its top is as near as it gets
			base = ""
		}
	}
	p.Dir = p.mount + base + l.inner
	return p, nil
}

type mount struct{ root, point, typ, options string }

func (l *locator) lookup(controllers string) (mount, error) {
	if l.mounts == nil {
		b, err := readFile("/proc/self", "mountinfo")
		if err != nil {
			return mount{}, err
		}
		l.mounts = cgroupMounts(b)
	}
	for _, m := range l.mounts {
		if controllers == "" && m.typ == "cgroup2" {
			return m, nil
		}
		if controllers != "" && m.typ == "cgroup" && hasAll(m.options, controllers) {
			return m, nil
		}
	}
	return mount{}, errNotMounted
}

func hasAll(list, names string) bool {
	for n := range strings.SplitSeq(names, ",") {
		if !has(list, n) {
			return false
		}
	}
	return true
}

// cgroupMounts picks the cgroup mounts out of mountinfo, see proc_pid_mountinfo(5).
func cgroupMounts(mountinfo []byte) []mount {
	mounts := make([]mount, 0, 16)
	for line := range bytes.Lines(mountinfo) {
		front, back, ok := strings.Cut(string(line), " - ")
		f, b := strings.Fields(front), strings.Fields(back)
		if !ok || len(f) < 5 || len(b) < 3 || !strings.HasPrefix(b[0], "cgroup") {
			continue
		}
		mounts = append(mounts, mount{root: unescape(f[3]), point: unescape(f[4]), typ: b[0], options: b[len(b)-1]})
	}
	return mounts
}

// unescape undoes mountinfo's octal escapes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			b = append(b, (s[i+1]-'0')<<6|(s[i+2]-'0')<<3|(s[i+3]-'0'))
			i += 3
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}
