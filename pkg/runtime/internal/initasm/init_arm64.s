// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// func start()
// R19: program base, R20: the op.
TEXT ·start(SB),NOSPLIT|NOFRAME,$0-0
	MOVD	$0x800000, R19
	ADD	$4160, R19, R20
loop:
	MOVD	16(R20), R0
	MOVD	24(R20), R1
	MOVD	32(R20), R2
	MOVD	40(R20), R3
	MOVD	48(R20), R4
	MOVD	56(R20), R5
	MOVBU	2(R20), R9
	CBZ	R9, call
	TBZ	$0, R9, d1
	MOVD	(R0), R0
d1:	TBZ	$1, R9, d2
	MOVD	(R1), R1
d2:	TBZ	$2, R9, d3
	MOVD	(R2), R2
d3:	TBZ	$3, R9, d4
	MOVD	(R3), R3
d4:	TBZ	$4, R9, d5
	MOVD	(R4), R4
d5:	TBZ	$5, R9, call
	MOVD	(R5), R5
call:
	MOVHU	0(R20), R8
	SVC
	CMN	$4095, R0
	BHI	fail
	MOVHU	8(R20), R9
	CBZ	R9, nostore
	MOVD	R0, (R19)(R9<<3)
nostore:
	MOVH	10(R20), R9
	CBNZ	R0, advance
	MOVH	12(R20), R9
advance:
	ADD	R9<<6, R20, R20
	JMP	loop
fail:
	NEG	R0, R10
	MOVBU	3(R20), R9
	TBNZ	$0, R9, ignored
	MOVBU	4(R20), R9
	CMP	R9, R10
	BEQ	ignored
	MOVBU	5(R20), R9
	CMP	R9, R10
	BEQ	ignored
	MOVBU	6(R20), R9
	CMP	R9, R10
	BEQ	ignored
	MOVBU	7(R20), R9
	CMP	R9, R10
	BEQ	ignored
	MOVW	R10, 12(R19)
	SUB	R19, R20, R20
	LSR	$6, R20, R20
	SUB	$65, R20, R20
	MOVW	R20, 8(R19)
	MOVD	$64, R8		// write
	MOVD	0(R19), R0
	ADD	$8, R19, R1
	MOVD	$8, R2
	SVC
	MOVD	$94, R8		// exit_group
	MOVD	$127, R0
	SVC
	BRK
ignored:
	MOVH	14(R20), R9
	JMP	advance
	// the mark behind the code: "CTRINIT\0" twice
	DWORD	$0x0054494e49525443
	DWORD	$0x0054494e49525443

// func code() unsafe.Pointer
TEXT ·code(SB),NOSPLIT,$0-8
	MOVD	$·start(SB), R0
	MOVD	R0, ret+0(FP)
	RET
