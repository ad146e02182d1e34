/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The pt_regs that programs get as their context (x86-64): what a kprobe at a function's entry or
 * a kretprobe at its return would see, as far as the calling convention defines it.
 */
#ifndef _IPTTRACE_COMPAT_REGS_H
#define _IPTTRACE_COMPAT_REGS_H

#include <linux/ptrace.h>
#include <asm/segment.h>

/*
 * Sets the registers at @ip with six arguments: every one, so that @regs may be uninitialized.
 * Kernels that zero all variables first are told by __uninitialized that they need not.
 */
static __always_inline void ipttrace_regs(struct pt_regs *regs,
					  unsigned long ip, unsigned long sp,
					  unsigned long bp,
					  const unsigned long args[6])
{
	regs->r15 = 0;
	regs->r14 = 0;
	regs->r13 = 0;
	regs->r12 = 0;
	regs->bp = bp;
	regs->bx = 0;
	regs->r11 = 0;
	regs->r10 = 0;
	regs->r9 = args[5];
	regs->r8 = args[4];
	regs->ax = 0;
	regs->cx = args[3];
	regs->dx = args[2];
	regs->si = args[1];
	regs->di = args[0];
	regs->orig_ax = 0;
	regs->ip = ip;
	/*
	 * user_mode() must say no: stack walks start from here. Whole words: since v6.9 the
	 * selectors share them with other fields.
	 */
	*(unsigned long *)&regs->cs = __KERNEL_CS;
	regs->flags = X86_EFLAGS_FIXED;
	regs->sp = sp;
	*(unsigned long *)&regs->ss = __KERNEL_DS;
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
