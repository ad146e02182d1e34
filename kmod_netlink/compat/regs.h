/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The pt_regs that programs get as their context (x86-64): what a kprobe at a function's entry or
 * a kretprobe at its return would see, as far as the calling convention defines it.
 */
#ifndef _IPTTRACE_COMPAT_REGS_H
#define _IPTTRACE_COMPAT_REGS_H

#include <linux/ptrace.h>
#include <asm/segment.h>

/* Registers at @ip with six arguments; an initializer of its own spares the compiler's zeroes. */
static __always_inline struct pt_regs ipttrace_regs(unsigned long ip,
						    unsigned long sp,
						    unsigned long bp,
						    const unsigned long args[6])
{
	return (struct pt_regs){
		/* clang-format off */ /* it would put several on a line */
		.ip = ip,
		.sp = sp,
		.bp = bp,
		.di = args[0],
		.si = args[1],
		.dx = args[2],
		.cx = args[3],
		.r8 = args[4],
		.r9 = args[5],
		/* user_mode() must say no: stack walks start from here */
		.cs = __KERNEL_CS,
		.ss = __KERNEL_DS,
		.flags = X86_EFLAGS_FIXED,
		/* clang-format on */
	};
}

/*
 * The stack pointer when the function that uses this macro was entered: it points to the return
 * address, and arguments that did not fit into registers follow.
 */
#define ipttrace_entry_sp() \
	((unsigned long)__builtin_frame_address(0) + sizeof(long))

/*
 * The frame pointer when that function was entered, for stack walks through callers that use one:
 * the function saved it below its return address, as ipttrace_entry_sp() makes it keep a frame.
 */
static inline unsigned long ipttrace_entry_bp(unsigned long entry_sp)
{
	return ((const unsigned long *)entry_sp)[-1];
}

#endif /* _IPTTRACE_COMPAT_REGS_H */
