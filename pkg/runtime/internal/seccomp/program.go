// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/binary"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// An insn is the kernel's struct sock_filter.
type insn struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

// Opcodes, from linux/bpf_common.h.
const (
	opLoad = 0x20 // A = 32 bits of seccomp_data at k
	opAnd  = 0x54
	opJA   = 0x05
	opJEQ  = 0x15
	opJGT  = 0x25
	opJGE  = 0x35
	opJSET = 0x45
	opRet  = 0x06
)

// Offsets in struct seccomp_data; args are 64 bits each.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

// halves are the offsets of an argument's two words.
func halves(index uint32) (hi, lo uint32) {
	at := offArgs + 8*index
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return at + 4, at
	}
	return at, at + 4
}

// A builder writes the program backwards, because BPF jumps only forwards: every target is there before the jump to
// it. insns[0] is the last instruction.
type builder struct {
	insns []insn
	rets  []retLabel
	def   uint32
}

// A label is a place in the program: the number of instructions from it to the end.
type label int

type retLabel struct {
	value uint32
	at    label
}

func (b *builder) emit(code uint16, k uint32) label {
	b.insns = append(b.insns, insn{code: code, k: k})
	return label(len(b.insns))
}

// reach returns a label that a conditional jump (8 bits) right above the present end can get to: l or a jump to l.
func (b *builder) reach(l label) label {
	if len(b.insns)+1-int(l) <= 255 { // one more, for a trampoline of the other branch
		return l
	}
	return b.emit(opJA, uint32(len(b.insns)-int(l)))
}

// jump branches to t if A op k, else to f.
func (b *builder) jump(op uint16, k uint32, t, f label) label {
	f = b.reach(f)
	t = b.reach(t)
	n := len(b.insns)
	b.insns = append(b.insns, insn{op, uint8(n - int(t)), uint8(n - int(f)), k})
	return label(n + 1)
}

// ret returns value; near ones are shared.
func (b *builder) ret(value uint32) label {
	for i := range b.rets {
		r := &b.rets[i]
		if r.value != value {
			continue
		}
		if len(b.insns)-int(r.at) > 200 {
			r.at = b.emit(opRet, value)
		}
		return r.at
	}
	l := b.emit(opRet, value)
	b.rets = append(b.rets, retLabel{value, l})
	return l
}

// test compares one argument: pass or fail.
func (b *builder) test(c *cond, narrow bool, pass, fail label) label {
	op := uint16(opJEQ)
	switch c.op {
	case specs.OpNotEqual:
		pass, fail = fail, pass
	case specs.OpGreaterThan:
		op = opJGT
	case specs.OpGreaterEqual:
		op = opJGE
	case specs.OpLessThan:
		op, pass, fail = opJGE, fail, pass
	case specs.OpLessEqual:
		op, pass, fail = opJGT, fail, pass
	}
	hi, lo := halves(c.index)
	b.jump(op, uint32(c.value), pass, fail)
	if m := uint32(c.mask); m != ^uint32(0) {
		b.emit(opAnd, m)
	}
	low := b.emit(opLoad, lo)
	m := uint32(c.mask >> 32)
	if narrow || m == 0 {
		return low
	}
	same := b.jump(opJEQ, uint32(c.value>>32), low, fail)
	if op != opJEQ { // a larger upper word decides alone
		b.jump(opJGT, uint32(c.value>>32), pass, same)
	}
	if m != ^uint32(0) {
		b.emit(opAnd, m)
	}
	return b.emit(opLoad, hi)
}

// A leaf says what becomes of a call: ret, unless one of the rules matches first.
type leaf struct {
	ret   uint32
	rules []*rule
}

func (b *builder) leaf(f *leaf, narrow bool) label {
	next := b.ret(f.ret)
	for i := len(f.rules) - 1; i >= 0; i-- {
		r := f.rules[i]
		pass, fail := b.ret(r.ret), next
		for j := len(r.conds) - 1; j >= 0; j-- {
			pass = b.test(&r.conds[j], narrow, pass, fail)
		}
		next = pass
	}
	return next
}

// calls is what the profile says about each number of one ABI: an index into leaves. Leaf 0 is the default.
type calls struct {
	leaves []leaf
	plain  [1024]int16     // by number
	arm    [16]int16       // by number - private
	fixed  [1024 + 16]bool // decided by a rule without conditions
	newest int32           // largest number that the profile names, -1 for none
}

func (c *calls) slot(nr int32) int {
	if nr >= private {
		return len(c.plain) + int(nr-private)
	}
	return int(nr)
}

func (c *calls) at(slot int) *int16 {
	if slot >= len(c.plain) {
		return &c.arm[slot-len(c.plain)]
	}
	return &c.plain[slot]
}

func (c *calls) add(nr int32, r *rule, def uint32) {
	s := c.slot(nr)
	if c.fixed[s] {
		return
	}
	p := c.at(s)
	if len(r.conds) == 0 {
		c.fixed[s] = true
		*p = c.plainLeaf(r.ret)
		return
	}
	if *p == 0 {
		*p = int16(len(c.leaves))
		c.leaves = append(c.leaves, leaf{ret: def})
	}
	f := &c.leaves[*p]
	f.rules = append(f.rules, r)
}

// plainLeaf finds or makes the leaf without rules that returns ret.
func (c *calls) plainLeaf(ret uint32) int16 {
	for i := range c.leaves {
		if c.leaves[i].ret == ret && c.leaves[i].rules == nil {
			return int16(i)
		}
	}
	c.leaves = append(c.leaves, leaf{ret: ret})
	return int16(len(c.leaves) - 1)
}

// newestCall is the largest number the profile names in an ABI, arm's private calls aside. runc's maintainers found
// why it matters: with a default of EPERM, a libc that tries a call newer than the profile takes the error for a
// refusal instead of falling back to an older call, which ENOSYS makes it do.
func newestCall(named []int16, a *abi) int32 {
	newest := int32(-1)
	for _, x := range named {
		if nr := a.number(&table[x]); nr < private {
			newest = max(newest, nr)
		}
	}
	return newest
}

// A bound is the first number of a run of calls with one leaf.
type bound struct {
	nr   uint32
	leaf int16
}

// section writes the decisions of one ABI; A holds the number.
func (b *builder) section(rules []rule, named []int16, a *abi) label {
	c := &calls{leaves: make([]leaf, 1, 32)}
	c.leaves[0].ret = b.def
	for i := range rules {
		r := &rules[i]
		for _, x := range r.rows {
			if nr := a.number(&table[x]); nr >= 0 {
				c.add(nr, r, b.def)
			}
			if a.arch == specs.ArchX86 && len(r.conds) == 0 {
				if mux, call := muxed(table[x].name); mux != "" {
					m := &rule{ret: r.ret, conds: []cond{{0, specs.OpEqualTo, call, ^uint64(0)}}}
					c.add(table[lookup(mux, -1)].i386, m, b.def)
				}
			}
		}
	}
	bounds := make([]bound, 0, 256)
	base := uint32(0)
	if a.arch == specs.ArchX32 {
		base = x32Bit
	}
	end := uint32(len(c.plain))
	if b.needsENOSYS() {
		if c.newest = newestCall(named, a); c.newest >= 0 {
			end = uint32(c.newest) + 1
		}
	}
	last := int16(-1)
	run := func(nr uint32, leaf int16) {
		if leaf != last {
			bounds = append(bounds, bound{base + nr, leaf})
			last = leaf
		}
	}
	for nr := range end {
		run(nr, c.plain[nr])
	}
	if end < uint32(len(c.plain)) {
		run(end, c.plainLeaf(retErrno|uint32(unix.ENOSYS)))
	} else {
		run(end, 0)
	}
	if a.arch == specs.ArchARM {
		for i, l := range c.arm {
			run(private+uint32(i), l)
		}
		run(private+uint32(len(c.arm)), 0)
	}
	return b.tree(c, bounds, a.narrow)
}

// needsENOSYS: where unknown calls are let through, or get ENOSYS anyway, newer ones are no special case.
func (b *builder) needsENOSYS() bool {
	switch b.def & 0xffff0000 {
	case retAllow, retLog, retTrace:
		return false
	}
	return b.def != retErrno|uint32(unix.ENOSYS)
}

func (b *builder) tree(c *calls, bounds []bound, narrow bool) label {
	if len(bounds) == 1 {
		return b.leaf(&c.leaves[bounds[0].leaf], narrow)
	}
	h := len(bounds) / 2
	right := b.tree(c, bounds[h:], narrow)
	left := b.tree(c, bounds[:h], narrow)
	return b.jump(opJGE, bounds[h].nr, right, left)
}

// program puts the sections of all ABIs behind a switch over the architecture. The result is in reverse order.
func program(rules []rule, named []int16, def uint32, abis []abi) []insn {
	b := &builder{insns: make([]insn, 0, 1024), def: def}
	// From the last ABI to the first, so that the machine's own is met first.
	next := b.ret(retKillProcess)
	for i := len(abis) - 1; i >= 0; i-- {
		a := &abis[i]
		if a.arch == specs.ArchX32 {
			continue // below, with amd64
		}
		l := b.section(rules, named, a)
		if a.arch == specs.ArchX86_64 {
			other := label(0)
			for j := range abis {
				if abis[j].arch == specs.ArchX32 {
					other = b.section(rules, named, &abis[j])
				}
			}
			if other == 0 {
				// A tracer that skips a call makes its number -1, which is no x32 call.
				skipped := def
				if b.needsENOSYS() {
					skipped = retErrno | uint32(unix.ENOSYS)
				}
				other = b.jump(opJEQ, ^uint32(0), b.ret(skipped), b.ret(retKillProcess))
			}
			l = b.jump(opJSET, x32Bit, other, l)
		}
		b.entry(l)
		l = b.emit(opLoad, offNr)
		next = b.jump(opJEQ, a.audit, l, next)
	}
	b.entry(next)
	b.emit(opLoad, offArch)
	return b.insns
}

// entry makes the instruction at l the next one.
func (b *builder) entry(l label) {
	if int(l) != len(b.insns) {
		b.emit(opJA, uint32(len(b.insns)-int(l)))
	}
}

// encode turns the program round and lays it out as the kernel wants it.
func encode(p []insn) []byte {
	o := make([]byte, 0, 8*len(p))
	for i := len(p) - 1; i >= 0; i-- {
		o = binary.NativeEndian.AppendUint16(o, p[i].code)
		o = append(o, p[i].jt, p[i].jf)
		o = binary.NativeEndian.AppendUint32(o, p[i].k)
	}
	return o
}
