// SPDX-License-Identifier: Apache-2.0

// Package seccomp compiles linux.seccomp of config.json into a classic BPF program for seccomp(2), without
// libseccomp:
//
//	f, err := seccomp.Compile(spec.Linux.Seccomp)
//	// f.Prog is for struct sock_fprog, f.Flags for SECCOMP_SET_MODE_FILTER
//
// The program is a balanced tree over the system call numbers of each ABI: a dozen comparisons where a list takes
// hundreds. Compile is pure, knows the ABIs of amd64 and arm64 kernels, and decides as runc with libseccomp does:
//
//   - names that an ABI does not have are ignored there, names that none has are ignored;
//   - a rule whose action is the default is dropped; a rule without args outweighs rules with args; else the first rule
//     that matches decides;
//   - on 32-bit ABIs args are compared as 32 bits; a rule that names one argument twice is as many rules;
//   - a call of an ABI that the profile does not list kills;
//   - calls newer than the newest one in the profile get ENOSYS (see newestCall).
//
// See runtime-spec, config-linux.md, "Seccomp".
package seccomp

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A Filter is ready to be loaded. An empty Prog is no filter.
type Filter struct {
	Prog   []byte // struct sock_filter[], host byte order, at most 4096 of 8 bytes each
	Flags  uint   // SECCOMP_FILTER_FLAG_*; non-zero needs seccomp(2) instead of prctl(2)
	Notify bool   // Flags has NEW_LISTENER: seccomp(2) returns a descriptor for linux.seccomp.listenerPath
}

// Filter flags, from linux/seccomp.h.
const (
	flagLog          = 1 << 1
	flagSpecAllow    = 1 << 2
	flagNewListener  = 1 << 3
	flagWaitKillable = 1 << 5
)

// Return values, from linux/seccomp.h; data is ored in.
const (
	retKillProcess = 0x80000000
	retKillThread  = 0x00000000
	retTrap        = 0x00030000
	retErrno       = 0x00050000
	retNotify      = 0x7fc00000
	retTrace       = 0x7ff00000
	retLog         = 0x7ffc0000
	retAllow       = 0x7fff0000
)

const maxInstructions = 4096 // BPF_MAXINSNS

// Compile makes the filter for the machine this runs on.
func Compile(s *specs.LinuxSeccomp) (Filter, error) { return compile(s, runtime.GOARCH) }

func compile(s *specs.LinuxSeccomp, goarch string) (Filter, error) {
	var f Filter
	if s == nil || s.DefaultAction == "" && len(s.Syscalls) == 0 {
		return f, nil
	}
	def, err := action(s.DefaultAction, s.DefaultErrnoRet)
	if err != nil {
		return f, fmt.Errorf("linux.seccomp.defaultAction: %w", err)
	}
	if def == retNotify {
		return f, errors.New("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY would hold the runtime itself before it can pass the listener on")
	}
	rules, named, notify, err := rules(s, def)
	if err != nil {
		return f, err
	}
	if f.Flags, err = flags(s.Flags, notify); err != nil {
		return f, err
	}
	if f.Notify = notify; notify && s.ListenerPath == "" {
		return f, errors.New("linux.seccomp.listenerPath is empty, and a rule has SCMP_ACT_NOTIFY")
	}
	abis, err := abis(s.Architectures, goarch)
	if err != nil {
		return f, err
	}
	p := program(rules, named, def, abis)
	if len(p) > maxInstructions {
		return f, fmt.Errorf("linux.seccomp: the filter has %d instructions, the kernel takes %d", len(p), maxInstructions)
	}
	f.Prog = encode(p)
	return f, nil
}

// A rule is specs.LinuxSyscall with what can be decided once.
type rule struct {
	rows  []int16 // of table
	ret   uint32
	conds []cond
}

// A cond compares one argument, after the mask, with value.
type cond struct {
	index       uint32
	op          specs.LinuxSeccompOperator
	value, mask uint64
}

// rules turns the profile into rules that change something; named are the rows of all its names.
func rules(s *specs.LinuxSeccomp, def uint32) (list []rule, named []int16, notify bool, err error) {
	list, named = make([]rule, 0, len(s.Syscalls)+4), make([]int16, 0, len(table))
	hint := -1
	for i := range s.Syscalls {
		c := &s.Syscalls[i]
		ret, err := action(c.Action, c.ErrnoRet)
		if err != nil {
			return nil, nil, false, fmt.Errorf("linux.seccomp.syscalls[%d]: %w", i, err)
		}
		if len(c.Names) == 0 {
			return nil, nil, false, fmt.Errorf("linux.seccomp.syscalls[%d]: no names", i)
		}
		first := len(named)
		for _, n := range c.Names {
			if n == "" {
				return nil, nil, false, fmt.Errorf("linux.seccomp.syscalls[%d]: an empty name", i)
			}
			if n == "write" && ret == retNotify {
				return nil, nil, false, fmt.Errorf("linux.seccomp.syscalls[%d]: SCMP_ACT_NOTIFY for write would hold the runtime itself before it can pass the listener on", i)
			}
			if x := lookup(n, hint); x >= 0 {
				named = append(named, int16(x))
				hint = x
			}
		}
		notify = notify || ret == retNotify
		if ret == def {
			continue
		}
		r := rule{rows: named[first:], ret: ret}
		twice := false
		for j := range c.Args {
			a := &c.Args[j]
			if a.Index > 5 {
				return nil, nil, false, fmt.Errorf("linux.seccomp.syscalls[%d]: args[%d].index is %d, want 0 to 5", i, j, a.Index)
			}
			x := cond{uint32(a.Index), a.Op, a.Value, ^uint64(0)}
			switch a.Op {
			case specs.OpMaskedEqual:
				x.mask, x.value = a.Value, a.ValueTwo&a.Value
			case specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual:
			default:
				return nil, nil, false, fmt.Errorf("linux.seccomp.syscalls[%d]: args[%d].op is %q, want SCMP_CMP_NE, LT, LE, EQ, GE, GT or MASKED_EQ", i, j, a.Op)
			}
			twice = twice || slices.ContainsFunc(r.conds, func(o cond) bool { return o.index == x.index })
			r.conds = append(r.conds, x)
		}
		if !twice {
			list = append(list, r)
			continue
		}
		for j := range r.conds {
			list = append(list, rule{r.rows, r.ret, r.conds[j : j+1]})
		}
	}
	return list, named, notify, nil
}

func action(a specs.LinuxSeccompAction, errnoRet *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if errnoRet != nil {
		if a != specs.ActErrno && a != specs.ActTrace {
			return 0, fmt.Errorf("errnoRet goes with SCMP_ACT_ERRNO and SCMP_ACT_TRACE, not with %q", a)
		}
		if *errnoRet > 0xffff {
			return 0, fmt.Errorf("errnoRet is %d, want at most 65535", *errnoRet)
		}
		data = uint32(*errnoRet)
	}
	switch a {
	case specs.ActAllow:
		return retAllow, nil
	case specs.ActErrno:
		return retErrno | data, nil
	case specs.ActKill, specs.ActKillThread:
		return retKillThread, nil
	case specs.ActKillProcess:
		return retKillProcess, nil
	case specs.ActTrap:
		return retTrap, nil
	case specs.ActTrace:
		return retTrace | data, nil
	case specs.ActLog:
		return retLog, nil
	case specs.ActNotify:
		return retNotify, nil
	}
	return 0, fmt.Errorf("action %q, want SCMP_ACT_KILL, KILL_PROCESS, KILL_THREAD, TRAP, ERRNO, TRACE, ALLOW, LOG or NOTIFY", a)
}

// flags: without a list, speculative store bypass stays as it is, as runc and Docker choose.
func flags(list []specs.LinuxSeccompFlag, notify bool) (uint, error) {
	var f uint
	if list == nil {
		f = flagSpecAllow
	}
	for _, x := range list {
		switch x {
		case specs.LinuxSeccompFlagLog:
			f |= flagLog
		case specs.LinuxSeccompFlagSpecAllow:
			f |= flagSpecAllow
		case specs.LinuxSeccompFlagWaitKillableRecv:
			if !notify {
				return 0, fmt.Errorf("linux.seccomp.flags: %s needs a rule with SCMP_ACT_NOTIFY", x)
			}
			f |= flagWaitKillable
		case "SECCOMP_FILTER_FLAG_TSYNC": // there is one thread
		default:
			return 0, fmt.Errorf("linux.seccomp.flags: %q is not known", x)
		}
	}
	if notify {
		f |= flagNewListener
	}
	return f, nil
}

// Known lists what Compile accepts, for "ctr-run features".
func Known() (actions, operators, archs, flags []string) {
	return []string{"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
			"SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"},
		[]string{"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"},
		[]string{"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"},
		[]string{"SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}
}
