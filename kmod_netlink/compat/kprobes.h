/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_COMPAT_KPROBES_H
#define _IPTTRACE_COMPAT_KPROBES_H

#include <linux/kprobes.h>
#ifdef CONFIG_X86_KERNEL_IBT
#include <asm/ibt.h>
#endif

/*
 * Where the function starts whose entry @kp is placed at: a probe stands behind the ENDBR that an
 * indirect call must land on (arch_adjust_kprobe_addr).
 */
static inline unsigned long ipttrace_kprobe_function(const struct kprobe *kp)
{
	unsigned long addr = (unsigned long)kp->addr;

#ifdef CONFIG_X86_KERNEL_IBT
	if (is_endbr(*(u32 *)(addr - ENDBR_INSN_SIZE)))
		addr -= ENDBR_INSN_SIZE;
#endif
	return addr;
}

#endif /* _IPTTRACE_COMPAT_KPROBES_H */
