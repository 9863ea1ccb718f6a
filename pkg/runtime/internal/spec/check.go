// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Check refuses what runtime-spec does not allow or this runtime cannot honour. It sees the parsed document, so
// its errors have a path but no line.
func Check(s *specs.Spec) error {
	if err := checkVersion(s.Version); err != nil {
		return err
	}
	switch {
	case s.Process == nil:
		return errors.New("process: found nothing, want an object")
	case s.Root == nil || s.Root.Path == "":
		return errors.New("root.path: found nothing, want the path of the root filesystem")
	case s.Linux == nil:
		return errors.New("linux: found nothing, want an object")
	}
	if err := CheckProcess(s.Process); err != nil {
		return fmt.Errorf("process.%w", err)
	}
	have, err := checkNamespaces(s)
	if err != nil {
		return err
	}
	for i := range s.Mounts {
		if m := &s.Mounts[i]; m.Destination == "" {
			return fmt.Errorf("mounts[%d].destination: found nothing, want a path", i)
		}
	}
	for _, d := range s.Linux.Devices {
		if err := checkDevice(d); err != nil {
			return err
		}
	}
	for key := range s.Linux.Sysctl {
		if err := checkSysctl(key, s.Linux.Sysctl[key], have); err != nil {
			return err
		}
	}
	switch s.Linux.RootfsPropagation {
	case "", "shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable":
	default:
		return fmt.Errorf("linux.rootfsPropagation: found %q, want shared, slave, private or unbindable", s.Linux.RootfsPropagation)
	}
	if strings.Contains("/"+s.Linux.CgroupsPath+"/", "/../") {
		return fmt.Errorf("linux.cgroupsPath: found %q, want a path without \"..\"", s.Linux.CgroupsPath)
	}
	switch {
	case s.Linux.IntelRdt != nil:
		return errors.New("linux.intelRdt: this runtime does not do it; want it absent")
	case len(s.Linux.NetDevices) > 0:
		return errors.New("linux.netDevices: this runtime does not do it; want it absent")
	case s.Linux.MountLabel != "":
		return errors.New("linux.mountLabel: this runtime does not do SELinux labels; want it absent")
	}
	return nil
}

func checkVersion(v string) error {
	number, _, _ := strings.Cut(v, "-")
	part := strings.Split(number, ".")
	if len(part) == 3 && part[0] == "1" {
		minor, err := strconv.Atoi(part[1])
		if err == nil && minor >= 0 && minor <= 3 {
			return nil
		}
	}
	return fmt.Errorf("ociVersion: found %q, want 1.0.0 to 1.3.x", v)
}

func checkNamespaces(s *specs.Spec) (map[specs.LinuxNamespaceType]bool, error) {
	have := make(map[specs.LinuxNamespaceType]bool, 8)
	for i, n := range s.Linux.Namespaces {
		switch n.Type {
		case specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace,
			specs.UTSNamespace, specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace:
		default:
			return nil, fmt.Errorf("linux.namespaces[%d].type: found %q, want pid, network, mount, ipc, uts, user, cgroup or time", i, n.Type)
		}
		if have[n.Type] {
			return nil, fmt.Errorf("linux.namespaces[%d].type: found %q a second time, want each type once", i, n.Type)
		}
		if n.Path != "" && n.Path[0] != '/' {
			return nil, fmt.Errorf("linux.namespaces[%d].path: found %q, want an absolute path", i, n.Path)
		}
		have[n.Type] = true
		if n.Type == specs.UserNamespace && n.Path == "" && (len(s.Linux.UIDMappings) == 0 || len(s.Linux.GIDMappings) == 0) {
			return nil, errors.New("linux.uidMappings, linux.gidMappings: found nothing, want mappings for the new user namespace")
		}
		if n.Type == specs.TimeNamespace && n.Path != "" && len(s.Linux.TimeOffsets) > 0 {
			return nil, errors.New("linux.timeOffsets: found offsets for a time namespace that is joined, want none")
		}
	}
	switch {
	case !have[specs.MountNamespace]:
		return nil, errors.New("linux.namespaces: found no mount namespace, want one")
	case s.Hostname != "" && !have[specs.UTSNamespace]:
		return nil, fmt.Errorf("hostname: found %q without a uts namespace, want one in linux.namespaces", s.Hostname)
	case s.Domainname != "" && !have[specs.UTSNamespace]:
		return nil, fmt.Errorf("domainname: found %q without a uts namespace, want one in linux.namespaces", s.Domainname)
	case !have[specs.UserNamespace] && len(s.Linux.UIDMappings)+len(s.Linux.GIDMappings) > 0:
		return nil, errors.New("linux.uidMappings: found mappings without a user namespace, want one in linux.namespaces")
	case !have[specs.TimeNamespace] && len(s.Linux.TimeOffsets) > 0:
		return nil, errors.New("linux.timeOffsets: found offsets without a time namespace, want one in linux.namespaces")
	}
	for clock := range s.Linux.TimeOffsets {
		if clock != "monotonic" && clock != "boottime" {
			return nil, fmt.Errorf("linux.timeOffsets: found %q, want monotonic or boottime", clock)
		}
	}
	return have, nil
}

// CheckProcess is Check for a process; its paths are relative to process.
func CheckProcess(p *specs.Process) error {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return errors.New("args: found nothing, want the program to execute")
	}
	if p.Cwd == "" || p.Cwd[0] != '/' {
		return fmt.Errorf("cwd: found %q, want an absolute path", p.Cwd)
	}
	for i, e := range p.Env {
		if strings.IndexByte(e, '=') < 1 {
			return fmt.Errorf("env[%d]: found %q, want NAME=VALUE", i, e)
		}
	}
	seen := make(map[string]bool, len(p.Rlimits))
	for i, l := range p.Rlimits {
		if !Rlimit(l.Type).Known() {
			return fmt.Errorf("rlimits[%d].type: found %q, want one of getrlimit(2)", i, l.Type)
		}
		if seen[l.Type] {
			return fmt.Errorf("rlimits[%d].type: found %s a second time, want each type once", i, l.Type)
		}
		if l.Soft > l.Hard {
			return fmt.Errorf("rlimits[%d]: found soft %d above hard %d, want at most that", i, l.Soft, l.Hard)
		}
		seen[l.Type] = true
	}
	return nil
}

// An Rlimit is the name of a resource limit as in getrlimit(2).
type Rlimit string

// Number is the kernel's number for the limit; -1 if there is none.
func (r Rlimit) Number() int {
	for i, name := range [...]string{"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK",
		"AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"} {
		if len(r) > 7 && r[:7] == "RLIMIT_" && string(r[7:]) == name {
			return i
		}
	}
	return -1
}

// Known says whether the kernel knows the limit.
func (r Rlimit) Known() bool { return r.Number() >= 0 }

func checkDevice(d specs.LinuxDevice) error {
	if d.Path == "" || d.Path[0] != '/' {
		return fmt.Errorf("linux.devices: path: found %q, want an absolute path", d.Path)
	}
	switch d.Type {
	case "p":
	case "c", "b", "u":
		if d.Major < 0 || d.Minor < 0 {
			return fmt.Errorf("linux.devices: %s: found %d:%d, want the numbers of a device", d.Path, d.Major, d.Minor)
		}
	default:
		return fmt.Errorf("linux.devices: %s: type: found %q, want c, b, u or p", d.Path, d.Type)
	}
	return nil
}

// checkSysctl allows what belongs to a namespace that the container has: nothing else may be written, it would
// be the host's.
func checkSysctl(key, value string, have map[specs.LinuxNamespaceType]bool) error {
	k := SysctlPath(key)
	var needs specs.LinuxNamespaceType
	switch {
	case strings.HasPrefix(k, "net/"):
		needs = specs.NetworkNamespace
	case strings.HasPrefix(k, "fs/mqueue/"):
		needs = specs.IPCNamespace
	case k == "kernel/domainname":
		needs = specs.UTSNamespace
	case k == "kernel/hostname":
		return errors.New("linux.sysctl: found kernel.hostname, want hostname to be used")
	case strings.HasPrefix(k, "user/"):
		needs = specs.UserNamespace
	default:
		for _, name := range [...]string{"msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"} {
			if k == "kernel/"+name {
				needs = specs.IPCNamespace
			}
		}
	}
	if needs == "" || strings.Contains("/"+k+"/", "/../") || strings.Contains(k, "//") || strings.ContainsAny(key, "+ \n\t") {
		return fmt.Errorf("linux.sysctl: found %q, want one that belongs to a namespace", key)
	}
	if !have[needs] {
		return fmt.Errorf("linux.sysctl: found %q without a %s namespace, want one in linux.namespaces", key, needs)
	}
	if strings.ContainsAny(value, "\n") {
		return fmt.Errorf("linux.sysctl: %s: found %q, want one line", key, value)
	}
	return nil
}

// SysctlPath is a sysctl's path below /proc/sys. As sysctl(8) has it, the separator is whichever of . and /
// comes first, and the other stands for itself turned round.
func SysctlPath(key string) string {
	i := strings.IndexAny(key, "./")
	if i < 0 || key[i] == '/' {
		return key
	}
	b := []byte(key)
	for i, c := range b {
		switch c {
		case '.':
			b[i] = '/'
		case '/':
			b[i] = '.'
		}
	}
	return string(b)
}
