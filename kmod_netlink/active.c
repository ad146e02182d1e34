// SPDX-License-Identifier: GPL-2.0
/*
 * bpf_prog_active, the kernel's count of tracing programs on a CPU: trace_call_bpf() runs one only
 * if there is no other. A program's private stack relies on that: it is one for each CPU.
 */
#include <linux/compiler.h>

#include "active.h"
#include "symbol.h"

int __percpu *ipttrace_active;

/**
 * ipttrace_active_find - find the count, which the kernel does not export
 *
 * Context: process, may sleep.
 * Return: true if it was found, now or earlier.
 */
bool ipttrace_active_find(void)
{
	/* packets see it through the set that needed it */
	if (!READ_ONCE(ipttrace_active))
		WRITE_ONCE(ipttrace_active,
			   (int __percpu *)ipttrace_symbol_find(
				   "bpf_prog_active"));
	return READ_ONCE(ipttrace_active);
}
