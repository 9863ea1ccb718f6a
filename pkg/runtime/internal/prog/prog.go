// SPDX-License-Identifier: Apache-2.0

// Package prog is the form of a program that a container's init executes: a straight list of system calls with
// a few jumps, and the data they point to. Each op carries a verb and an object, which stay with the parent: a
// failure is told in their words, and [Program.Print] shows the program in them.
//
// The package knows how a program is written down, laid out as an ELF file and put into a sealed memfd. What is
// in it is package compile's.
package prog

import (
	"encoding/binary"
	"errors"
	"strconv"
	"syscall"

	"github.com/ctr-tools/ctr/pkg/runtime/internal/initasm"
)

// The code and the data stand at fixed addresses around the program (initasm.Base).
const (
	codeBase = 0x400000
	dataBase = initasm.Base + 16<<20
	maxOps   = 16<<20/initasm.OpBytes - initasm.OpsAt/initasm.OpBytes
	maxData  = 64 << 20
)

// An op is what the interpreter reads, see package initasm. Its memory is copied as it is.
type op struct {
	number   uint16
	indirect uint8
	flags    uint8
	ignore   [4]uint8
	result   uint16
	ok       int16
	zero     int16
	err      int16
	args     [6]uint64
}

type text struct{ verb, object string }

// A Program is being written by its methods; the zero value is not usable.
type Program struct {
	ops    []op
	texts  []text
	data   []byte
	pieces []piece // of data, for Print
	slots  []uint64
	inUse  uint64 // registers
	jumps  []jump
	labels []int32
}

type piece struct {
	at   uint32
	kind byte // s string, w words, b bytes
}

type jump struct {
	op    int32
	when  byte // ok, zero, err: 'o', 'z', 'e'
	label Label
}

// New returns an empty program.
func New() *Program {
	return &Program{
		ops: make([]op, 0, 384), texts: make([]text, 0, 384), data: make([]byte, 0, 8192),
		pieces: make([]piece, 0, 256), slots: make([]uint64, registers, registers+64),
		jumps: make([]jump, 0, 64), labels: make([]int32, 0, 64), inUse: 1,
	}
}

// A Reg is a place for the result of a call, usable as an argument of later ones.
type Reg uint8

const (
	registers = 64
	regMark   = 1 << 62
)

// Arg is the register's value as an argument.
func (r Reg) Arg() uint64 { return regMark | slotAddr(int(r)) }

func slotAddr(i int) uint64 { return initasm.Base + initasm.SlotsAt + 8*uint64(i) }

// Reg takes a free register.
func (p *Program) Reg() Reg {
	for i := Reg(1); i < registers; i++ {
		if p.inUse&(1<<i) == 0 {
			p.inUse |= 1 << i
			return i
		}
	}
	panic("prog: no free register: one is not given back")
}

// Free gives a register back.
func (p *Program) Free(r Reg) { p.inUse &^= 1 << r }

// A Scratch is a piece of memory that results can be stored in.
type Scratch struct{ first int }

// Scratch reserves words with these values.
func (p *Program) Scratch(words ...uint64) Scratch {
	s := Scratch{len(p.slots)}
	p.slots = append(p.slots, words...)
	if len(p.slots) > initasm.Slots {
		panic("prog: no room for scratch words")
	}
	return s
}

// Addr is the address of a scratch word.
func (s Scratch) Addr(word int) uint64 { return slotAddr(s.first + word) }

// Arg is the value of a scratch word as an argument.
func (s Scratch) Arg(word int) uint64 { return regMark | s.Addr(word) }

// Str puts a string that ends in NUL into the data and returns its address.
//
//go:noinline
func (p *Program) Str(s string) uint64 {
	p.pieces = append(p.pieces, piece{uint32(len(p.data)), 's'})
	at := dataBase + uint64(len(p.data))
	p.data = append(p.data, s...)
	p.data = append(p.data, 0)
	return at
}

func (p *Program) align(kind byte) uint64 {
	for len(p.data)%8 != 0 {
		p.data = append(p.data, 0)
	}
	p.pieces = append(p.pieces, piece{uint32(len(p.data)), kind})
	return dataBase + uint64(len(p.data))
}

// Value is what stands at an address in the data when an op is executed, 8 bytes, as an argument: an earlier call
// may have stored it.
func (p *Program) Value(at uint64) uint64 { return regMark | at }

// Bytes puts b into the data, at a multiple of 8.
func (p *Program) Bytes(b []byte) uint64 {
	at := p.align('b')
	p.data = append(p.data, b...)
	return at
}

// Words puts 64-bit words into the data: most structures of system calls are made of them.
//
//go:noinline
func (p *Program) Words(words ...uint64) uint64 {
	at := p.align('w')
	for _, w := range words {
		p.data = binary.NativeEndian.AppendUint64(p.data, w)
	}
	return at
}

// Pointers puts the strings and an array of their addresses that ends in 0 into the data: argv, envp.
func (p *Program) Pointers(list []string) uint64 {
	words := make([]uint64, len(list)+1)
	for i, s := range list {
		words[i] = p.Str(s)
	}
	return p.Words(words...)
}

// A Ref is an op that was just written, to say more about it. Its methods and Program's are called from hundreds of
// places, once each: inlined, they would only make ctr-run larger, by 80 kB.
type Ref struct {
	p *Program
	n int32
}

// Do writes an op: the call and its arguments. What it is for, verb and object, is text for people. Failure of
// an op ends the program with a report, unless one of the methods of Ref says otherwise.
func (p *Program) Do(verb, object string, number uintptr, args ...uint64) Ref {
	p.ops = append(p.ops, op{number: uint16(number), ok: 1, zero: 1, err: 1})
	o := &p.ops[len(p.ops)-1]
	for i, a := range args {
		if a>>62 == 1 {
			a &^= regMark
			o.indirect |= 1 << i
		}
		o.args[i] = a
	}
	p.texts = append(p.texts, text{verb, object})
	return Ref{p, int32(len(p.ops) - 1)}
}

func (o Ref) op() *op { return &o.p.ops[o.n] }

// Into stores the result in a register.
//
//go:noinline
func (o Ref) Into(r Reg) Ref { o.op().result = uint16(initasm.SlotsAt/8 + int(r)); return o }

// IntoScratch stores the result in a scratch word.
//
//go:noinline
func (o Ref) IntoScratch(s Scratch, word int) Ref {
	o.op().result = uint16(initasm.SlotsAt/8 + s.first + word)
	return o
}

// Ignore lets the program go on after these errors, at most four.
//
//go:noinline
func (o Ref) Ignore(errnos ...syscall.Errno) Ref {
	x := o.op()
	for _, e := range errnos {
		i := 0
		for x.ignore[i] != 0 {
			i++
		}
		x.ignore[i] = uint8(e)
	}
	return o
}

// IgnoreAll lets the program go on after any error.
func (o Ref) IgnoreAll() Ref { o.op().flags = 1; return o }

// Again repeats the op after an ignored error.
func (o Ref) Again() Ref { o.op().err = 0; return o }

// A Label is a place in the program that can be jumped to.
type Label int32

// NewLabel makes a label; Here says where it is.
//
//go:noinline
func (p *Program) NewLabel() Label {
	p.labels = append(p.labels, -1)
	return Label(len(p.labels) - 1)
}

// Here puts a label before the next op.
func (p *Program) Here(l Label) { p.labels[l] = int32(len(p.ops)) }

// OK jumps after success.
func (o Ref) OK(l Label) Ref {
	o.p.jumps = append(o.p.jumps, jump{o.n, 'o', l}, jump{o.n, 'z', l})
	return o
}

// Zero jumps after a result of zero.
//
//go:noinline
func (o Ref) Zero(l Label) Ref { o.p.jumps = append(o.p.jumps, jump{o.n, 'z', l}); return o }

// Err jumps after an ignored error.
//
//go:noinline
func (o Ref) Err(l Label) Ref { o.p.jumps = append(o.p.jumps, jump{o.n, 'e', l}); return o }

// Index is the op's number, as reports name it.
func (o Ref) Index() int { return int(o.n) }

// Len is how many ops there are.
func (p *Program) Len() int { return len(p.ops) }

func (p *Program) link() error {
	if len(p.ops) > maxOps || len(p.data) > maxData {
		return errors.New("the configuration needs " + strconv.Itoa(len(p.ops)) + " system calls and " + strconv.Itoa(len(p.data)) +
			" bytes of data, want at most " + strconv.Itoa(maxOps) + " and " + strconv.Itoa(maxData))
	}
	for _, j := range p.jumps {
		distance := p.labels[j.label] - j.op
		if p.labels[j.label] < 0 {
			panic("prog: label without a place")
		}
		if distance != int32(int16(distance)) {
			return errors.New("the configuration needs a jump over " + strconv.Itoa(int(distance)) + " system calls, want at most 32767")
		}
		o := &p.ops[j.op]
		switch j.when {
		case 'o':
			o.ok = int16(distance)
		case 'z':
			o.zero = int16(distance)
		case 'e':
			o.err = int16(distance)
		}
	}
	return nil
}

// What says in words what an op does.
func (p *Program) What(index int) string {
	if index < 0 || index >= len(p.texts) {
		return "op " + strconv.Itoa(index)
	}
	t := p.texts[index]
	switch {
	case t.verb == "":
		return callName(uintptr(p.ops[index].number))
	case t.object == "":
		return t.verb
	}
	return t.verb + " " + t.object
}

// An Error is the failure of one op.
type Error struct {
	Op    int
	What  string
	Errno syscall.Errno
}

func (e *Error) Error() string { return e.What + ": " + e.Errno.Error() }

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// Fault is the error for a report of init.
func (p *Program) Fault(index int, errno syscall.Errno) error {
	return &Error{index, p.What(index), errno}
}
