// SPDX-License-Identifier: Apache-2.0

// Package initasm holds the machine code that is the container's init until the user's program is executed: an
// interpreter of system calls, position independent, without stack, without any other memory than the program
// it is given. It decides nothing and parses nothing.
//
// The program lies at [Base]:
//
//	Base + 0    u64 descriptor that a failure is reported to
//	Base + 8    u32 index of the op that failed, u32 its errno: the report itself
//	Base + 64   512 slots of 8 bytes for results
//	Base + 4160 ops of 64 bytes
//
// An op, in host byte order:
//
//	 0  u16     system call number
//	 2  u8      bit i set: argument i is the address of the value
//	 3  u8      1: every errno may be ignored
//	 4  4 × u8  errnos that may be ignored
//	 8  u16     slot of the result: Base + 8 × this; 0: none
//	10  i16     ops to advance after success
//	12  i16     ops to advance after a result of zero
//	14  i16     ops to advance after an errno that may be ignored
//	16  6 × u64 arguments
//
// After any other errno the interpreter writes the report and exits with status 127.
package initasm

import (
	"bytes"
	"unsafe"
)

// Where a program lies in memory, and its parts from there on.
const (
	Base        = 0x800000
	ReportAt    = 8
	SlotsAt     = 64
	Slots       = 512
	OpsAt       = SlotsAt + 8*Slots
	OpBytes     = 64
	maxCodeSize = 1024
)

// start is the interpreter; it is never called here.
//
//lint:ignore U1000 code (in assembler) takes its address
func start()

// code returns the address of start.
func code() unsafe.Pointer

// end is the mark behind the code. A second symbol would not do: the linker may reorder them.
const end = "CTRINIT\x00CTRINIT\x00"

// Code returns the interpreter's machine code, from the text of the program that calls it.
func Code() []byte {
	text := unsafe.Slice((*byte)(code()), maxCodeSize)
	n := bytes.Index(text, []byte(end))
	if n < 0 {
		panic("initasm: no mark behind the interpreter")
	}
	return text[:n]
}
