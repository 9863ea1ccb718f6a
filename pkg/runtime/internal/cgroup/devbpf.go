// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A bpfInsn is the kernel's struct bpf_insn.
type bpfInsn struct {
	code uint8
	regs uint8 // dst | src<<4
	off  int16
	imm  int32
}

// Opcodes of the few instructions used, from linux/bpf.h.
const (
	ldxW   = 0x61 // dst = *(u32 *)(src + off)
	rsh64  = 0x77 // dst >>= imm
	and64  = 0x57 // dst &= imm
	mov64  = 0xb7 // dst = imm
	movX64 = 0xbf // dst = src
	jne    = 0x55 // if dst != imm: skip off
	jeq    = 0x15
	exit   = 0x95
)

// program is the policy as a BPF program of type cgroup device. Its context is {u32 access << 16 | type, major,
// minor}; r3 holds the access bits that no rule has granted yet. The rules run from the last to the first.
func (p *policy) program() []bpfInsn {
	o := make([]bpfInsn, 0, 16+7*len(p.rules))
	o = append(o,
		bpfInsn{ldxW, 2 | 1<<4, 0, 0},
		bpfInsn{movX64, 3 | 2<<4, 0, 0},
		bpfInsn{rsh64, 3, 0, 16},
		bpfInsn{and64, 2, 0, 0xffff},
		bpfInsn{ldxW, 4 | 1<<4, 4, 0},
		bpfInsn{ldxW, 5 | 1<<4, 8, 0})
	ret := func(allow bool) {
		v := int32(0)
		if allow {
			v = 1
		}
		o = append(o, bpfInsn{mov64, 0, 0, v}, bpfInsn{code: exit})
	}
	for i := len(p.rules) - 1; i >= 0; i-- {
		r := &p.rules[i]
		start := len(o)
		typ := int32(unix.BPF_DEVCG_DEV_CHAR)
		if r.typ == 'b' {
			typ = unix.BPF_DEVCG_DEV_BLOCK
		}
		o = append(o, bpfInsn{jne, 2, 0, typ})
		if r.major != wild {
			o = append(o, bpfInsn{jne, 4, 0, int32(r.major)})
		}
		if r.minor != wild {
			o = append(o, bpfInsn{jne, 5, 0, int32(r.minor)})
		}
		jumps := len(o)
		switch {
		case r.access == accAll:
			ret(r.allow)
		case r.allow:
			o = append(o, bpfInsn{and64, 3, 0, int32(accAll &^ r.access)}, bpfInsn{jne, 3, 2, 0})
			ret(true)
		default:
			o = append(o, bpfInsn{movX64, 6 | 3<<4, 0, 0}, bpfInsn{and64, 6, 0, int32(r.access)}, bpfInsn{jeq, 6, 2, 0})
			ret(false)
		}
		for j := start; j < jumps; j++ {
			o[j].off = int16(len(o) - j - 1)
		}
	}
	ret(p.allow)
	return o
}

// attach loads the program and ties it to the cgroup, then drops the one it replaces. A policy that allows all needs
// none. RLIMIT_MEMLOCK stays as it is: kernels since 5.11 charge programs to the memory cgroup.
func (p *policy) attach(dir string, update bool) error {
	if p.allow && len(p.rules) == 0 && !update {
		return nil
	}
	cg, err := openAt(dir, "", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(cg)
	var old []uint32
	if update {
		if old, err = attached(cg); err != nil {
			return fmt.Errorf("device programs of %s: %w", dir, err)
		}
	}
	prog, err := load(p.program())
	if err != nil {
		return fmt.Errorf("load the device program of %s: %w", dir, err)
	}
	defer unix.Close(prog)
	// Each field as in union bpf_attr, BPF_PROG_ATTACH.
	attr := struct{ target, prog, typ, flags uint32 }{uint32(cg), uint32(prog), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return fmt.Errorf("attach the device program to %s: %w", dir, err)
	}
	for _, id := range old {
		if err := detach(cg, id); err != nil {
			return fmt.Errorf("detach device program %d from %s: %w", id, dir, err)
		}
	}
	return nil
}

func load(insns []bpfInsn) (int, error) {
	license := &[...]byte{'A', 'p', 'a', 'c', 'h', 'e', 0} // the program calls no helper that asks for GPL
	var pin runtime.Pinner                                 // the kernel gets addresses as numbers, which a moving stack would break
	defer pin.Unpin()
	pin.Pin(license)
	pin.Pin(&insns[0])
	attr := struct {
		typ, count     uint32
		insns, license uint64
		logLevel       uint32
		logSize        uint32
		logBuf         uint64
		kernVersion    uint32
		flags          uint32
		name           [16]byte
	}{typ: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(insns)),
		insns: uint64(uintptr(unsafe.Pointer(&insns[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	copy(attr.name[:], "ctr_devices")
	return bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// attached lists the ids of the device programs of the cgroup itself.
func attached(cg int) ([]uint32, error) {
	ids := make([]uint32, 64)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&ids[0])
	attr := struct {
		target, typ, query, flags uint32
		ids                       uint64
		count, _                  uint32
	}{target: uint32(cg), typ: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: uint32(len(ids))}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	return ids[:min(int(attr.count), len(ids))], err
}

func detach(cg int, id uint32) error {
	get := struct{ id, next, flags uint32 }{id: id}
	prog, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&get), unsafe.Sizeof(get))
	if err != nil {
		return err
	}
	defer unix.Close(prog)
	attr := struct{ target, prog, typ, flags uint32 }{uint32(cg), uint32(prog), unix.BPF_CGROUP_DEVICE, 0}
	_, err = bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// bpf makes the call.
func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	for try := 0; ; try++ {
		fd, _, e := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
		if e == unix.EAGAIN && try < 5 { // the verifier was interrupted by a signal
			continue
		}
		if e != 0 {
			return -1, e
		}
		return int(fd), nil
	}
}
