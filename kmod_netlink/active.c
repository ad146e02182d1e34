// SPDX-License-Identifier: GPL-2.0
/*
 * bpf_prog_active, the kernel's count of tracing programs on a CPU: trace_call_bpf() runs one only
 * if there is no other. A program's private stack relies on that: it is one for each CPU.
 */
#include <linux/mutex.h>

#include "active.h"
#include "compat/behind.h"
#include "function.h"

int __percpu *ipttrace_active;

static DEFINE_MUTEX(find_lock);

/**
 * ipttrace_active_find - find the count, which the kernel does not export
 *
 * Context: process, may sleep.
 * Return: true if it was found, now or earlier.
 */
bool ipttrace_active_find(void)
{
	unsigned long site, address = 0;

	mutex_lock(&find_lock);
	if (!ipttrace_active &&
	    !ipttrace_site_find("kallsyms_lookup_name", &site)) {
		ipttrace_behind_kallsyms_lookup_name_address =
			site + IPTTRACE_PATCH_SIZE;
		address =
			ipttrace_behind_kallsyms_lookup_name("bpf_prog_active");
		/* packets see it through the set that needed it */
		ipttrace_active = (int __percpu *)address;
	}
	mutex_unlock(&find_lock);
	return ipttrace_active;
}
