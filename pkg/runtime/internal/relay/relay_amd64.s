// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// The handler, called by the kernel: DI holds the signal. pidfd_send_signal(target-1, signal, NULL, 0).
TEXT handle<>(SB),NOSPLIT|NOFRAME,$0-0
	MOVL	DI, SI
	MOVL	·target(SB), DI
	SUBL	$1, DI
	JLT	none
	XORL	DX, DX
	XORL	R10, R10
	MOVL	$424, AX
	SYSCALL
none:
	RET

// What it returns to: rt_sigreturn.
TEXT restore<>(SB),NOSPLIT|NOFRAME,$0-0
	MOVL	$15, AX
	SYSCALL
	INT	$3

// func handler() unsafe.Pointer
TEXT ·handler(SB),NOSPLIT,$0-8
	LEAQ	handle<>(SB), AX
	MOVQ	AX, ret+0(FP)
	RET

// func restorer() unsafe.Pointer
TEXT ·restorer(SB),NOSPLIT,$0-8
	LEAQ	restore<>(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
