// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A setting is one write into a file of a cgroup.
type setting struct {
	controller string // v1 controller whose directory holds the file; "" on v2
	file       string
	value      string
	optional   bool // a kernel without the file has nothing to limit
	again      bool // EINVAL may mean that a later setting has to come first
}

// itoa writes a limit for v1: -1 lifts it.
func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func utoa(n uint64) string { return strconv.FormatUint(n, 10) }

// limit writes a limit for v2, where v1's -1 is "max".
func limit(n int64) string {
	if n < 0 {
		return "max"
	}
	return itoa(n)
}

// value reads an optional number, for which runtime-spec has both absence and 0.
func value[T int64 | uint64 | uint32 | uint16](p *T) T {
	if p == nil {
		return 0
	}
	return *p
}

// settingsV1 turns resources (without devices and unified) into writes for v1.
func settingsV1(r *specs.LinuxResources) ([]setting, error) {
	var s []setting
	add := func(controller, file, value string) {
		s = append(s, setting{controller: controller, file: file, value: value})
	}
	if m := r.Memory; m != nil {
		mem, swap := value(m.Limit), value(m.Swap)
		if mem != 0 {
			s = append(s, setting{controller: "memory", file: "memory.limit_in_bytes", value: itoa(mem), again: true})
		}
		switch {
		case mem == -1 && swap == 0: // memory without a limit and swap with one cannot be
			s = append(s, setting{controller: "memory", file: "memory.memsw.limit_in_bytes", value: "-1", optional: true})
		case swap != 0:
			s = append(s, setting{controller: "memory", file: "memory.memsw.limit_in_bytes", value: itoa(swap), optional: swap == -1, again: true})
		}
		if v := value(m.Reservation); v != 0 {
			add("memory", "memory.soft_limit_in_bytes", itoa(v))
		}
		if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
			add("memory", "memory.oom_control", "1")
		}
		if m.Swappiness != nil && int64(*m.Swappiness) != -1 {
			if *m.Swappiness > 100 {
				return nil, fmt.Errorf("linux.resources.memory.swappiness is %d, want 0 to 100", *m.Swappiness)
			}
			add("memory", "memory.swappiness", utoa(*m.Swappiness))
		}
	}
	if p := r.CPU; p != nil {
		if v := value(p.Shares); v != 0 {
			add("cpu", "cpu.shares", utoa(v))
		}
		if v := value(p.Period); v != 0 {
			s = append(s, setting{controller: "cpu", file: "cpu.cfs_period_us", value: utoa(v), again: true})
		}
		if p.Burst != nil {
			s = append(s, setting{controller: "cpu", file: "cpu.cfs_burst_us", value: utoa(*p.Burst), again: true, optional: *p.Burst == 0})
		}
		if v := value(p.Quota); v != 0 {
			add("cpu", "cpu.cfs_quota_us", itoa(v))
		}
		if v := value(p.RealtimePeriod); v != 0 {
			s = append(s, setting{controller: "cpu", file: "cpu.rt_period_us", value: utoa(v), again: true})
		}
		if v := value(p.RealtimeRuntime); v != 0 {
			add("cpu", "cpu.rt_runtime_us", itoa(v))
		}
		if p.Idle != nil {
			add("cpu", "cpu.idle", itoa(*p.Idle))
		}
		if p.Cpus != "" {
			add("cpuset", "cpuset.cpus", p.Cpus)
		}
		if p.Mems != "" {
			add("cpuset", "cpuset.mems", p.Mems)
		}
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		add("pids", "pids.max", pidsMax(*r.Pids.Limit))
	}
	if b := r.BlockIO; b != nil {
		if v := value(b.Weight); v != 0 {
			add("blkio", "blkio.weight", utoa(uint64(v)))
		}
		if v := value(b.LeafWeight); v != 0 {
			add("blkio", "blkio.leaf_weight", utoa(uint64(v)))
		}
		for _, d := range b.WeightDevice {
			if v := value(d.Weight); v != 0 {
				add("blkio", "blkio.weight_device", device(d.LinuxBlockIODevice)+utoa(uint64(v)))
			}
			if v := value(d.LeafWeight); v != 0 {
				add("blkio", "blkio.leaf_weight_device", device(d.LinuxBlockIODevice)+utoa(uint64(v)))
			}
		}
		for _, t := range throttles(b) {
			for _, d := range t.devices {
				add("blkio", t.v1, device(d.LinuxBlockIODevice)+utoa(d.Rate))
			}
		}
	}
	for _, h := range r.HugepageLimits {
		if err := checkPageSize(h.Pagesize); err != nil {
			return nil, err
		}
		add("hugetlb", "hugetlb."+h.Pagesize+".limit_in_bytes", utoa(h.Limit))
		s = append(s, setting{controller: "hugetlb", file: "hugetlb." + h.Pagesize + ".rsvd.limit_in_bytes", value: utoa(h.Limit), optional: true})
	}
	if n := r.Network; n != nil {
		if v := value(n.ClassID); v != 0 {
			add("net_cls", "net_cls.classid", utoa(uint64(v)))
		}
		for _, p := range n.Priorities {
			add("net_prio", "net_prio.ifpriomap", p.Name+" "+utoa(uint64(p.Priority)))
		}
	}
	return append(s, rdma("rdma", r.Rdma)...), nil
}

// settingsV2 is settingsV1 for v2, whose scales and units differ; what v2 has no file for is an error, so that
// nobody relies on a limit that is not there.
func settingsV2(r *specs.LinuxResources) ([]setting, error) {
	var s []setting
	add := func(file, value string) { s = append(s, setting{file: file, value: value}) }
	if m := r.Memory; m != nil {
		mem, swap := value(m.Limit), value(m.Swap)
		// memory.swap.max counts swap alone, runtime-spec's swap is memory and swap together.
		switch {
		case swap == -1, swap == 0 && mem == -1:
			s = append(s, setting{file: "memory.swap.max", value: "max", optional: true})
		case swap != 0 && mem == 0:
			return nil, errors.New("linux.resources.memory.swap needs memory.limit: on cgroup v2 swap is limited alone")
		case swap != 0 && mem > 0 && swap < mem:
			return nil, fmt.Errorf("linux.resources.memory.swap is %d, less than memory.limit %d: it counts memory and swap together", swap, mem)
		case swap > 0 && mem < 0:
			add("memory.swap.max", itoa(swap))
		case swap > 0:
			s = append(s, setting{file: "memory.swap.max", value: itoa(swap - mem), optional: swap == mem})
		}
		if mem != 0 {
			add("memory.max", limit(mem))
		}
		if v := value(m.Reservation); v != 0 {
			add("memory.low", limit(v))
		}
		if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
			return nil, errors.New("linux.resources.memory.disableOOMKiller: cgroup v2 has no such switch")
		}
		if m.Swappiness != nil && int64(*m.Swappiness) != -1 {
			return nil, errors.New("linux.resources.memory.swappiness: cgroup v2 has no such limit")
		}
	}
	if p := r.CPU; p != nil {
		if p.Idle != nil {
			add("cpu.idle", itoa(*p.Idle))
		}
		if v := value(p.Shares); v != 0 && value(p.Idle) != 1 {
			add("cpu.weight", utoa(weightOfShares(v)))
		}
		burst := p.Burst != nil
		if burst { // must not exceed the quota in force: before a larger quota it is tried again after it
			s = append(s, setting{file: "cpu.max.burst", value: utoa(*p.Burst), again: true, optional: *p.Burst == 0})
		}
		if quota, period := value(p.Quota), value(p.Period); quota != 0 || period != 0 {
			if period == 0 {
				period = 100000
			}
			if quota == 0 {
				quota = -1
			}
			add("cpu.max", limit(quota)+" "+utoa(period))
		}
		if value(p.RealtimeRuntime) != 0 || value(p.RealtimePeriod) != 0 {
			return nil, errors.New("linux.resources.cpu.realtimeRuntime and realtimePeriod: cgroup v2 has no such limits")
		}
		if p.Cpus != "" {
			add("cpuset.cpus", p.Cpus)
		}
		if p.Mems != "" {
			add("cpuset.mems", p.Mems)
		}
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		add("pids.max", pidsMax(*r.Pids.Limit))
	}
	if b := r.BlockIO; b != nil {
		if v := value(b.Weight); v != 0 {
			if v < 10 || v > 1000 {
				return nil, fmt.Errorf("linux.resources.blockIO.weight is %d, want 10 to 1000", v)
			}
			add("io.bfq.weight", utoa(uint64(v))) // or io.weight, see Cgroup.set
		}
		for _, d := range b.WeightDevice {
			if v := value(d.Weight); v != 0 {
				add("io.bfq.weight", device(d.LinuxBlockIODevice)+utoa(uint64(v)))
			}
		}
		for _, t := range throttles(b) {
			for _, d := range t.devices {
				v := utoa(d.Rate)
				if d.Rate == 0 {
					v = "max"
				}
				add("io.max", device(d.LinuxBlockIODevice)+t.v2+"="+v)
			}
		}
	}
	for _, h := range r.HugepageLimits {
		if err := checkPageSize(h.Pagesize); err != nil {
			return nil, err
		}
		add("hugetlb."+h.Pagesize+".max", utoa(h.Limit))
		s = append(s, setting{file: "hugetlb." + h.Pagesize + ".rsvd.max", value: utoa(h.Limit), optional: true})
	}
	if n := r.Network; n != nil && (value(n.ClassID) != 0 || len(n.Priorities) > 0) {
		return nil, errors.New("linux.resources.network: cgroup v2 has no net_cls and net_prio")
	}
	s = append(s, rdma("", r.Rdma)...)
	return unified(s, r.Unified)
}

// unified appends linux.resources.unified, file by file in order of names, line by line.
func unified(s []setting, files map[string]string) ([]setting, error) {
	names := make([]string, 0, len(files))
	for n := range files {
		if strings.Contains(n, "/") || !strings.Contains(n, ".") || strings.HasPrefix(n, "cgroup.") && !slices.Contains(harmless, n) {
			return nil, fmt.Errorf("linux.resources.unified: %q is not a file of a controller", n)
		}
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		for line := range strings.SplitSeq(strings.TrimSuffix(files[n], "\n"), "\n") {
			s = append(s, setting{file: n, value: line})
		}
	}
	return s, nil
}

// harmless are the cgroup core's own files that are limits; the others would move, freeze or kill processes.
var harmless = []string{"cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"}

// pidsMax: runtime-spec 1.3 leaves 0 and below to be "no tasks" and "no limit"; with 1 the container cannot fork
// either, and a manager that knows no 0 (systemd's TasksMax) agrees.
func pidsMax(n int64) string {
	if n == 0 {
		n = 1
	}
	return limit(n)
}

// weightOfShares maps cpu.shares 2…262144 (default 1024) to cpu.weight 1…10000 (default 100) by the quadratic
// through the three points in logarithms, as runc and crun do since 2025.
func weightOfShares(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 1<<18:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// ioWeight maps blkio.weight 10…1000 to io.weight 1…10000.
func ioWeight(w uint64) uint64 { return 1 + (w-10)*9999/990 }

func device(d specs.LinuxBlockIODevice) string { return itoa(d.Major) + ":" + itoa(d.Minor) + " " }

type throttle struct {
	v1, v2  string
	devices []specs.LinuxThrottleDevice
}

func throttles(b *specs.LinuxBlockIO) [4]throttle {
	return [...]throttle{
		{"blkio.throttle.read_bps_device", "rbps", b.ThrottleReadBpsDevice},
		{"blkio.throttle.write_bps_device", "wbps", b.ThrottleWriteBpsDevice},
		{"blkio.throttle.read_iops_device", "riops", b.ThrottleReadIOPSDevice},
		{"blkio.throttle.write_iops_device", "wiops", b.ThrottleWriteIOPSDevice},
	}
}

func rdma(controller string, devices map[string]specs.LinuxRdma) []setting {
	var s []setting
	names := make([]string, 0, len(devices))
	for n := range devices {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		d := devices[n]
		v := n
		if d.HcaHandles != nil {
			v += " hca_handle=" + utoa(uint64(*d.HcaHandles))
		}
		if d.HcaObjects != nil {
			v += " hca_object=" + utoa(uint64(*d.HcaObjects))
		}
		s = append(s, setting{controller: controller, file: "rdma.max", value: v})
	}
	return s
}

// checkPageSize wants 64KB, 2MB, 1GB…: the string becomes part of a file name.
func checkPageSize(s string) error {
	n := strings.TrimRight(s, "KMGB")
	if _, err := strconv.ParseUint(n, 10, 32); err == nil && n[0] != '0' {
		switch s[len(n):] {
		case "KB", "MB", "GB":
			return nil
		}
	}
	return fmt.Errorf("linux.resources.hugepageLimits: page size %q, want a number with KB, MB or GB", s)
}
