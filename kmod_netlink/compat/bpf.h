/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_COMPAT_BPF_H
#define _IPTTRACE_COMPAT_BPF_H

#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/module.h>
#include <linux/version.h>

/*
 * bpf_map_get() is exported to that namespace only in newer kernels, and in stable ones that took
 * the change back; to import one that nothing is in does no harm. Its name became a string in
 * v6.13 (cdd30ebb1b9f).
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
#define IPTTRACE_IMPORT_BPF_INTERNAL MODULE_IMPORT_NS("BPF_INTERNAL")
#else
#define IPTTRACE_IMPORT_BPF_INTERNAL MODULE_IMPORT_NS(BPF_INTERNAL)
#endif

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
