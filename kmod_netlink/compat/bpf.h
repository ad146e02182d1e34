/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_COMPAT_BPF_H
#define _IPTTRACE_COMPAT_BPF_H

#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/version.h>

/* Moved from the program's aux to the program in v6.9 (66c8473135c6). */
static inline bool ipttrace_prog_sleepable(const struct bpf_prog *prog)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
	return prog->sleepable;
#else
	return prog->aux->sleepable;
#endif
}

#endif /* _IPTTRACE_COMPAT_BPF_H */
