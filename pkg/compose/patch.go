// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// configPatch is what a service changes in config.json beyond ctr-fetch unpack's flags, as an RFC 7396 merge
// patch; empty if nothing. A merge patch replaces arrays whole, so only arrays that belong to one attribute
// (rlimits, namespaces) are in it.
func configPatch(s types.ServiceConfig) (string, error) {
	p := object{}
	if err := p.limits(s); err != nil {
		return "", err
	}
	if err := p.rights(s); err != nil {
		return "", err
	}
	if err := p.process(s); err != nil {
		return "", err
	}
	if err := p.namespaces(s); err != nil {
		return "", err
	}
	if s.DomainName != "" {
		p.set(s.DomainName, "domainname")
	}
	for k, v := range s.Sysctls {
		p.set(v, "linux", "sysctl", k)
	}
	if len(p) == 0 {
		return "", nil
	}
	return p.text()
}

// text is the patch as JSON: a line for each member of the second level, so that people can read and compare it
// even where a seccomp profile is in it.
func (o object) text() (string, error) {
	var b strings.Builder
	b.WriteString("{\n")
	for i, k := range slices.Sorted(maps.Keys(o)) {
		inner, ok := o[k].(object)
		if i > 0 {
			b.WriteString(",\n")
		}
		if !ok {
			data, err := json.Marshal(o[k])
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "  %q: %s", k, data)
			continue
		}
		fmt.Fprintf(&b, "  %q: {\n", k)
		for j, l := range slices.Sorted(maps.Keys(inner)) {
			data, err := json.Marshal(inner[l])
			if err != nil {
				return "", err
			}
			if j > 0 {
				b.WriteString(",\n")
			}
			fmt.Fprintf(&b, "    %q: %s", l, data)
		}
		b.WriteString("\n  }")
	}
	b.WriteString("\n}\n")
	return b.String(), nil
}

type object map[string]any

func (o object) set(v any, path ...string) {
	for _, k := range path[:len(path)-1] {
		next, ok := o[k].(object)
		if !ok {
			next = object{}
			o[k] = next
		}
		o = next
	}
	o[path[len(path)-1]] = v
}

// maxCPUs keeps a quota in the kernel's range (2^44 microseconds of a period).
const maxCPUs = 100000

func (o object) limits(s types.ServiceConfig) error {
	var limit, reserve types.Resource
	if s.Deploy != nil {
		if s.Deploy.Resources.Limits != nil {
			limit = *s.Deploy.Resources.Limits
		}
		if s.Deploy.Resources.Reservations != nil {
			reserve = *s.Deploy.Resources.Reservations
		}
	}
	memory := or(int64(s.MemLimit), int64(limit.MemoryBytes))
	for _, v := range []struct { // below 0: written so, or too large for the loader
		attribute string
		value     int64
	}{
		{"mem_limit", int64(s.MemLimit)}, {"mem_reservation", int64(s.MemReservation)}, {"deploy.resources.limits.memory", int64(limit.MemoryBytes)},
		{"deploy.resources.reservations.memory", int64(reserve.MemoryBytes)}, {"shm_size", int64(s.ShmSize)}, {"memswap_limit", int64(s.MemSwapLimit)},
	} {
		if v.value < 0 && (v.attribute != "memswap_limit" || v.value != -1) {
			return fmt.Errorf("%s: want 0 to 2^63-1 bytes", v.attribute)
		}
	}
	if memory != 0 {
		o.set(memory, "linux", "resources", "memory", "limit")
	}
	if v := int64(s.MemSwapLimit); v != 0 {
		if v > 0 && v < memory {
			return fmt.Errorf("memswap_limit: found %d, want at least mem_limit (%d): it is memory and swap together", v, memory)
		}
		o.set(v, "linux", "resources", "memory", "swap")
	}
	if v := or(int64(s.MemReservation), int64(reserve.MemoryBytes)); v != 0 {
		o.set(v, "linux", "resources", "memory", "reservation")
	}
	if v := int64(s.MemSwappiness); v != 0 {
		o.set(v, "linux", "resources", "memory", "swappiness")
	}
	if s.OomKillDisable {
		o.set(true, "linux", "resources", "memory", "disableOOMKiller")
	}
	cpus := or(float64(s.CPUS), float64(limit.NanoCPUs))
	switch {
	case cpus < 0 || cpus > maxCPUs || math.IsNaN(cpus):
		return fmt.Errorf("cpus: want more than 0 and at most %d", maxCPUs)
	case cpus > 0:
		const period = 100000 // microseconds, the kernel's default
		o.set(int64(math.Round(cpus*period)), "linux", "resources", "cpu", "quota")
		o.set(period, "linux", "resources", "cpu", "period")
	}
	if s.CPUQuota != 0 {
		o.set(s.CPUQuota, "linux", "resources", "cpu", "quota")
	}
	if s.CPUPeriod != 0 {
		o.set(s.CPUPeriod, "linux", "resources", "cpu", "period")
	}
	if s.CPUShares != 0 {
		o.set(s.CPUShares, "linux", "resources", "cpu", "shares")
	}
	if s.CPUSet != "" {
		o.set(s.CPUSet, "linux", "resources", "cpu", "cpus")
	}
	if v := or(s.PidsLimit, limit.Pids); v != 0 {
		o.set(v, "linux", "resources", "pids", "limit")
	}
	return nil
}

func (o object) process(s types.ServiceConfig) error {
	var rlimits []specs.POSIXRlimit
	for name, u := range s.Ulimits {
		soft, hard := u.Soft, u.Hard
		if u.Single != 0 {
			soft, hard = u.Single, u.Single
		}
		r := specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: rlimit(soft), Hard: rlimit(hard)}
		if r.Soft > r.Hard {
			return fmt.Errorf("ulimits.%s: found soft %d above hard %d", name, soft, hard)
		}
		rlimits = append(rlimits, r)
	}
	if rlimits != nil {
		sort.Slice(rlimits, func(i, j int) bool { return rlimits[i].Type < rlimits[j].Type })
		o.set(rlimits, "process", "rlimits")
	}
	if s.OomScoreAdj != 0 {
		o.set(s.OomScoreAdj, "process", "oomScoreAdj")
	}
	var gids []uint32
	for _, g := range s.GroupAdd {
		n, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			return fmt.Errorf("group_add: found %q, want a group number (names are not supported yet)", g)
		}
		gids = append(gids, uint32(n))
	}
	if gids != nil {
		o.set(gids, "process", "user", "additionalGids")
	}
	for _, opt := range s.SecurityOpt {
		switch strings.ReplaceAll(opt, "=", ":") {
		case "no-new-privileges", "no-new-privileges:true":
			o.set(true, "process", "noNewPrivileges")
		case "no-new-privileges:false":
			o.set(false, "process", "noNewPrivileges")
		case "seccomp:unconfined":
			o.set(nil, "linux", "seccomp")
		default:
			return fmt.Errorf("security_opt: %q is not supported yet; want no-new-privileges or seccomp:unconfined", opt)
		}
	}
	return nil
}

func rlimit(v int) uint64 {
	if v < 0 {
		return math.MaxUint64 // unlimited
	}
	return uint64(v)
}

// namespaces replaces the list of namespaces where one is shared with the host. The network's path is set
// later, by ctr-net attach.
func (o object) namespaces(s types.ServiceConfig) error {
	host := map[specs.LinuxNamespaceType]bool{}
	for _, n := range []struct {
		attribute, value string
		kind             specs.LinuxNamespaceType
	}{
		{"pid", s.Pid, specs.PIDNamespace},
		{"ipc", s.Ipc, specs.IPCNamespace},
		{"uts", s.Uts, specs.UTSNamespace},
		{"cgroup", s.Cgroup, specs.CgroupNamespace},
	} {
		switch n.value {
		case "", "private":
		case "host":
			host[n.kind] = true
		default:
			return fmt.Errorf("%s: %q is not supported yet; want host or nothing", n.attribute, n.value)
		}
	}
	if len(host) == 0 {
		return nil
	}
	var list []specs.LinuxNamespace
	for _, kind := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace,
		specs.UTSNamespace, specs.MountNamespace, specs.CgroupNamespace} {
		if !host[kind] {
			list = append(list, specs.LinuxNamespace{Type: kind})
		}
	}
	o.set(list, "linux", "namespaces")
	if host[specs.UTSNamespace] {
		o.set(nil, "hostname") // runtime-spec: none without a namespace of its own
	}
	return nil
}

func or[T comparable](values ...T) T {
	var zero T
	for _, v := range values {
		if v != zero {
			return v
		}
	}
	return zero
}
