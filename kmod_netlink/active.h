/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_ACTIVE_H
#define _IPTTRACE_ACTIVE_H

#include <linux/percpu.h>

/* The kernel's bpf_prog_active, once ipttrace_active_find() has said yes. */
extern int __percpu *ipttrace_active;

bool ipttrace_active_find(void);

/*
 * Whether the caller may run a program as the only one of its kind on this CPU; either way
 * ipttrace_active_leave() must follow, with preemption off in between.
 */
static inline bool ipttrace_active_enter(void)
{
	return __this_cpu_inc_return(*ipttrace_active) == 1;
}

static inline void ipttrace_active_leave(void)
{
	__this_cpu_dec(*ipttrace_active);
}

#endif /* _IPTTRACE_ACTIVE_H */
