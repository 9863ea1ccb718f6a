// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ctr-tools/ctr/pkg/image"
)

// call is struct seccomp_data without the instruction pointer.
type call struct {
	arch uint32
	nr   uint32
	args [6]uint64
}

func (c call) String() string {
	return fmt.Sprintf("arch %#x nr %#x args %#x", c.arch, c.nr, c.args)
}

// interpret runs a filter as the kernel does and checks what its verifier checks.
func interpret(t testing.TB, prog []byte, c call) uint32 {
	t.Helper()
	n := len(prog) / 8
	var a uint32
	for pc := 0; pc < n; pc++ {
		i := prog[8*pc:]
		code, jt, jf, k := binary.NativeEndian.Uint16(i), int(i[2]), int(i[3]), binary.NativeEndian.Uint32(i[4:])
		jump := func(yes bool) {
			if yes {
				pc += jt
			} else {
				pc += jf
			}
		}
		switch code {
		case opLoad:
			switch {
			case k == offNr:
				a = c.nr
			case k == offArch:
				a = c.arch
			case k >= offArgs && k < offArgs+48 && k%4 == 0:
				v := c.args[(k-offArgs)/8]
				if hi, _ := halves((k - offArgs) / 8); hi == k {
					v >>= 32
				}
				a = uint32(v)
			default:
				t.Fatalf("load at %d", k)
			}
		case opAnd:
			a &= k
		case opJA:
			pc += int(k)
		case opJEQ:
			jump(a == k)
		case opJGT:
			jump(a > k)
		case opJGE:
			jump(a >= k)
		case opJSET:
			jump(a&k != 0)
		case opRet:
			return k
		default:
			t.Fatalf("opcode %#x at %d", code, pc)
		}
	}
	t.Fatalf("ran off the end of %d instructions with %v", n, c)
	return 0
}

// reader is what naive needs to know about a profile, found once.
type reader struct {
	*specs.LinuxSeccomp
	abis   []abi
	newest []int32
	names  []map[int32]map[string]bool // by abi and number
}

func read(t testing.TB, s *specs.LinuxSeccomp, goarch string) *reader {
	t.Helper()
	list, err := abis(s.Architectures, goarch)
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{LinuxSeccomp: s, abis: list}
	for i := range list {
		newest, names := int32(-1), map[int32]map[string]bool{}
		for _, row := range table {
			nr := list[i].number(&row)
			if nr < 0 {
				continue
			}
			if names[nr] == nil {
				names[nr] = map[string]bool{}
			}
			names[nr][row.name] = true
			for _, c := range s.Syscalls {
				if nr < private && slices.Contains(c.Names, row.name) {
					newest = max(newest, nr)
				}
			}
		}
		r.newest, r.names = append(r.newest, newest), append(r.names, names)
	}
	return r
}

// naive decides about a call straight from the profile, in the words of the package comment.
func naive(s *reader, goarch string, c call) uint32 {
	list := s.abis
	def, _ := action(s.DefaultAction, s.DefaultErrnoRet)
	var a *abi
	var names map[string]bool
	nr, newest := int32(c.nr), int32(-1)
	x32 := c.arch == auditAMD64 && c.nr&x32Bit != 0
	if x32 {
		nr = int32(c.nr &^ x32Bit)
	}
	for i := range list {
		if list[i].audit == c.arch && (list[i].arch == specs.ArchX32) == x32 {
			a, names, newest = &list[i], s.names[i][nr], s.newest[i]
		}
	}
	b := builder{def: def}
	if a == nil {
		if c.arch != auditAMD64 || c.nr != ^uint32(0) || goarch != "amd64" {
			return retKillProcess
		}
		if b.needsENOSYS() {
			return retErrno | 38
		}
		return def
	}
	if b.needsENOSYS() && newest >= 0 && uint32(nr) > uint32(newest) && (a.arch != specs.ArchARM || uint32(nr) < private) {
		return retErrno | 38
	}
	matches := func(x specs.LinuxSeccompArg) bool {
		v, w, m := c.args[x.Index], x.Value, x.ValueTwo
		if a.narrow {
			v, w, m = uint64(uint32(v)), uint64(uint32(w)), uint64(uint32(m))
		}
		switch x.Op {
		case specs.OpEqualTo:
			return v == w
		case specs.OpNotEqual:
			return v != w
		case specs.OpLessThan:
			return v < w
		case specs.OpLessEqual:
			return v <= w
		case specs.OpGreaterThan:
			return v > w
		case specs.OpGreaterEqual:
			return v >= w
		default:
			return v&w == m&w
		}
	}
	decided := def
	found := false
	for _, plain := range []bool{true, false} {
		for _, r := range s.Syscalls {
			ret, _ := action(r.Action, r.ErrnoRet)
			if found || ret == def {
				continue
			}
			direct := slices.ContainsFunc(r.Names, func(n string) bool { return names[n] })
			if plain && direct && len(r.Args) == 0 {
				decided, found = ret, true
			}
			if plain {
				continue
			}
			if direct && len(r.Args) > 0 {
				seen := map[uint]bool{}
				twice := false
				all, any := true, false
				for _, x := range r.Args {
					twice = twice || seen[x.Index]
					seen[x.Index] = true
					m := matches(x)
					all, any = all && m, any || m
				}
				if twice && any || !twice && all {
					decided, found = ret, true
				}
			}
			for _, n := range r.Names {
				if mux, sub := muxed(n); !found && a.arch == specs.ArchX86 && names[mux] && len(r.Args) == 0 && uint32(c.args[0]) == uint32(sub) {
					decided, found = ret, true
				}
			}
		}
	}
	return decided
}

// compare runs a filter over every number and the arguments that matter.
func compare(t *testing.T, s *specs.LinuxSeccomp, goarch string, step int) {
	t.Helper()
	f, err := compile(s, goarch)
	if err != nil {
		t.Fatal(err)
	}
	r := read(t, s, goarch)
	for _, c := range questions(s, goarch, step) {
		if got, want := interpret(t, f.Prog, c), naive(r, goarch, c); got != want {
			t.Fatalf("%v: filter says %#x, profile %#x", c, got, want)
		}
	}
}

// questions lists calls worth asking about: all numbers without arguments, and those with rules with every value that a
// rule compares, and its neighbours.
func questions(s *specs.LinuxSeccomp, goarch string, step int) []call {
	archs := []uint32{auditAMD64, auditI386, 0x12345678}
	if goarch == "arm64" {
		archs = []uint32{auditARM64, auditARM, auditI386}
	}
	var list []call
	for _, a := range archs {
		for nr := 0; nr < 560; nr += step {
			list = append(list, call{arch: a, nr: uint32(nr)}, call{arch: a, nr: uint32(nr) | x32Bit})
		}
		for _, nr := range []uint32{1023, 1024, 1025, private - 1, private, private + 2, private + 5, private + 15, private + 16, 1 << 31, ^uint32(0), x32Bit - 1} {
			list = append(list, call{arch: a, nr: nr})
		}
		for _, r := range s.Syscalls {
			for _, x := range r.Args {
				for _, n := range r.Names[:min(len(r.Names), 3)] {
					i := lookup(n, -1)
					if i < 0 {
						continue
					}
					for _, nr := range []int32{table[i].amd64, table[i].x32 | x32Bit, table[i].i386, table[i].arm64, table[i].arm} {
						for _, v := range []uint64{x.Value, x.Value - 1, x.Value + 1, x.Value ^ 1<<40, x.ValueTwo, x.ValueTwo | 1<<33, x.ValueTwo &^ x.Value, ^uint64(0), 0, x.Value << 32, x.Value >> 32} {
							c := call{arch: a, nr: uint32(nr)}
							for j := range c.args {
								c.args[j] = v
							}
							list = append(list, c)
							c.args = [6]uint64{}
							c.args[x.Index] = v
							list = append(list, c)
						}
					}
				}
			}
		}
		if a == auditI386 {
			for sub := range uint64(30) {
				list = append(list, call{arch: a, nr: 102, args: [6]uint64{sub}}, call{arch: a, nr: 117, args: [6]uint64{sub}})
			}
		}
	}
	return list
}

func TestDefaultPolicy(t *testing.T) {
	for _, caps := range [][]string{nil, {"CAP_SYS_ADMIN"}, {"CAP_SYS_PTRACE", "CAP_BPF"}} {
		s := image.DefaultSeccomp(caps)
		compare(t, s, "amd64", 1)
		s.Architectures = []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
		compare(t, s, "arm64", 1)
		s.Architectures = nil
		compare(t, s, "amd64", 1)
	}
}

// random makes a profile that exercises everything, from the seeds of r.
func random(r *rand.Rand) *specs.LinuxSeccomp {
	one := func(list ...string) string { return list[r.IntN(len(list))] }
	errno := func(a specs.LinuxSeccompAction) *uint {
		if (a == specs.ActErrno || a == specs.ActTrace) && r.IntN(2) == 0 {
			e := uint(r.IntN(100))
			return &e
		}
		return nil
	}
	s := &specs.LinuxSeccomp{DefaultAction: specs.LinuxSeccompAction(one("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL", "SCMP_ACT_LOG", "SCMP_ACT_TRAP", "SCMP_ACT_TRACE"))}
	s.DefaultErrnoRet = errno(s.DefaultAction)
	for _, a := range []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM, specs.ArchS390X} {
		if r.IntN(3) > 0 {
			s.Architectures = append(s.Architectures, a)
		}
	}
	for range r.IntN(40) {
		c := specs.LinuxSyscall{Action: specs.LinuxSeccompAction(one("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRAP", "SCMP_ACT_TRACE"))}
		c.ErrnoRet = errno(c.Action)
		for range 1 + r.IntN(5) {
			c.Names = append(c.Names, table[r.IntN(len(table))].name)
		}
		if r.IntN(10) == 0 {
			c.Names = append(c.Names, "no_such_call", "socket", "shmat")
		}
		if r.IntN(2) == 0 {
			for range 1 + r.IntN(3) {
				a := specs.LinuxSeccompArg{Index: uint(r.IntN(6)), Value: r.Uint64() >> r.IntN(64), ValueTwo: r.Uint64() >> r.IntN(64),
					Op: specs.LinuxSeccompOperator(one("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"))}
				if r.IntN(2) == 0 {
					a.ValueTwo &= a.Value
				}
				c.Args = append(c.Args, a)
			}
		}
		s.Syscalls = append(s.Syscalls, c)
	}
	return s
}

func TestRandomPolicies(t *testing.T) {
	for seed := range uint64(30) {
		s := random(rand.New(rand.NewPCG(seed, 1)))
		goarch := []string{"amd64", "arm64"}[seed%2]
		t.Run(fmt.Sprint(seed), func(t *testing.T) { compare(t, s, goarch, 3) })
	}
}

func TestLongRules(t *testing.T) {
	// One call with so many rules that jumps across it need more than 8 bits.
	s := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86}}
	for i := range uint64(120) {
		s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{Names: []string{"personality"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 0, Value: i*3 + i<<32, Op: specs.OpEqualTo}, {Index: 3, Value: i, Op: specs.OpGreaterThan}}})
	}
	s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{Names: []string{"read", "write", "pwritev2"}, Action: specs.ActAllow})
	compare(t, s, "amd64", 1)
}

func TestTable(t *testing.T) {
	for i := range table {
		r := &table[i]
		if i > 0 && table[i-1].name >= r.name {
			t.Errorf("%s is not in order", r.name)
		}
		if lookup(r.name, -1) != i || lookup(r.name, i-1) != i || lookup(r.name, len(table)) != i {
			t.Errorf("%s is not found", r.name)
		}
	}
	for _, n := range []string{"", "a", "zzz", "no_such_call"} {
		if lookup(n, 3) >= 0 {
			t.Errorf("%q is found", n)
		}
	}
}

func TestErrors(t *testing.T) {
	n := uint(5)
	big := uint(70000)
	rule := func(r specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{r}}
	}
	for want, s := range map[string]*specs.LinuxSeccomp{
		"defaultAction: action \"\"":             {Syscalls: []specs.LinuxSyscall{{}}},
		"SCMP_ACT_NOTIFY would hold the runtime": {DefaultAction: specs.ActNotify},
		"errnoRet goes with":                     {DefaultAction: specs.ActAllow, DefaultErrnoRet: &n},
		"errnoRet is 70000":                      {DefaultAction: specs.ActErrno, DefaultErrnoRet: &big},
		"no names":                               rule(specs.LinuxSyscall{Action: specs.ActErrno}),
		"an empty name":                          rule(specs.LinuxSyscall{Action: specs.ActErrno, Names: []string{""}}),
		"listenerPath is empty":                  rule(specs.LinuxSyscall{Action: specs.ActNotify, Names: []string{"mkdir"}}),
		"for write would hold":                   rule(specs.LinuxSyscall{Action: specs.ActNotify, Names: []string{"write"}}),
		"args[0].index is 6":                     rule(specs.LinuxSyscall{Action: specs.ActErrno, Names: []string{"read"}, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}),
		"args[0].op is \"=\"":                    rule(specs.LinuxSyscall{Action: specs.ActErrno, Names: []string{"read"}, Args: []specs.LinuxSeccompArg{{Op: "="}}}),
		"\"x86\" is not an architecture":         {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"x86"}},
		"flags: \"FAST\" is not known":           {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"FAST"}},
		"WAIT_KILLABLE_RECV needs a rule":        {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}},
	} {
		if _, err := compile(s, "amd64"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, "s390x"); err == nil {
		t.Error("a machine without a table compiles")
	}
	if f, err := compile(&specs.LinuxSeccomp{}, "amd64"); err != nil || f.Prog != nil {
		t.Errorf("an empty profile: %v, %v; want no filter", f, err)
	}
}

func TestFlags(t *testing.T) {
	s := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/run/l", Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}}
	if f, err := compile(s, "amd64"); err != nil || f.Flags != flagSpecAllow|flagNewListener || !f.Notify {
		t.Errorf("%+v, %v", f.Flags, err)
	}
	s.Flags = []specs.LinuxSeccompFlag{}
	if f, err := compile(s, "amd64"); err != nil || f.Flags != flagNewListener {
		t.Errorf("%+v, %v", f.Flags, err)
	}
	s.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagWaitKillableRecv, "SECCOMP_FILTER_FLAG_TSYNC"}
	if f, err := compile(s, "amd64"); err != nil || f.Flags != flagNewListener|flagLog|flagWaitKillable {
		t.Errorf("%+v, %v", f.Flags, err)
	}
}

func BenchmarkCompile(b *testing.B) {
	s := image.DefaultSeccomp(nil)
	b.ReportAllocs()
	for b.Loop() {
		f, err := Compile(s)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(f.Prog)/8), "instructions")
	}
}
