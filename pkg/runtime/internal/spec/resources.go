// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"math"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/strictjson"
)

// ParseResources reads the linux.resources member of a config.json as a document of its own.
func ParseResources(data []byte) (*specs.LinuxResources, error) {
	d := decoder{strictjson.New(data)}
	r := d.resources()
	return r, d.End()
}

func (d decoder) int64p() *int64 {
	if d.Null() {
		return nil
	}
	n := d.Int(math.MinInt64, math.MaxInt64)
	return &n
}

func (d decoder) uint64p() *uint64 {
	if d.Null() {
		return nil
	}
	n := d.Uint(math.MaxUint64)
	return &n
}

func (d decoder) uint32p() *uint32 {
	if d.Null() {
		return nil
	}
	n := uint32(d.Uint(math.MaxUint32))
	return &n
}

func (d decoder) uint16p() *uint16 {
	if d.Null() {
		return nil
	}
	n := uint16(d.Uint(math.MaxUint16))
	return &n
}

func (d decoder) boolp() *bool {
	if d.Null() {
		return nil
	}
	b := d.Bool()
	return &b
}

func (d decoder) resources() *specs.LinuxResources {
	r := new(specs.LinuxResources)
	d.Object(func(key string) {
		switch key {
		case "devices":
			d.Array(func() {
				var c specs.LinuxDeviceCgroup
				d.Object(func(key string) {
					switch key {
					case "allow":
						c.Allow = d.Bool()
					case "type":
						c.Type = d.String()
					case "major":
						c.Major = d.int64p()
					case "minor":
						c.Minor = d.int64p()
					case "access":
						c.Access = d.String()
					default:
						d.Skip()
					}
				})
				r.Devices = append(r.Devices, c)
			})
		case "memory":
			if !d.Null() {
				r.Memory = d.memory()
			}
		case "cpu":
			if !d.Null() {
				r.CPU = d.cpu()
			}
		case "pids":
			if !d.Null() {
				r.Pids = new(specs.LinuxPids)
				d.Object(func(key string) {
					if key == "limit" {
						r.Pids.Limit = d.int64p()
					} else {
						d.Skip()
					}
				})
			}
		case "blockIO":
			if !d.Null() {
				r.BlockIO = d.blockIO()
			}
		case "hugepageLimits":
			d.Array(func() {
				var h specs.LinuxHugepageLimit
				d.Object(func(key string) {
					switch key {
					case "pageSize":
						h.Pagesize = d.String()
					case "limit":
						h.Limit = d.Uint(math.MaxUint64)
					default:
						d.Skip()
					}
				})
				r.HugepageLimits = append(r.HugepageLimits, h)
			})
		case "network":
			if !d.Null() {
				r.Network = d.network()
			}
		case "rdma":
			r.Rdma = map[string]specs.LinuxRdma{}
			d.Object(func(device string) {
				var v specs.LinuxRdma
				d.Object(func(key string) {
					switch key {
					case "hcaHandles":
						v.HcaHandles = d.uint32p()
					case "hcaObjects":
						v.HcaObjects = d.uint32p()
					default:
						d.Skip()
					}
				})
				r.Rdma[device] = v
			})
		case "unified":
			r.Unified = d.StringMap()
		default:
			d.Skip()
		}
	})
	return r
}

func (d decoder) memory() *specs.LinuxMemory {
	m := new(specs.LinuxMemory)
	d.Object(func(key string) {
		switch key {
		case "limit":
			m.Limit = d.int64p()
		case "reservation":
			m.Reservation = d.int64p()
		case "swap":
			m.Swap = d.int64p()
		case "swappiness":
			m.Swappiness = d.uint64p()
		case "disableOOMKiller":
			m.DisableOOMKiller = d.boolp()
		case "useHierarchy":
			m.UseHierarchy = d.boolp()
		case "checkBeforeUpdate":
			m.CheckBeforeUpdate = d.boolp()
		default: // kernel and kernelTCP, too: the specification recommends to ignore them
			d.Skip()
		}
	})
	return m
}

func (d decoder) cpu() *specs.LinuxCPU {
	c := new(specs.LinuxCPU)
	d.Object(func(key string) {
		switch key {
		case "shares":
			c.Shares = d.uint64p()
		case "quota":
			c.Quota = d.int64p()
		case "burst":
			c.Burst = d.uint64p()
		case "period":
			c.Period = d.uint64p()
		case "realtimeRuntime":
			c.RealtimeRuntime = d.int64p()
		case "realtimePeriod":
			c.RealtimePeriod = d.uint64p()
		case "cpus":
			c.Cpus = d.String()
		case "mems":
			c.Mems = d.String()
		case "idle":
			c.Idle = d.int64p()
		default:
			d.Skip()
		}
	})
	return c
}

func (d decoder) blockIO() *specs.LinuxBlockIO {
	b := new(specs.LinuxBlockIO)
	throttle := func(list *[]specs.LinuxThrottleDevice) {
		d.Array(func() {
			var t specs.LinuxThrottleDevice
			d.Object(func(key string) {
				switch key {
				case "major":
					t.Major = d.Int(0, math.MaxUint32)
				case "minor":
					t.Minor = d.Int(0, math.MaxUint32)
				case "rate":
					t.Rate = d.Uint(math.MaxUint64)
				default:
					d.Skip()
				}
			})
			*list = append(*list, t)
		})
	}
	d.Object(func(key string) {
		switch key {
		case "weight":
			b.Weight = d.uint16p()
		case "leafWeight":
			b.LeafWeight = d.uint16p()
		case "weightDevice":
			d.Array(func() {
				var w specs.LinuxWeightDevice
				d.Object(func(key string) {
					switch key {
					case "major":
						w.Major = d.Int(0, math.MaxUint32)
					case "minor":
						w.Minor = d.Int(0, math.MaxUint32)
					case "weight":
						w.Weight = d.uint16p()
					case "leafWeight":
						w.LeafWeight = d.uint16p()
					default:
						d.Skip()
					}
				})
				b.WeightDevice = append(b.WeightDevice, w)
			})
		case "throttleReadBpsDevice":
			throttle(&b.ThrottleReadBpsDevice)
		case "throttleWriteBpsDevice":
			throttle(&b.ThrottleWriteBpsDevice)
		case "throttleReadIOPSDevice":
			throttle(&b.ThrottleReadIOPSDevice)
		case "throttleWriteIOPSDevice":
			throttle(&b.ThrottleWriteIOPSDevice)
		default:
			d.Skip()
		}
	})
	return b
}

func (d decoder) network() *specs.LinuxNetwork {
	n := new(specs.LinuxNetwork)
	d.Object(func(key string) {
		switch key {
		case "classID":
			n.ClassID = d.uint32p()
		case "priorities":
			d.Array(func() {
				var p specs.LinuxInterfacePriority
				d.Object(func(key string) {
					switch key {
					case "name":
						p.Name = d.String()
					case "priority":
						p.Priority = uint32(d.Uint(math.MaxUint32))
					default:
						d.Skip()
					}
				})
				n.Priorities = append(n.Priorities, p)
			})
		default:
			d.Skip()
		}
	})
	return n
}
