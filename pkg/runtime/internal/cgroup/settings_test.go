// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func p[T any](v T) *T { return &v }

func show(s []setting) string {
	var b strings.Builder
	for _, x := range s {
		fmt.Fprintf(&b, "%s=%s", x.file, x.value)
		if x.optional {
			b.WriteString("?")
		}
		b.WriteString("; ")
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func TestSettings(t *testing.T) {
	dev := specs.LinuxBlockIODevice{Major: 8, Minor: 16}
	for _, c := range []struct {
		name   string
		r      specs.LinuxResources
		v1, v2 string // a string that starts with ! is part of an error
	}{
		{"nothing", specs.LinuxResources{}, "", ""},
		{"memory", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(100 << 20)), Reservation: p(int64(50 << 20)), Swap: p(int64(150 << 20))}},
			"memory.limit_in_bytes=104857600; memory.memsw.limit_in_bytes=157286400; memory.soft_limit_in_bytes=52428800",
			"memory.swap.max=52428800; memory.max=104857600; memory.low=52428800"},
		{"no swap", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(1 << 20)), Swap: p(int64(1 << 20))}},
			"memory.limit_in_bytes=1048576; memory.memsw.limit_in_bytes=1048576", "memory.swap.max=0?; memory.max=1048576"},
		{"no memory limit", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(-1))}},
			"memory.limit_in_bytes=-1; memory.memsw.limit_in_bytes=-1?", "memory.swap.max=max?; memory.max=max"},
		{"swap below memory", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(9)), Swap: p(int64(8))}},
			"memory.limit_in_bytes=9; memory.memsw.limit_in_bytes=8", "!less than memory.limit 9"},
		{"swap alone", specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: p(int64(8))}}, "memory.memsw.limit_in_bytes=8", "!needs memory.limit"},
		{"oom", specs.LinuxResources{Memory: &specs.LinuxMemory{DisableOOMKiller: p(true), Swappiness: p(uint64(10))}},
			"memory.oom_control=1; memory.swappiness=10", "!disableOOMKiller"},
		{"swappiness", specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: p(uint64(101))}}, "!101, want 0 to 100", "!swappiness"},
		//lint:ignore SA1019 a bundle may still have them
		{"kernel memory is ignored", specs.LinuxResources{Memory: &specs.LinuxMemory{Kernel: p(int64(5)), KernelTCP: p(int64(5))}}, "", ""},
		{"cpu", specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: p(uint64(1024)), Quota: p(int64(50000)), Period: p(uint64(200000)), Burst: p(uint64(10)), Cpus: "0-1", Mems: "0"}},
			"cpu.shares=1024; cpu.cfs_period_us=200000; cpu.cfs_burst_us=10; cpu.cfs_quota_us=50000; cpuset.cpus=0-1; cpuset.mems=0",
			"cpu.weight=100; cpu.max.burst=10; cpu.max=50000 200000; cpuset.cpus=0-1; cpuset.mems=0"},
		{"quota", specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: p(int64(50000))}}, "cpu.cfs_quota_us=50000", "cpu.max=50000 100000"},
		{"period", specs.LinuxResources{CPU: &specs.LinuxCPU{Period: p(uint64(50000))}}, "cpu.cfs_period_us=50000", "cpu.max=max 50000"},
		{"no quota", specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: p(int64(-1))}}, "cpu.cfs_quota_us=-1", "cpu.max=max 100000"},
		{"idle", specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: p(int64(1)), Shares: p(uint64(2))}}, "cpu.shares=2; cpu.idle=1", "cpu.idle=1"},
		{"realtime", specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimePeriod: p(uint64(100)), RealtimeRuntime: p(int64(10))}},
			"cpu.rt_period_us=100; cpu.rt_runtime_us=10", "!realtimeRuntime"},
		{"pids", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: p(int64(7))}}, "pids.max=7", "pids.max=7"},
		{"pids 0", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: p(int64(0))}}, "pids.max=1", "pids.max=1"},
		{"pids -1", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: p(int64(-1))}}, "pids.max=max", "pids.max=max"},
		{"pids unset", specs.LinuxResources{Pids: &specs.LinuxPids{}}, "", ""},
		{"io", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: p(uint16(500)), LeafWeight: p(uint16(10)),
			WeightDevice:          []specs.LinuxWeightDevice{{LinuxBlockIODevice: dev, Weight: p(uint16(100))}},
			ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: dev, Rate: 1000}}, ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: dev, Rate: 0}}}},
			"blkio.weight=500; blkio.leaf_weight=10; blkio.weight_device=8:16 100; blkio.throttle.read_bps_device=8:16 1000; blkio.throttle.write_iops_device=8:16 0",
			"io.bfq.weight=500; io.bfq.weight=8:16 100; io.max=8:16 rbps=1000; io.max=8:16 wiops=max"},
		{"io weight", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: p(uint16(5))}}, "blkio.weight=5", "!want 10 to 1000"},
		{"hugetlb", specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}},
			"hugetlb.2MB.limit_in_bytes=4194304; hugetlb.2MB.rsvd.limit_in_bytes=4194304?", "hugetlb.2MB.max=4194304; hugetlb.2MB.rsvd.max=4194304?"},
		{"hugetlb path", specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "../2MB"}}}, "!page size", "!page size"},
		{"hugetlb empty", specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: ""}}}, "!page size", "!page size"},
		{"network", specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: p(uint32(1048577)), Priorities: []specs.LinuxInterfacePriority{{Name: "eth0", Priority: 5}}}},
			"net_cls.classid=1048577; net_prio.ifpriomap=eth0 5", "!no net_cls"},
		{"rdma", specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx5_1": {HcaHandles: p(uint32(3)), HcaObjects: p(uint32(4))}, "a": {HcaHandles: p(uint32(1))}}},
			"rdma.max=a hca_handle=1; rdma.max=mlx5_1 hca_handle=3 hca_object=4", "rdma.max=a hca_handle=1; rdma.max=mlx5_1 hca_handle=3 hca_object=4"},
		{"unified", specs.LinuxResources{Unified: map[string]string{"memory.high": "1", "io.max": "8:0 rbps=1\n8:16 rbps=2\n"}},
			"", "io.max=8:0 rbps=1; io.max=8:16 rbps=2; memory.high=1"},
		{"unified path", specs.LinuxResources{Unified: map[string]string{"../memory.high": "1"}}, "", "!not a file"},
		{"unified kill", specs.LinuxResources{Unified: map[string]string{"cgroup.procs": "1"}}, "", "!not a file"},
	} {
		for v, want := range map[string]string{"v1": c.v1, "v2": c.v2} {
			f := settingsV1
			if v == "v2" {
				f = settingsV2
			}
			s, err := f(&c.r)
			got := show(s)
			if e, ok := strings.CutPrefix(want, "!"); ok {
				if err == nil || !strings.Contains(err.Error(), e) {
					t.Errorf("%s, %s: got %q, %v; want an error with %q", c.name, v, got, err, e)
				}
			} else if err != nil || got != want {
				t.Errorf("%s, %s: got %q, %v; want %q", c.name, v, got, err, want)
			}
		}
	}
}

func TestConversions(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 1024: 100, 262144: 10000, 1 << 30: 10000, 512: 59, 4096: 303} {
		if got := weightOfShares(shares); got != want {
			t.Errorf("weight of %d shares: %d, want %d", shares, got, want)
		}
	}
	for w, want := range map[uint64]uint64{10: 1, 1000: 10000, 100: 910} {
		if got := ioWeight(w); got != want {
			t.Errorf("io weight of %d: %d, want %d", w, got, want)
		}
	}
}

func TestPolicy(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	type d = specs.LinuxDeviceCgroup
	var all []string
	for i := range usual {
		all = append(all, usual[i].String())
	}
	ours := strings.Join(all, ", ")
	for _, c := range []struct {
		name  string
		list  []d
		allow bool
		rules string // "+" stands for the usual devices
		v1    string // error of v1
	}{
		{"none", nil, false, "+", ""},
		{"deny all", []d{{Access: "rwm"}}, false, "+", ""},
		{"allow all", []d{{Access: "rwm"}, {Allow: true, Access: "rwm"}}, true, "", ""},
		{"a disk", []d{{Type: "a", Access: "rwm"}, {Allow: true, Type: "b", Major: n(8), Minor: n(0), Access: "r"}}, false, "b 8:0 r, +", ""},
		{"listed twice", []d{{Allow: true, Type: "c", Major: n(1), Minor: n(3), Access: "rwm"}, {Allow: true, Type: "c", Major: n(1), Minor: n(3), Access: "r"}}, false,
			"c 1:3 rwm, " + strings.Replace(ours, ", c 1:3 rwm", "", 1), ""},
		{"earlier rules are gone", []d{{Allow: true, Type: "b", Major: n(8), Access: "rw"}, {Access: "rwm"}}, false, "+", ""},
		{"both types", []d{{Allow: true, Type: "a", Access: "m"}}, false, "b *:* m, c *:* m, " + strings.Join(all[2:], ", "), ""},
		{"hole", []d{{Allow: true, Type: "b", Major: n(8), Access: "rwm"}, {Type: "b", Major: n(8), Minor: n(1), Access: "w"}}, false,
			"b 8:* rwm, -b 8:1 w, +", "cannot be expressed"},
		{"taken back", []d{{Allow: true, Type: "b", Major: n(8), Access: "rwm"}, {Type: "b", Major: n(8), Access: "w"}}, false,
			"b 8:* rwm, -b 8:* w, +", ""},
	} {
		pol, err := policyOf(c.list)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var got []string
		for i := range pol.rules {
			s := pol.rules[i].String()
			if !pol.rules[i].allow {
				s = "-" + s
			}
			got = append(got, s)
		}
		if g, w := strings.Join(got, ", "), strings.Replace(c.rules, "+", ours, 1); g != w || pol.allow != c.allow {
			t.Errorf("%s: %v, %s; want %v, %s", c.name, pol.allow, g, c.allow, w)
		}
		if err := pol.checkV1(); (err != nil) != (c.v1 != "") || err != nil && !strings.Contains(err.Error(), c.v1) {
			t.Errorf("%s: v1: %v, want %q", c.name, err, c.v1)
		}
	}
	for want, r := range map[string]d{
		"access is empty": {}, "access \"x\"": {Access: "x"}, "type \"z\"": {Access: "r", Type: "z"}, "device number": {Access: "r", Type: "c", Major: n(-7)},
	} {
		if _, err := policyOf([]d{r}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestMountinfo(t *testing.T) {
	got := cgroupMounts([]byte(`25 30 0:23 / /sys rw,nosuid - sysfs sysfs rw
36 25 0:32 /docker/a\040b /my\040cgroup/cpu ro,nosuid master:11 - cgroup cgroup rw,cpu,cpuacct
37 25 0:33 / /sys/fs/cgroup/unified rw - cgroup2 none rw,nsdelegate
`))
	if len(got) != 2 || got[0] != (mount{"/docker/a b", "/my cgroup/cpu", "cgroup", "rw,cpu,cpuacct"}) || got[1].typ != "cgroup2" {
		t.Errorf("%+v", got)
	}
	l := locator{rel: true, inner: "/x", mounts: got}
	for own, want := range map[string]string{"/docker/a b": "/my cgroup/cpu/x", "/docker/a b/c": "/my cgroup/cpu/c/x", "/": "/my cgroup/cpu/x", "/other": "/my cgroup/cpu/x"} {
		if p, err := l.place("cpu,cpuacct", own); err != nil || p.Dir != want {
			t.Errorf("own %s: %v, %v; want %s", own, p.Dir, err, want)
		}
	}
	if _, err := l.place("memory", "/x"); err != errNotMounted && l.mounts != nil {
		// The machine's own memory hierarchy has no such directory.
		t.Errorf("memory: %v, want %v", err, errNotMounted)
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add([]byte("36 25 0:32 / /c ro - cgroup cgroup rw,cpu\n"))
	f.Add([]byte(`1 2 3 \04 \ - cgroup2 x y`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range cgroupMounts(b) {
			if !strings.HasPrefix(m.typ, "cgroup") {
				t.Errorf("%+v", m)
			}
		}
	})
}
