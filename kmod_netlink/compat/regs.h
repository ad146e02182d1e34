/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The pt_regs that programs get as their context (x86-64): what a kprobe at a function's entry or
 * a kretprobe at its return would see, as far as the calling convention defines it.
 */
#ifndef _IPTTRACE_COMPAT_REGS_H
#define _IPTTRACE_COMPAT_REGS_H

#include <linux/ptrace.h>
#include <linux/string.h>
#include <asm/segment.h>

static inline void ipttrace_regs_init(struct pt_regs *regs, unsigned long ip,
				      unsigned long sp, unsigned long bp)
{
	memset(regs, 0, sizeof(*regs));
	regs->ip = ip;
	regs->sp = sp;
	regs->bp = bp;
	/* user_mode() must say no: stack walks start from here */
	regs->cs = __KERNEL_CS;
	regs->ss = __KERNEL_DS;
	regs->flags = X86_EFLAGS_FIXED;
}

static inline void ipttrace_regs_set_args(struct pt_regs *regs,
					  const unsigned long args[6])
{
	regs->di = args[0];
	regs->si = args[1];
	regs->dx = args[2];
	regs->cx = args[3];
	regs->r8 = args[4];
	regs->r9 = args[5];
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
