// SPDX-License-Identifier: GPL-2.0
/*
 * Example: functions at netfilter's hooks that keep packets from going on (--hook spine).
 *
 * Attach keeping_function for an event of each function that does not accept a packet, or
 * every_function for one of each function. Compiles with bpfcc and with clang and libbpf's headers
 * alike.
 */
#include "ipttrace.h"

IPTTRACE_LICENSE("GPL");

#define VERDICT_ACCEPT 1 /* NF_ACCEPT */

IPTTRACE_PROGRAM
int keeping_function(struct pt_regs *ctx)
{
	__u32 verdict = ipttrace_function_verdict(ctx) & IPTTRACE_VERDICT_MASK;

	return verdict == VERDICT_ACCEPT ? 0 : IPTTRACE_EMIT_EVENT;
}

IPTTRACE_PROGRAM
int every_function(struct pt_regs *ctx)
{
	return IPTTRACE_EMIT_EVENT;
}
