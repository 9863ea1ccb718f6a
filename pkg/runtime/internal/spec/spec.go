// SPDX-License-Identifier: Apache-2.0

// Package spec reads config.json (runtime-spec 1.3) and process.json into the types of runtime-spec, without
// reflection, and refuses what the specification does not allow. Errors name line, path, value found and value
// wanted. Unknown members are skipped, as the specification asks (Extensibility).
//
// It looks at nothing but the document: whether a path exists is not its business.
package spec

import (
	"io/fs"
	"math"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/strictjson"
)

// Parse reads a config.json. The strings of the result borrow data.
func Parse(data []byte) (*specs.Spec, error) {
	d := decoder{strictjson.New(data)}
	s := d.spec()
	if err := d.End(); err != nil {
		return nil, err
	}
	if err := Check(s); err != nil {
		return nil, err
	}
	return s, nil
}

// ParseProcess reads a process.json: the process member of a config.json as a document of its own.
func ParseProcess(data []byte) (*specs.Process, error) {
	d := decoder{strictjson.New(data)}
	p := d.process()
	if err := d.End(); err != nil {
		return nil, err
	}
	return p, CheckProcess(p)
}

type decoder struct{ *strictjson.Reader }

func (d decoder) spec() *specs.Spec {
	s := new(specs.Spec)
	d.Object(func(key string) {
		switch key {
		case "ociVersion":
			s.Version = d.String()
		case "process":
			s.Process = d.process()
		case "root":
			s.Root = d.root()
		case "hostname":
			s.Hostname = d.String()
		case "domainname":
			s.Domainname = d.String()
		case "mounts":
			s.Mounts = make([]specs.Mount, 0, 16)
			d.Array(func() { s.Mounts = append(s.Mounts, d.mount()) })
		case "hooks":
			s.Hooks = d.hooks()
		case "annotations":
			s.Annotations = d.StringMap()
		case "linux":
			s.Linux = d.linux()
		case "vm", "windows", "solaris", "zos", "freebsd":
			if !d.Null() {
				d.Fail("a configuration for "+key, "a Linux container")
			}
		default:
			d.Skip()
		}
	})
	return s
}

func (d decoder) root() *specs.Root {
	root := new(specs.Root)
	d.Object(func(key string) {
		switch key {
		case "path":
			root.Path = d.String()
		case "readonly":
			root.Readonly = d.Bool()
		default:
			d.Skip()
		}
	})
	return root
}

func (d decoder) mount() (m specs.Mount) {
	d.Object(func(key string) {
		switch key {
		case "destination":
			m.Destination = d.String()
		case "type":
			m.Type = d.String()
		case "source":
			m.Source = d.String()
		case "options":
			m.Options = d.Strings()
		case "uidMappings":
			m.UIDMappings = d.idMappings()
		case "gidMappings":
			m.GIDMappings = d.idMappings()
		default:
			d.Skip()
		}
	})
	return m
}

func (d decoder) hooks() *specs.Hooks {
	h := new(specs.Hooks)
	d.Object(func(key string) {
		switch key {
		case "prestart":
			//lint:ignore SA1019 deprecated by the specification, but callers still send it
			h.Prestart = d.hookList()
		case "createRuntime":
			h.CreateRuntime = d.hookList()
		case "createContainer":
			h.CreateContainer = d.hookList()
		case "startContainer":
			h.StartContainer = d.hookList()
		case "poststart":
			h.Poststart = d.hookList()
		case "poststop":
			h.Poststop = d.hookList()
		default:
			d.Skip()
		}
	})
	return h
}

func (d decoder) hookList() (list []specs.Hook) {
	d.Array(func() {
		var h specs.Hook
		d.Object(func(key string) {
			switch key {
			case "path":
				h.Path = d.String()
			case "args":
				h.Args = d.Strings()
			case "env":
				h.Env = d.Strings()
			case "timeout":
				n := int(d.Int(1, math.MaxInt32))
				h.Timeout = &n
			default:
				d.Skip()
			}
		})
		if d.Err() == nil && (h.Path == "" || h.Path[0] != '/') {
			d.Fail("path \""+h.Path+"\"", "an absolute path")
		}
		list = append(list, h)
	})
	return list
}

func (d decoder) process() *specs.Process {
	p := new(specs.Process)
	d.Object(func(key string) {
		switch key {
		case "terminal":
			p.Terminal = d.Bool()
		case "consoleSize":
			p.ConsoleSize = new(specs.Box)
			d.Object(func(key string) {
				switch key {
				case "height":
					p.ConsoleSize.Height = uint(d.Uint(math.MaxUint16))
				case "width":
					p.ConsoleSize.Width = uint(d.Uint(math.MaxUint16))
				default:
					d.Skip()
				}
			})
		case "user":
			d.user(&p.User)
		case "args":
			p.Args = d.Strings()
		case "env":
			p.Env = d.Strings()
		case "cwd":
			p.Cwd = d.String()
		case "capabilities":
			if !d.Null() {
				p.Capabilities = d.capabilities()
			}
		case "rlimits":
			d.Array(func() { p.Rlimits = append(p.Rlimits, d.rlimit()) })
		case "noNewPrivileges":
			p.NoNewPrivileges = d.Bool()
		case "apparmorProfile":
			p.ApparmorProfile = d.String()
		case "selinuxLabel":
			p.SelinuxLabel = d.String()
		case "oomScoreAdj":
			if !d.Null() {
				n := int(d.Int(-1000, 1000))
				p.OOMScoreAdj = &n
			}
		case "scheduler":
			if !d.Null() {
				p.Scheduler = d.scheduler()
			}
		case "ioPriority":
			if !d.Null() {
				p.IOPriority = d.ioPriority()
			}
		case "execCPUAffinity":
			if !d.Null() {
				p.ExecCPUAffinity = new(specs.CPUAffinity)
				d.Object(func(key string) {
					switch key {
					case "initial":
						p.ExecCPUAffinity.Initial = d.String()
					case "final":
						p.ExecCPUAffinity.Final = d.String()
					default:
						d.Skip()
					}
				})
			}
		default:
			d.Skip()
		}
	})
	return p
}

func (d decoder) user(u *specs.User) {
	d.Object(func(key string) {
		switch key {
		case "uid":
			u.UID = d.id()
		case "gid":
			u.GID = d.id()
		case "umask":
			if !d.Null() {
				n := uint32(d.Uint(0o777))
				u.Umask = &n
			}
		case "additionalGids":
			d.Array(func() { u.AdditionalGids = append(u.AdditionalGids, d.id()) })
		default:
			d.Skip()
		}
	})
}

// id takes a user or group id. 2^32-1 is no id: to the kernel it means "leave as it is".
func (d decoder) id() uint32 { return uint32(d.Uint(math.MaxUint32 - 1)) }

func (d decoder) capabilities() *specs.LinuxCapabilities {
	c := new(specs.LinuxCapabilities)
	d.Object(func(key string) {
		switch key {
		case "bounding":
			c.Bounding = d.Strings()
		case "effective":
			c.Effective = d.Strings()
		case "inheritable":
			c.Inheritable = d.Strings()
		case "permitted":
			c.Permitted = d.Strings()
		case "ambient":
			c.Ambient = d.Strings()
		default:
			d.Skip()
		}
	})
	return c
}

func (d decoder) rlimit() (l specs.POSIXRlimit) {
	d.Object(func(key string) {
		switch key {
		case "type":
			l.Type = d.String()
		case "hard":
			l.Hard = d.Uint(math.MaxUint64)
		case "soft":
			l.Soft = d.Uint(math.MaxUint64)
		default:
			d.Skip()
		}
	})
	return l
}

func (d decoder) scheduler() *specs.Scheduler {
	s := new(specs.Scheduler)
	d.Object(func(key string) {
		switch key {
		case "policy":
			s.Policy = specs.LinuxSchedulerPolicy(d.String())
		case "nice":
			s.Nice = int32(d.Int(-20, 19))
		case "priority":
			s.Priority = int32(d.Int(0, 99))
		case "flags":
			for _, f := range d.Strings() {
				s.Flags = append(s.Flags, specs.LinuxSchedulerFlag(f))
			}
		case "runtime":
			s.Runtime = d.Uint(math.MaxUint64)
		case "deadline":
			s.Deadline = d.Uint(math.MaxUint64)
		case "period":
			s.Period = d.Uint(math.MaxUint64)
		default:
			d.Skip()
		}
	})
	return s
}

func (d decoder) ioPriority() *specs.LinuxIOPriority {
	p := new(specs.LinuxIOPriority)
	d.Object(func(key string) {
		switch key {
		case "class":
			p.Class = specs.IOPriorityClass(d.String())
		case "priority":
			p.Priority = int(d.Int(0, 7))
		default:
			d.Skip()
		}
	})
	return p
}

func (d decoder) idMappings() (list []specs.LinuxIDMapping) {
	d.Array(func() {
		var m specs.LinuxIDMapping
		d.Object(func(key string) {
			switch key {
			case "containerID":
				m.ContainerID = d.id()
			case "hostID":
				m.HostID = d.id()
			case "size":
				m.Size = uint32(d.Uint(math.MaxUint32))
			default:
				d.Skip()
			}
		})
		list = append(list, m)
	})
	return list
}

func (d decoder) fileMode() *fs.FileMode {
	if d.Null() {
		return nil
	}
	m := fs.FileMode(d.Uint(0o177777)) // as mknod(2) wants it: runc's callers pass the type bits too
	return &m
}
