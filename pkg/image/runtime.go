// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/rootfd"
)

// Annotations that a runtime config gets from an image config, next to the labels (image-spec, conversion.md).
const (
	AnnotationStopSignal   = "org.opencontainers.image.stopSignal"
	AnnotationExposedPorts = "org.opencontainers.image.exposedPorts" // sorted, joined by commas
	AnnotationVolumes      = "dev.ctr.image.volumes"                 // sorted JSON array of paths
)

// DefaultPath is PATH where the image has none.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// configVersion is the runtime-spec that the config asks for: nothing in it is newer, and runtimes in use refuse
// what they do not know (crun 1.8).
const configVersion = "1.0.2"

// RuntimeOptions change what the image says. The zero value changes nothing.
type RuntimeOptions struct {
	Env         []string // K=V, over the image's
	Entrypoint  []string // nil: the image's; else it replaces the image's and drops the image's Cmd
	Cmd         []string // nil: the image's
	User        string   // uid, uid:gid, name, name:group; "": the image's
	WorkingDir  string   // "": the image's
	Hostname    string   // "": none in the config
	Terminal    bool
	ReadOnly    bool // the root filesystem
	Annotations map[string]string
}

// RuntimeSpec makes a runtime config of an image config: what `docker run` without options would give the
// container. That includes no_new_privs off (su, sudo and ping work in images that have them); what such
// programs can gain is bounded by the capability set, seccomp profile and masked paths.
//
// Users and groups are looked up in rootfs's account files, which may be hostile. With a nil rootfs only
// numeric users can be resolved. The file system is not changed.
func RuntimeSpec(c *Config, rootfs *rootfd.Root, o RuntimeOptions) (*specs.Spec, error) {
	ic := c.Image.Config
	who := o.User
	if who == "" {
		who = ic.User
	}
	acc, err := resolveUser(who, rootfs)
	if err != nil {
		return nil, err
	}
	env, err := environment(ic.Env, o, acc.home)
	if err != nil {
		return nil, err
	}
	args := slices.Concat(ic.Entrypoint, ic.Cmd)
	switch {
	case o.Entrypoint != nil:
		args = slices.Concat(o.Entrypoint, o.Cmd)
	case o.Cmd != nil:
		args = slices.Concat(ic.Entrypoint, o.Cmd)
	}
	cwd := o.WorkingDir
	if cwd == "" {
		cwd = ic.WorkingDir
	}
	for _, s := range append([]string{cwd, o.Hostname}, args...) {
		if strings.ContainsRune(s, 0) {
			return nil, errors.New("NUL byte in the image's Entrypoint, Cmd or WorkingDir")
		}
	}
	caps := &specs.LinuxCapabilities{Bounding: DefaultCapabilities()}
	if acc.user.UID == 0 {
		// Others get theirs from execve of set-user-ID files, inside the bounding set; inheritable and
		// ambient stay empty for everybody (CVE-2022-24769).
		caps.Effective, caps.Permitted = DefaultCapabilities(), DefaultCapabilities()
	}
	spec := &specs.Spec{
		Version: configVersion,
		Process: &specs.Process{
			Terminal: o.Terminal, User: acc.user, Args: args, Env: env,
			Cwd: path.Clean("/" + cwd), Capabilities: caps,
		},
		Root:        &specs.Root{Path: "rootfs", Readonly: o.ReadOnly},
		Hostname:    o.Hostname,
		Mounts:      defaultMounts(),
		Annotations: c.annotations(),
		Linux: &specs.Linux{
			Namespaces:    namespaces(),
			Resources:     &specs.LinuxResources{Devices: deviceRules()},
			Seccomp:       DefaultSeccomp(DefaultCapabilities()),
			MaskedPaths:   maskedPaths(),
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	maps.Copy(spec.Annotations, o.Annotations)
	return spec, nil
}

// environment merges the image's variables with the caller's: the last value of a name counts, at the place of
// the first.
func environment(image []string, o RuntimeOptions, home string) ([]string, error) {
	env := []string{"PATH=" + DefaultPath}
	at := map[string]int{"PATH": 0}
	set := func(kv string) {
		k, _, _ := strings.Cut(kv, "=")
		if i, ok := at[k]; ok {
			env[i] = kv
			return
		}
		at[k] = len(env)
		env = append(env, kv)
	}
	if o.Hostname != "" {
		set("HOSTNAME=" + o.Hostname)
	}
	if o.Terminal {
		set("TERM=xterm")
	}
	for _, kv := range slices.Concat(image, o.Env) {
		if strings.ContainsRune(kv, 0) {
			return nil, fmt.Errorf("environment variable %q: NUL byte", kv)
		}
		if i := strings.IndexByte(kv, '='); i > 0 { // others name nothing
			set(kv)
		}
	}
	if i, ok := at["HOME"]; !ok || env[i] == "HOME=" {
		set("HOME=" + home)
	}
	return env, nil
}

// reserved are prefixes of annotations that change what runtimes and tools do. Labels come from whoever made
// the image and must not (CVE-2024-3154, CVE-2023-6476, CVE-2026-53488).
func reserved() []string {
	return []string{
		"dev.ctr.", "com.docker.compose.", "org.systemd.property.", "run.oci.", "org.criu.", "module.wasm.",
		"io.kubernetes.", "io.katacontainers.", "io.containers.", "io.podman.", "io.containerd.", "cdi.k8s.io/",
		"org.opencontainers.runc.", "org.opencontainers.runtime-tools",
	}
}

func (c *Config) annotations() map[string]string {
	a := map[string]string{}
	set := func(k, v string) {
		if v != "" {
			a[k] = v
		}
	}
	set("org.opencontainers.image.os", c.OS)
	set("org.opencontainers.image.architecture", c.Architecture)
	set("org.opencontainers.image.variant", c.Variant)
	set("org.opencontainers.image.os.version", c.OSVersion)
	set("org.opencontainers.image.os.features", strings.Join(c.OSFeatures, ","))
	set("org.opencontainers.image.author", c.Author)
	if c.Created != nil {
		set("org.opencontainers.image.created", c.Created.Format(time.RFC3339Nano))
	}
	set(AnnotationStopSignal, c.Image.Config.StopSignal)
	set(AnnotationExposedPorts, strings.Join(slices.Sorted(maps.Keys(c.Image.Config.ExposedPorts)), ","))
	if v := slices.Sorted(maps.Keys(c.Image.Config.Volumes)); len(v) > 0 {
		data, _ := json.Marshal(v) // strings always encode
		set(AnnotationVolumes, string(data))
	}
	for k, v := range c.Image.Config.Labels { // explicit ones win over the fields above (conversion.md)
		if k != "" && !slices.ContainsFunc(reserved(), func(p string) bool { return strings.HasPrefix(k, p) }) {
			a[k] = v
		}
	}
	return a
}

// DefaultCapabilities is Docker's set.
func DefaultCapabilities() []string {
	return []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
}

func defaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	}
}

func namespaces() []specs.LinuxNamespace {
	return []specs.LinuxNamespace{
		{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace},
		{Type: specs.UTSNamespace}, {Type: specs.MountNamespace}, {Type: specs.CgroupNamespace},
	}
}

// maskedPaths is Docker's and containerd's list, without their thermal_throttle paths, whose number depends on
// the host and not on the image.
func maskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
}

// deviceRules deny all devices and then allow to make any node, and to use the standard ones: null, zero, full,
// random, urandom, tty, ptmx and the pseudo terminals.
func deviceRules() []specs.LinuxDeviceCgroup {
	any := func(kind, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
	}
	char := func(major, minor int64) specs.LinuxDeviceCgroup {
		r := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Access: "rwm"}
		if minor >= 0 {
			r.Minor = &minor
		}
		return r
	}
	return []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		any("c", "m"), any("b", "m"),
		char(1, 3), char(1, 5), char(1, 7), char(1, 8), char(1, 9), char(5, 0), char(5, 2), char(136, -1),
	}
}
