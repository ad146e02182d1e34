/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_ACTIVE_H
#define _IPTTRACE_ACTIVE_H

#include <linux/percpu.h>

/* The kernel's bpf_prog_active; NULL until ipttrace_active_find() has found it. */
extern int __percpu *ipttrace_active;

bool ipttrace_active_find(void);

/*
 * Returns true if the caller may run a program as the only tracing program on this CPU. Either way
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
