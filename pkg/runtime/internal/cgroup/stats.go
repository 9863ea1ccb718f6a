// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// NoLimit stands for "max" in limits.
const NoLimit = math.MaxUint64

// Stats is what a container uses and may use. What the kernel does not count is zero or nil.
type Stats struct {
	Memory  Memory
	CPU     CPU
	Pids    Pids
	IO      []IO      // one entry for each device, in the kernel's order
	Hugetlb []Hugetlb // one entry for each page size
	// PSI, v2 only: the share of time in which processes waited for the resource.
	CPUPressure, MemoryPressure, IOPressure *Pressure
}

// Memory is in bytes.
type Memory struct {
	Usage, Peak, Limit uint64
	SwapUsage          uint64 // swap alone
	SwapLimit          uint64 // v2: swap alone; v1: memory and swap
	Cache, Anon        uint64 // of Usage: page cache; anonymous memory
	Kernel             uint64
	Inactive           uint64            // inactive page cache, which the kernel gives up first
	Failures           uint64            // times that the limit was hit
	OOMKills           uint64            // processes killed for want of memory
	Raw                map[string]uint64 // memory.stat
}

// CPU is time used since the cgroup was made.
type CPU struct {
	Total, User, System       time.Duration
	Periods, ThrottledPeriods uint64
	ThrottledTime             time.Duration
}

// Pids counts tasks.
type Pids struct{ Current, Limit uint64 }

// IO is what went to and came from one block device.
type IO struct {
	Major, Minor          uint64
	ReadBytes, WriteBytes uint64
	Reads, Writes         uint64
}

// Hugetlb is in bytes.
type Hugetlb struct {
	PageSize              string
	Usage, Peak, Failures uint64
}

// Pressure is one PSI file; averages are in percent.
type Pressure struct{ Some, Full PressureLine }

// A PressureLine has the averages over 10, 60 and 300 seconds and the total.
type PressureLine struct {
	Avg10, Avg60, Avg300 float64
	Total                time.Duration
}

// OOMKills counts the processes of the container that the kernel killed for want of memory.
func (c *Cgroup) OOMKills() (uint64, error) {
	dir, file := c.dir("memory"), "memory.oom_control"
	if dir == "" {
		if dir, file = c.unified(), "memory.events"; dir == "" {
			return 0, nil
		}
	}
	b, err := readFile(dir, file)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	n, _ := field(b, "oom_kill")
	return n, err
}

// Stats reads all of it; a cgroup that is gone is fs.ErrNotExist.
func (c *Cgroup) Stats() (*Stats, error) {
	var st unix.Stat_t
	if d := c.census(); d != "" {
		if err := unix.Lstat(d, &st); err != nil {
			_, err := readFile(d, "cgroup.procs")
			return nil, err
		}
	}
	s := &Stats{}
	if c.V2() {
		s.readV2(reader{c.paths[0].Dir})
	} else {
		s.readV1(c)
	}
	if u := c.unified(); u != "" {
		r := reader{u}
		s.CPUPressure, s.MemoryPressure, s.IOPressure = r.pressure("cpu.pressure"), r.pressure("memory.pressure"), r.pressure("io.pressure")
	}
	s.Memory.OOMKills, _ = c.OOMKills()
	return s, nil
}

// A reader reads files of one directory; a file that is missing reads as zero.
type reader struct{ dir string }

func (r reader) bytes(file string) []byte {
	if r.dir == "" {
		return nil
	}
	b, _ := readFile(r.dir, file)
	return b
}

func (r reader) number(file string) uint64 { n, _ := number(r.bytes(file)); return n }

func number(b []byte) (uint64, bool) {
	s := strings.TrimSpace(string(b))
	if s == "max" {
		return NoLimit, true
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}

// field finds "name value" in lines.
func field(b []byte, name string) (uint64, bool) {
	for line := range bytes.Lines(b) {
		k, v, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		if ok && k == name {
			n, err := strconv.ParseUint(v, 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

func (r reader) table(file string) map[string]uint64 {
	t := map[string]uint64{}
	for line := range bytes.Lines(r.bytes(file)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(string(line)), " "); ok {
			if n, err := strconv.ParseUint(v, 10, 64); err == nil {
				t[k] = n
			}
		}
	}
	return t
}

func (s *Stats) readV2(r reader) {
	m := &s.Memory
	m.Usage, m.Peak, m.Limit = r.number("memory.current"), r.number("memory.peak"), r.number("memory.max")
	m.SwapUsage, m.SwapLimit = r.number("memory.swap.current"), r.number("memory.swap.max")
	m.Raw = r.table("memory.stat")
	m.Cache, m.Anon, m.Kernel, m.Inactive = m.Raw["file"], m.Raw["anon"], m.Raw["kernel"], m.Raw["inactive_file"]
	m.Failures, _ = field(r.bytes("memory.events"), "max")
	t := r.table("cpu.stat")
	us := func(k string) time.Duration { return time.Duration(t[k]) * time.Microsecond }
	s.CPU = CPU{us("usage_usec"), us("user_usec"), us("system_usec"), t["nr_periods"], t["nr_throttled"], us("throttled_usec")}
	s.readPids(r)
	for line := range bytes.Lines(r.bytes("io.stat")) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			continue
		}
		var d IO
		if !d.device(f[0]) {
			continue
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			n, _ := strconv.ParseUint(v, 10, 64)
			switch k {
			case "rbytes":
				d.ReadBytes = n
			case "wbytes":
				d.WriteBytes = n
			case "rios":
				d.Reads = n
			case "wios":
				d.Writes = n
			}
		}
		s.IO = append(s.IO, d)
	}
	s.readHugetlb(r, ".current", ".peak", func(size string) uint64 {
		n, _ := field(r.bytes("hugetlb."+size+".events"), "max")
		return n
	})
}

func (s *Stats) readPids(r reader) {
	s.Pids = Pids{r.number("pids.current"), r.number("pids.max")}
	if s.Pids.Current == 0 && r.dir != "" {
		if list, err := pids(nil, r.dir); err == nil {
			s.Pids.Current = uint64(len(list))
		}
	}
}

func (d *IO) device(s string) bool {
	a, b, ok := strings.Cut(s, ":")
	var err1, err2 error
	d.Major, err1 = strconv.ParseUint(a, 10, 32)
	d.Minor, err2 = strconv.ParseUint(b, 10, 32)
	return ok && err1 == nil && err2 == nil
}

func (s *Stats) readV1(c *Cgroup) {
	m, r := &s.Memory, reader{c.dir("memory")}
	m.Usage, m.Peak, m.Limit = r.number("memory.usage_in_bytes"), r.number("memory.max_usage_in_bytes"), unlimited(r.number("memory.limit_in_bytes"))
	m.SwapLimit = unlimited(r.number("memory.memsw.limit_in_bytes"))
	m.Failures, m.Kernel = r.number("memory.failcnt"), r.number("memory.kmem.usage_in_bytes")
	m.Raw = r.table("memory.stat")
	m.Cache, m.Anon, m.SwapUsage = m.Raw["total_cache"], m.Raw["total_rss"], m.Raw["total_swap"]
	m.Inactive = m.Raw["total_inactive_file"]
	r = reader{c.dir("cpuacct")}
	s.CPU.Total = time.Duration(r.number("cpuacct.usage"))
	s.CPU.User, s.CPU.System = time.Duration(r.number("cpuacct.usage_user")), time.Duration(r.number("cpuacct.usage_sys"))
	t := reader{c.dir("cpu")}.table("cpu.stat")
	s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime = t["nr_periods"], t["nr_throttled"], time.Duration(t["throttled_time"])
	s.readPids(reader{c.dir("pids")})
	r = reader{c.dir("blkio")}
	s.readBlkio(r, func(d *IO, op string, n uint64) {
		switch op {
		case "Read":
			d.ReadBytes = n
		case "Write":
			d.WriteBytes = n
		}
	}, "blkio.throttle.io_service_bytes_recursive", "blkio.bfq.io_service_bytes_recursive")
	s.readBlkio(r, func(d *IO, op string, n uint64) {
		switch op {
		case "Read":
			d.Reads = n
		case "Write":
			d.Writes = n
		}
	}, "blkio.throttle.io_serviced_recursive", "blkio.bfq.io_serviced_recursive")
	r = reader{c.dir("hugetlb")}
	s.readHugetlb(r, ".usage_in_bytes", ".max_usage_in_bytes", func(size string) uint64 { return r.number("hugetlb." + size + ".failcnt") })
}

// unlimited recognises v1's "no limit": the largest page-aligned number.
func unlimited(n uint64) uint64 {
	if n >= math.MaxInt64&^0xffff {
		return NoLimit
	}
	return n
}

// readBlkio takes the first of the files that has counted anything: "major:minor operation count" in lines.
func (s *Stats) readBlkio(r reader, set func(d *IO, op string, n uint64), files ...string) {
	for _, file := range files {
		found := false
		for line := range bytes.Lines(r.bytes(file)) {
			f := strings.Fields(string(line))
			var d IO
			if len(f) != 3 || !d.device(f[0]) {
				continue
			}
			n, _ := strconv.ParseUint(f[2], 10, 64)
			set(s.disk(d.Major, d.Minor), f[1], n)
			found = true
		}
		if found {
			return
		}
	}
}

func (s *Stats) disk(major, minor uint64) *IO {
	for i := range s.IO {
		if s.IO[i].Major == major && s.IO[i].Minor == minor {
			return &s.IO[i]
		}
	}
	s.IO = append(s.IO, IO{Major: major, Minor: minor})
	return &s.IO[len(s.IO)-1]
}

// readHugetlb finds the page sizes by the files that are there.
func (s *Stats) readHugetlb(r reader, usage, peak string, failures func(string) uint64) {
	for _, size := range [...]string{"64KB", "1MB", "2MB", "16MB", "32MB", "512MB", "1GB", "2GB", "16GB"} {
		n, ok := number(r.bytes("hugetlb." + size + usage))
		if !ok {
			continue
		}
		s.Hugetlb = append(s.Hugetlb, Hugetlb{size, n, r.number("hugetlb." + size + peak), failures(size)})
	}
}

// pressure reads a PSI file; it is nil if the kernel has none.
func (r reader) pressure(file string) *Pressure {
	b := r.bytes(file)
	if len(b) == 0 {
		return nil
	}
	var p Pressure
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) < 5 {
			continue
		}
		l := &p.Some
		if f[0] == "full" {
			l = &p.Full
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			switch k {
			case "avg10":
				l.Avg10, _ = strconv.ParseFloat(v, 64)
			case "avg60":
				l.Avg60, _ = strconv.ParseFloat(v, 64)
			case "avg300":
				l.Avg300, _ = strconv.ParseFloat(v, 64)
			case "total":
				n, _ := strconv.ParseInt(v, 10, 64)
				l.Total = time.Duration(n) * time.Microsecond
			}
		}
	}
	return &p
}
