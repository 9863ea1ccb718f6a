// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/image"
)

// rights patches capabilities, the seccomp profile that goes with them, and what privileged and shm_size change
// in the mounts. Arrays are replaced whole: they start from what ctr-fetch unpack writes.
func (o object) rights(s types.ServiceConfig) error {
	caps, err := capabilities(s)
	if err != nil {
		return err
	}
	if caps != nil {
		for _, set := range []string{"bounding", "effective", "permitted"} { // execve empties the latter two for other users than root
			o.set(caps, "process", "capabilities", set)
		}
		if p := image.DefaultSeccomp(caps); !s.Privileged && !slices.Contains(s.SecurityOpt, "seccomp:unconfined") &&
			len(s.CapAdd) > 0 && !reflect.DeepEqual(p, image.DefaultSeccomp(image.DefaultCapabilities())) {
			o.set(p, "linux", "seccomp")
		}
	}
	if s.Privileged {
		o.set(nil, "linux", "seccomp")
		o.set([]string{}, "linux", "maskedPaths")
		o.set([]string{}, "linux", "readonlyPaths")
		o.set([]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, "linux", "resources", "devices")
	}
	if !s.Privileged && s.ShmSize == 0 {
		return nil
	}
	config := &image.Config{Image: ocispec.Image{Config: ocispec.ImageConfig{User: "0", Cmd: []string{"any"}}}}
	spec, err := image.RuntimeSpec(config, nil, image.RuntimeOptions{})
	if err != nil {
		return err
	}
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		switch {
		case s.Privileged && (m.Type == "sysfs" || m.Type == "cgroup"):
			m.Options = slices.DeleteFunc(m.Options, func(opt string) bool { return opt == "ro" })
		case s.ShmSize != 0 && m.Destination == "/dev/shm":
			m.Options = slices.DeleteFunc(m.Options, func(opt string) bool { return strings.HasPrefix(opt, "size=") })
			m.Options = append(m.Options, "size="+strconv.FormatInt(int64(s.ShmSize), 10))
		}
	}
	o.set(spec.Mounts, "mounts")
	return nil
}

// capabilities is the sorted set that the service's processes get; nil: the default.
func capabilities(s types.ServiceConfig) ([]string, error) {
	all := allCapabilities()
	if s.Privileged {
		return all, nil
	}
	if len(s.CapAdd)+len(s.CapDrop) == 0 {
		return nil, nil
	}
	set := map[string]bool{}
	for _, c := range image.DefaultCapabilities() {
		set[c] = true
	}
	change := func(attribute string, names []string, on bool) error {
		for _, n := range names {
			c := strings.ToUpper(n)
			if c == "ALL" {
				continue
			}
			if !strings.HasPrefix(c, "CAP_") {
				c = "CAP_" + c
			}
			if !slices.Contains(all, c) {
				return fmt.Errorf("%s: found %q, want a capability's name or ALL: capabilities(7)", attribute, n)
			}
			set[c] = on
		}
		return nil
	}
	everything := func(names []string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, "ALL") })
	}
	for _, c := range all { // ALL first, single names after: cap_drop ALL with cap_add X leaves X
		switch {
		case everything(s.CapDrop):
			set[c] = false
		case everything(s.CapAdd):
			set[c] = true
		}
	}
	if err := change("cap_drop", s.CapDrop, false); err != nil {
		return nil, err
	}
	if err := change("cap_add", s.CapAdd, true); err != nil {
		return nil, err
	}
	caps := []string{}
	for c, on := range set {
		if on {
			caps = append(caps, c)
		}
	}
	sort.Strings(caps)
	return caps, nil
}

// allCapabilities are those of Linux 5.9 and later (capabilities(7)).
func allCapabilities() []string {
	return []string{
		"CAP_AUDIT_CONTROL", "CAP_AUDIT_READ", "CAP_AUDIT_WRITE", "CAP_BLOCK_SUSPEND", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
		"CAP_KILL", "CAP_LEASE", "CAP_LINUX_IMMUTABLE", "CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE", "CAP_MKNOD", "CAP_NET_ADMIN",
		"CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_RAW", "CAP_PERFMON", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP",
		"CAP_SETUID", "CAP_SYSLOG", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_CHROOT", "CAP_SYS_MODULE", "CAP_SYS_NICE",
		"CAP_SYS_PACCT", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG",
		"CAP_WAKE_ALARM",
	}
}
