/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_COMPAT_BPF_H
#define _IPTTRACE_COMPAT_BPF_H

#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/module.h>

#include "features.h"

/*
 * bpf_map_get() is exported to that namespace only in newer kernels, and in stable ones that took
 * the change back; importing an empty one does no harm. MODULE_IMPORT_NS() is not used since it
 * takes a string or a word, as the kernel's version wants it.
 */
#define IPTTRACE_IMPORT_BPF_INTERNAL MODULE_INFO(import_ns, "BPF_INTERNAL")

static inline bool ipttrace_prog_sleepable(const struct bpf_prog *prog)
{
#ifdef IPTTRACE_HAVE_PROG_SLEEPABLE
	return prog->sleepable;
#else
	return prog->aux->sleepable;
#endif
}

/*
 * True if the program, or a function of it, has a stack of its own on each CPU, as from v6.13 on.
 * It must not run on top of itself.
 */
static inline bool ipttrace_prog_private_stack(const struct bpf_prog *prog)
{
#ifdef IPTTRACE_HAVE_PROG_PRIVATE_STACK
	return prog->aux->jits_use_priv_stack;
#else
	return false;
#endif
}

/*
 * True if another program takes the place of one of the program's functions (freplace). Kernels
 * before v6.13 tell it only if they took the change back.
 */
static inline bool ipttrace_prog_extended(const struct bpf_prog *prog)
{
#ifdef IPTTRACE_HAVE_PROG_IS_EXTENDED
	return READ_ONCE(prog->aux->is_extended);
#else
	return false;
#endif
}

#endif /* _IPTTRACE_COMPAT_BPF_H */
