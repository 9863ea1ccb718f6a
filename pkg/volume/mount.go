// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"encoding/csv"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ctr-tools/ctr/pkg/fault"
)

// Types of mounts.
const (
	TypeVolume = "volume"
	TypeBind   = "bind"
	TypeTmpfs  = "tmpfs"
)

// A Mount is one mount of a bundle, as asked for.
type Mount struct {
	Type        string   `json:"type"`
	Source      string   `json:"source,omitempty"`  // volume name or absolute path; none for tmpfs
	Destination string   `json:"destination"`       // absolute, in the container
	Subpath     string   `json:"subpath,omitempty"` // directory in the volume
	Options     []string `json:"options,omitempty"` // of the mount, as in runtime-spec
	NoCopy      bool     `json:"noCopy,omitempty"`  // an empty volume stays empty
	Create      bool     `json:"create,omitempty"`  // a missing bind source is made, the caller's
	Path        string   `json:"path,omitempty"`    // what the runtime mounts; set by Attach

	anonymous bool
}

// propagation options; the default is rprivate.
var propagation = []string{"shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable"}

// flags are options that the runtime gets as they are, in groups of which the last one counts.
var flags = [][]string{
	{"rw", "ro", "rro"}, {"bind", "rbind"}, propagation, {"exec", "noexec"}, {"suid", "nosuid"}, {"dev", "nodev"},
	{"atime", "noatime", "relatime", "strictatime"}, {"diratime", "nodiratime"}, {"sync", "async"}, {"nosymfollow", "symfollow"},
}

// ignored options mean something to systems that this host is none of, or nothing at all.
var ignored = []string{"z", "Z", "cached", "delegated", "consistent", "copy", ""}

// ParseShort reads SOURCE:DESTINATION[:OPTIONS] or DESTINATION. A source with a slash is a bind, else a volume;
// a destination alone is an anonymous volume.
func ParseShort(s string) (Mount, error) {
	bad := func(err error) (Mount, error) {
		return Mount{}, fault.Hint(fault.Usagef("mount %q: %w", s, err), "the form is SOURCE:DESTINATION[:OPTIONS], as in data:/var/lib/data:ro")
	}
	parts := strings.SplitN(s, ":", 3)
	m := Mount{Type: TypeVolume}
	opts := ""
	switch {
	case len(parts) == 1:
		m.Destination = parts[0]
	default:
		m.Source, m.Destination = parts[0], parts[1]
		if m.Source == "" {
			return bad(fmt.Errorf("source: found none"))
		}
		if len(parts) == 3 {
			opts = parts[2]
		}
	}
	if strings.Contains(m.Source, "/") || m.Source == "." || m.Source == ".." {
		m.Type = TypeBind
	}
	for _, o := range strings.Split(opts, ",") {
		if err := m.option(o); err != nil {
			return bad(err)
		}
	}
	if err := m.complete(); err != nil {
		return bad(err)
	}
	return m, nil
}

// ParseTmpfs reads DESTINATION[:OPTIONS].
func ParseTmpfs(s string) (Mount, error) {
	dst, opts, _ := strings.Cut(s, ":")
	m := Mount{Type: TypeTmpfs, Destination: dst}
	for _, o := range strings.Split(opts, ",") {
		if err := m.option(o); err != nil {
			return m, fault.Usagef("tmpfs %q: %w", s, err)
		}
	}
	if err := m.complete(); err != nil {
		return m, fault.Usagef("tmpfs %q: %w", s, err)
	}
	return m, nil
}

// ParseLong reads type=…,src=…,dst=…, comma separated values with CSV's quotes.
func ParseLong(s string) (Mount, error) {
	bad := func(err error) (Mount, error) {
		return Mount{}, fault.Hint(fault.Usagef("--mount %q: %w", s, err), "as in type=volume,src=data,dst=/var/lib/data,readonly")
	}
	r := csv.NewReader(strings.NewReader(s))
	fields, err := r.Read()
	if err != nil {
		return bad(err)
	}
	m := Mount{Type: TypeVolume}
	for _, f := range fields {
		k, v, has := strings.Cut(f, "=")
		k = strings.ToLower(strings.TrimSpace(k))
		switch k {
		case "type":
			if !slices.Contains([]string{TypeVolume, TypeBind, TypeTmpfs}, v) {
				return bad(fmt.Errorf("type: found %q, want %s, %s or %s", v, TypeVolume, TypeBind, TypeTmpfs))
			}
			m.Type = v
		case "src", "source":
			m.Source = v
		case "dst", "destination", "target":
			m.Destination = v
		case "subpath", "volume-subpath":
			m.Subpath = v
		}
		if slices.Contains([]string{"type", "src", "source", "dst", "destination", "target", "subpath", "volume-subpath"}, k) {
			continue
		}
		if err := m.long(k, v, has); err != nil {
			return bad(err)
		}
	}
	if err := m.complete(); err != nil {
		return bad(err)
	}
	return m, nil
}

// long sets one field of the long form that is no operand.
func (m *Mount) long(k, v string, has bool) error {
	yes := true
	if has {
		if b, err := strconv.ParseBool(v); err == nil {
			yes = b
		}
	}
	switch k {
	case "readonly", "ro", "rw", "read-only":
		if yes == (k != "rw") {
			return m.option("ro")
		}
		return m.option("rw")
	case "volume-nocopy", "nocopy":
		m.NoCopy = yes
		return nil
	case "bind-propagation":
		if !slices.Contains(propagation, v) {
			return fmt.Errorf("%s: found %q, want one of %s", k, v, strings.Join(propagation, ", "))
		}
		return m.option(v)
	case "bind-nonrecursive":
		if yes {
			return m.option("bind")
		}
		return nil
	case "bind-recursive":
		switch v {
		case "enabled":
			return nil
		case "disabled":
			return m.option("bind")
		case "writable":
			return m.option("ro")
		case "readonly":
			return m.option("rro")
		}
		return fmt.Errorf("%s: found %q, want enabled, disabled, writable or readonly", k, v)
	case "tmpfs-size":
		return m.option("size=" + v)
	case "tmpfs-mode":
		return m.option("mode=" + v)
	case "consistency":
		return nil
	}
	if has {
		return m.option(k + "=" + v)
	}
	return m.option(k)
}

// option sets one option of the short form.
func (m *Mount) option(o string) error {
	for _, group := range flags {
		if slices.Contains(group, o) {
			m.Options = slices.DeleteFunc(m.Options, func(have string) bool { return slices.Contains(group, have) })
			m.Options = append(m.Options, o)
			return nil
		}
	}
	k, v, _ := strings.Cut(o, "=")
	switch {
	case slices.Contains(ignored, o):
		return nil
	case o == "nocopy":
		m.NoCopy = true
		return nil
	case o == "create", o == "create=caller":
		m.Create = true
		return nil
	case k == "subpath" && v != "":
		m.Subpath = v
		return nil
	case m.Type == TypeTmpfs && k == "size":
		if err := checkSize(v); err != nil {
			return err
		}
	case m.Type == TypeTmpfs && k == "mode":
		if n, err := strconv.ParseUint(v, 8, 32); err != nil || n > 0o7777 {
			return fmt.Errorf("mode: found %q, want an octal mode", v)
		}
	case m.Type == TypeTmpfs && (k == "uid" || k == "gid" || k == "nr_inodes"):
		if _, err := strconv.ParseUint(v, 10, 32); err != nil {
			return fmt.Errorf("%s: found %q, want a number", k, v)
		}
	default:
		return fmt.Errorf("option %q: not known for a %s", o, m.Type)
	}
	m.Options = append(slices.DeleteFunc(m.Options, func(have string) bool { return strings.HasPrefix(have, k+"=") }), o)
	return nil
}

// checkSize accepts what tmpfs(5) does: bytes, k, m, g, or per cent of the memory.
func checkSize(v string) error {
	digits := strings.TrimRight(strings.ToLower(v), "kmg%b")
	if _, err := strconv.ParseUint(digits, 10, 63); err != nil || len(v)-len(digits) > 1 || strings.HasSuffix(strings.ToLower(v), "b") {
		return fmt.Errorf("size: found %q, want bytes, or a number with k, m, g or %%", v)
	}
	return nil
}

// complete checks the whole and makes paths absolute.
func (m *Mount) complete() error {
	if !path.IsAbs(m.Destination) {
		return fmt.Errorf("destination: found %q, want an absolute path", m.Destination)
	}
	if m.Destination = path.Clean(m.Destination); m.Destination == "/" {
		return fmt.Errorf("destination: found /, which is the root filesystem's")
	}
	if strings.ContainsRune(m.Destination+m.Source+m.Subpath, 0) {
		return fmt.Errorf("found a NUL in a path")
	}
	switch m.Type {
	case TypeVolume:
		if m.Source != "" {
			if err := CheckName(m.Source); err != nil {
				return err
			}
		}
	case TypeBind:
		if m.Source == "" {
			return fmt.Errorf("source: found none, want a path of the host")
		}
		abs, err := filepath.Abs(m.Source)
		if err != nil {
			return err
		}
		m.Source = abs
	case TypeTmpfs:
		if m.Source != "" {
			return fmt.Errorf("source: found %q, a tmpfs has none", m.Source)
		}
	}
	if m.Subpath != "" && m.Type != TypeVolume {
		return fmt.Errorf("subpath: found %q, only a volume has one", m.Subpath)
	}
	if m.NoCopy && m.Type != TypeVolume {
		return fmt.Errorf("nocopy: only a volume is filled")
	}
	if m.Create && m.Type != TypeBind {
		return fmt.Errorf("create: only for a bind")
	}
	return nil
}

// runtimeOptions are the options of the mount in config.json, defaults filled in.
func (m *Mount) runtimeOptions() []string {
	have := func(group ...string) bool {
		return slices.ContainsFunc(group, func(o string) bool {
			return slices.ContainsFunc(m.Options, func(h string) bool { return h == o || strings.HasSuffix(o, "=") && strings.HasPrefix(h, o) })
		})
	}
	opts := slices.Clone(m.Options)
	if m.Type == TypeTmpfs {
		for _, d := range [][]string{{"nosuid", "suid"}, {"nodev", "dev"}, {"noexec", "exec"}} {
			if !have(d...) {
				opts = append(opts, d[0])
			}
		}
		if !have("mode=") {
			opts = append(opts, "mode=1777")
		}
		return opts
	}
	if !have(propagation...) {
		opts = append([]string{"rprivate"}, opts...)
	}
	if !have("bind", "rbind") {
		opts = append([]string{"rbind"}, opts...)
	}
	return opts
}
