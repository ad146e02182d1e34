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

/* The argument registers, sp, bp and ip in it are valid; without SAVE_REGS the rest is not. */
static __always_inline struct pt_regs *ipttrace_args(struct ftrace_regs *fregs)
{
#ifdef arch_ftrace_regs
	return &arch_ftrace_regs(fregs)->regs;
#else
	return &fregs->regs;
#endif
}

/* Goes to @to with the same arguments when the handler returns. */
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
