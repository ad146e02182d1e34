/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_COMPAT_KPROBES_H
#define _IPTTRACE_COMPAT_KPROBES_H

#include <linux/kprobes.h>
#include <linux/uaccess.h>
#ifdef CONFIG_X86_KERNEL_IBT
#include <asm/ibt.h>
#endif

/*
 * Where the function starts whose entry @kp is placed at: a probe stands behind the ENDBR that an
 * indirect call must land on (arch_adjust_kprobe_addr), or what the kernel put in its place where
 * nothing may. The kernel's own is_endbr() has had several types and is not always exported.
 */
static inline unsigned long ipttrace_kprobe_function(const struct kprobe *kp)
{
	unsigned long addr = (unsigned long)kp->addr;

#ifdef CONFIG_X86_KERNEL_IBT
	const u32 *before = (const u32 *)(addr - ENDBR_INSN_SIZE);
	u32 instruction;

	/* the first function of a module may have nothing before it */
	if (!get_kernel_nofault(instruction, before) &&
	    (instruction == gen_endbr() || instruction == gen_endbr_poison()))
		addr = (unsigned long)before;
#endif
	return addr;
}

#endif /* _IPTTRACE_COMPAT_KPROBES_H */
