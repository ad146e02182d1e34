/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The registers that an ftrace handler gets, across kernel versions. Features are recognised by
 * the macros that <asm/ftrace.h> and <linux/ftrace_regs.h> define.
 */
#ifndef _IPTTRACE_COMPAT_FTRACE_H
#define _IPTTRACE_COMPAT_FTRACE_H

#include <linux/ftrace.h>
#include <linux/ptrace.h>

#if !defined(CONFIG_X86_64) || !defined(CONFIG_DYNAMIC_FTRACE_WITH_ARGS)
#error "ipttrace needs x86-64 and CONFIG_DYNAMIC_FTRACE_WITH_ARGS"
#endif

/*
 * An argument of the called function, one of those in registers, counted from 0. With a constant @n
 * it costs one load.
 */
static __always_inline unsigned long
ipttrace_argument(struct ftrace_regs *fregs, unsigned int n)
{
#ifdef ftrace_regs_get_argument
	return ftrace_regs_get_argument(fregs, n);
#else
	return regs_get_kernel_argument(&fregs->regs, n);
#endif
}

/* Sends the call to @to, with the same arguments, when the handler returns. */
static __always_inline void ipttrace_redirect(struct ftrace_regs *fregs,
					      void *to)
{
#ifdef ftrace_regs_set_instruction_pointer
	ftrace_regs_set_instruction_pointer(fregs, (unsigned long)to);
#else
	ftrace_instruction_pointer_set(fregs, (unsigned long)to);
#endif
}

#endif /* _IPTTRACE_COMPAT_FTRACE_H */
