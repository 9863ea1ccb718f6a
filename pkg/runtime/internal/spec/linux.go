// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"math"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func (d decoder) linux() *specs.Linux {
	l := new(specs.Linux)
	d.Object(func(key string) {
		switch key {
		case "uidMappings":
			l.UIDMappings = d.idMappings()
		case "gidMappings":
			l.GIDMappings = d.idMappings()
		case "sysctl":
			l.Sysctl = d.StringMap()
		case "resources":
			if !d.Null() {
				l.Resources = d.resources()
			}
		case "cgroupsPath":
			l.CgroupsPath = d.String()
		case "namespaces":
			l.Namespaces = make([]specs.LinuxNamespace, 0, 8)
			d.Array(func() {
				var n specs.LinuxNamespace
				d.Object(func(key string) {
					switch key {
					case "type":
						n.Type = specs.LinuxNamespaceType(d.String())
					case "path":
						n.Path = d.String()
					default:
						d.Skip()
					}
				})
				l.Namespaces = append(l.Namespaces, n)
			})
		case "devices":
			d.Array(func() { l.Devices = append(l.Devices, d.device()) })
		case "netDevices":
			l.NetDevices = map[string]specs.LinuxNetDevice{}
			d.Object(func(host string) {
				var n specs.LinuxNetDevice
				d.Object(func(key string) {
					if key == "name" {
						n.Name = d.String()
					} else {
						d.Skip()
					}
				})
				l.NetDevices[host] = n
			})
		case "seccomp":
			if !d.Null() {
				l.Seccomp = d.seccomp()
			}
		case "rootfsPropagation":
			l.RootfsPropagation = d.String()
		case "maskedPaths":
			l.MaskedPaths = d.Strings()
		case "readonlyPaths":
			l.ReadonlyPaths = d.Strings()
		case "mountLabel":
			l.MountLabel = d.String()
		case "intelRdt":
			if !d.Null() {
				l.IntelRdt = new(specs.LinuxIntelRdt)
				d.Skip()
			}
		case "memoryPolicy":
			if !d.Null() {
				l.MemoryPolicy = d.memoryPolicy()
			}
		case "personality":
			if !d.Null() {
				l.Personality = d.personality()
			}
		case "timeOffsets":
			l.TimeOffsets = map[string]specs.LinuxTimeOffset{}
			d.Object(func(clock string) {
				var o specs.LinuxTimeOffset
				d.Object(func(key string) {
					switch key {
					case "secs":
						o.Secs = d.Int(math.MinInt64, math.MaxInt64)
					case "nanosecs":
						o.Nanosecs = uint32(d.Uint(999999999))
					default:
						d.Skip()
					}
				})
				l.TimeOffsets[clock] = o
			})
		default:
			d.Skip()
		}
	})
	return l
}

func (d decoder) device() (v specs.LinuxDevice) {
	d.Object(func(key string) {
		switch key {
		case "path":
			v.Path = d.String()
		case "type":
			v.Type = d.String()
		case "major":
			v.Major = d.Int(-1, math.MaxUint32)
		case "minor":
			v.Minor = d.Int(-1, math.MaxUint32)
		case "fileMode":
			v.FileMode = d.fileMode()
		case "uid":
			v.UID = d.optionalID()
		case "gid":
			v.GID = d.optionalID()
		default:
			d.Skip()
		}
	})
	return v
}

func (d decoder) optionalID() *uint32 {
	if d.Null() {
		return nil
	}
	n := d.id()
	return &n
}

func (d decoder) memoryPolicy() *specs.LinuxMemoryPolicy {
	p := new(specs.LinuxMemoryPolicy)
	d.Object(func(key string) {
		switch key {
		case "mode":
			p.Mode = specs.MemoryPolicyModeType(d.String())
		case "nodes":
			p.Nodes = d.String()
		case "flags":
			for _, f := range d.Strings() {
				p.Flags = append(p.Flags, specs.MemoryPolicyFlagType(f))
			}
		default:
			d.Skip()
		}
	})
	return p
}

func (d decoder) personality() *specs.LinuxPersonality {
	p := new(specs.LinuxPersonality)
	d.Object(func(key string) {
		switch key {
		case "domain":
			p.Domain = specs.LinuxPersonalityDomain(d.String())
		case "flags":
			for _, f := range d.Strings() {
				p.Flags = append(p.Flags, specs.LinuxPersonalityFlag(f))
			}
		default:
			d.Skip()
		}
	})
	return p
}

func (d decoder) seccomp() *specs.LinuxSeccomp {
	s := new(specs.LinuxSeccomp)
	d.Object(func(key string) {
		switch key {
		case "defaultAction":
			s.DefaultAction = specs.LinuxSeccompAction(d.String())
		case "defaultErrnoRet":
			s.DefaultErrnoRet = d.errno()
		case "architectures":
			d.Array(func() { s.Architectures = append(s.Architectures, specs.Arch(d.String())) })
		case "flags":
			d.Array(func() { s.Flags = append(s.Flags, specs.LinuxSeccompFlag(d.String())) })
		case "listenerPath":
			s.ListenerPath = d.String()
		case "listenerMetadata":
			s.ListenerMetadata = d.String()
		case "syscalls":
			s.Syscalls = make([]specs.LinuxSyscall, 0, 16)
			d.Array(func() { s.Syscalls = append(s.Syscalls, d.seccompRule()) })
		default:
			d.Skip()
		}
	})
	return s
}

func (d decoder) seccompRule() (r specs.LinuxSyscall) {
	d.Object(func(key string) {
		switch key {
		case "names":
			r.Names = d.Strings()
		case "action":
			r.Action = specs.LinuxSeccompAction(d.String())
		case "errnoRet":
			r.ErrnoRet = d.errno()
		case "args":
			d.Array(func() {
				var a specs.LinuxSeccompArg
				d.Object(func(key string) {
					switch key {
					case "index":
						a.Index = uint(d.Uint(5))
					case "value":
						a.Value = d.Uint(math.MaxUint64)
					case "valueTwo":
						a.ValueTwo = d.Uint(math.MaxUint64)
					case "op":
						a.Op = specs.LinuxSeccompOperator(d.String())
					default:
						d.Skip()
					}
				})
				r.Args = append(r.Args, a)
			})
		default:
			d.Skip()
		}
	})
	return r
}

func (d decoder) errno() *uint {
	if d.Null() {
		return nil
	}
	n := uint(d.Uint(math.MaxUint16))
	return &n
}
