// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// The handler, called by the kernel: R0 holds the signal. pidfd_send_signal(target-1, signal, NULL, 0).
TEXT handle<>(SB),NOSPLIT|NOFRAME,$0-0
	MOVW	R0, R1
	MOVD	$·target(SB), R2
	MOVW	(R2), R0
	SUBW	$1, R0, R0
	TBNZ	$31, R0, none
	MOVD	ZR, R2
	MOVD	ZR, R3
	MOVD	$424, R8
	SVC
none:
	RET

// func handler() unsafe.Pointer
TEXT ·handler(SB),NOSPLIT,$0-8
	MOVD	$handle<>(SB), R0
	MOVD	R0, ret+0(FP)
	RET

// func restorer() unsafe.Pointer
TEXT ·restorer(SB),NOSPLIT,$0-8
	MOVD	ZR, ret+0(FP)
	RET
