// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// func start()
// R12: program base, R13: the op.
TEXT ·start(SB),NOSPLIT|NOFRAME,$0-0
	MOVL	$0x800000, R12
	LEAQ	4160(R12), R13
loop:
	MOVQ	16(R13), DI
	MOVQ	24(R13), SI
	MOVQ	32(R13), DX
	MOVQ	40(R13), R10
	MOVQ	48(R13), R8
	MOVQ	56(R13), R9
	MOVBLZX	2(R13), AX
	TESTL	AX, AX
	JEQ	call
	TESTL	$1, AX
	JEQ	d1
	MOVQ	(DI), DI
d1:	TESTL	$2, AX
	JEQ	d2
	MOVQ	(SI), SI
d2:	TESTL	$4, AX
	JEQ	d3
	MOVQ	(DX), DX
d3:	TESTL	$8, AX
	JEQ	d4
	MOVQ	(R10), R10
d4:	TESTL	$16, AX
	JEQ	d5
	MOVQ	(R8), R8
d5:	TESTL	$32, AX
	JEQ	call
	MOVQ	(R9), R9
call:
	MOVWLZX	0(R13), AX
	SYSCALL
	CMPQ	AX, $-4095
	JCC	fail
	MOVWLZX	8(R13), CX
	TESTL	CX, CX
	JEQ	nostore
	MOVQ	AX, (R12)(CX*8)
nostore:
	MOVWQSX	10(R13), CX
	TESTQ	AX, AX
	JNE	advance
	MOVWQSX	12(R13), CX
advance:
	SHLQ	$6, CX
	ADDQ	CX, R13
	JMP	loop
fail:
	NEGL	AX
	TESTB	$1, 3(R13)
	JNE	ignored
	CMPB	AX, 4(R13)
	JEQ	ignored
	CMPB	AX, 5(R13)
	JEQ	ignored
	CMPB	AX, 6(R13)
	JEQ	ignored
	CMPB	AX, 7(R13)
	JEQ	ignored
	MOVL	AX, 12(R12)
	SUBQ	R12, R13
	SHRQ	$6, R13
	SUBL	$65, R13	// the ops start 65 × 64 bytes behind the base
	MOVL	R13, 8(R12)
	MOVL	$1, AX		// write(report descriptor, {index, errno}, 8)
	MOVQ	0(R12), DI
	LEAQ	8(R12), SI
	MOVL	$8, DX
	SYSCALL
	MOVL	$231, AX	// exit_group(127)
	MOVL	$127, DI
	SYSCALL
	INT	$3
ignored:
	MOVWQSX	14(R13), CX
	JMP	advance
	// the mark behind the code: "CTRINIT\0" twice
	QUAD	$0x0054494e49525443
	QUAD	$0x0054494e49525443

// func code() unsafe.Pointer
TEXT ·code(SB),NOSPLIT,$0-8
	LEAQ	·start(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
