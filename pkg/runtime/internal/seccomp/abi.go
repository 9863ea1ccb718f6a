// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// An abi is a set of system call numbers.
type abi struct {
	arch   specs.Arch
	audit  uint32 // seccomp_data.arch
	narrow bool   // arguments count as 32 bits
	number func(*row) int32
}

// Audit architectures, from linux/audit.h.
const (
	auditAMD64 = 0xc000003e
	auditI386  = 0x40000003
	auditARM64 = 0xc00000b7
	auditARM   = 0x40000028
)

// x32Bit tells x32's numbers from amd64's; both have the same audit architecture.
const x32Bit = 1 << 30

// private is where arm's own calls begin; they do not count as new.
const private = 0xf0000

// abis lists the ABIs that the filter lets through, the machine's own first: it is always among them. The other names
// of runtime-spec are architectures whose calls this kernel cannot make.
func abis(archs []specs.Arch, goarch string) ([]abi, error) {
	var list []abi
	switch goarch {
	case "amd64":
		list = []abi{{specs.ArchX86_64, auditAMD64, false, func(r *row) int32 { return r.amd64 }}}
	case "arm64":
		list = []abi{{specs.ArchAARCH64, auditARM64, false, func(r *row) int32 { return r.arm64 }}}
	default:
		return nil, fmt.Errorf("linux.seccomp: no system call table for %s", goarch)
	}
	for i, a := range archs {
		switch {
		case a == list[0].arch:
		case a == specs.ArchX86 && goarch == "amd64":
			list = insert(list, abi{a, auditI386, true, func(r *row) int32 { return r.i386 }})
		case a == specs.ArchX32 && goarch == "amd64":
			list = insert(list, abi{a, auditAMD64, true, func(r *row) int32 { return r.x32 }})
		case a == specs.ArchARM && goarch == "arm64":
			list = insert(list, abi{a, auditARM, true, func(r *row) int32 { return r.arm }})
		case !known(a):
			return nil, fmt.Errorf("linux.seccomp.architectures[%d]: %q is not an architecture of runtime-spec", i, a)
		}
	}
	return list, nil
}

func insert(list []abi, a abi) []abi {
	for i := range list {
		if list[i].arch == a.arch {
			return list
		}
	}
	return append(list, a)
}

func known(a specs.Arch) bool {
	switch a {
	case specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS, specs.ArchMIPS64,
		specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64,
		specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64,
		specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB:
		return true
	}
	return false
}

// lookup finds a name in the table. hint is the index of the name before: profiles are sorted and nearly complete, so
// the next name is mostly a step or two away.
func lookup(name string, hint int) int {
	for i := hint + 1; i < len(table) && i <= hint+4; i++ {
		if table[i].name == name {
			return i
		}
	}
	lo, hi := 0, len(table)
	for lo < hi {
		m := int(uint(lo+hi) / 2)
		if table[m].name < name {
			lo = m + 1
		} else {
			hi = m
		}
	}
	if lo < len(table) && table[lo].name == name {
		return lo
	}
	return -1
}

// muxed gives the sub-call number of names that i386 also reaches through socketcall(2) or ipc(2). On that way only
// the sub-call can be checked: its arguments lie behind a pointer.
func muxed(name string) (mux string, call uint64) {
	switch name {
	case "socket":
		return "socketcall", 1
	case "bind":
		return "socketcall", 2
	case "connect":
		return "socketcall", 3
	case "listen":
		return "socketcall", 4
	case "accept":
		return "socketcall", 5
	case "getsockname":
		return "socketcall", 6
	case "getpeername":
		return "socketcall", 7
	case "socketpair":
		return "socketcall", 8
	case "send":
		return "socketcall", 9
	case "recv":
		return "socketcall", 10
	case "sendto":
		return "socketcall", 11
	case "recvfrom":
		return "socketcall", 12
	case "shutdown":
		return "socketcall", 13
	case "setsockopt":
		return "socketcall", 14
	case "getsockopt":
		return "socketcall", 15
	case "sendmsg":
		return "socketcall", 16
	case "recvmsg":
		return "socketcall", 17
	case "accept4":
		return "socketcall", 18
	case "recvmmsg":
		return "socketcall", 19
	case "sendmmsg":
		return "socketcall", 20
	case "semop":
		return "ipc", 1
	case "semget":
		return "ipc", 2
	case "semctl":
		return "ipc", 3
	case "semtimedop":
		return "ipc", 4
	case "msgsnd":
		return "ipc", 11
	case "msgrcv":
		return "ipc", 12
	case "msgget":
		return "ipc", 13
	case "msgctl":
		return "ipc", 14
	case "shmat":
		return "ipc", 21
	case "shmdt":
		return "ipc", 22
	case "shmget":
		return "ipc", 23
	case "shmctl":
		return "ipc", 24
	}
	return "", 0
}
