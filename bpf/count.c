// SPDX-License-Identifier: GPL-2.0
/*
 * Example: count packets by the verdict of a table, without any event.
 *
 * Attach count_entry and count_exit; read the map `verdicts` (index: NF_DROP 0, NF_ACCEPT 1, ...;
 * a u64 for each CPU). Compiles with bpfcc and with clang and libbpf's headers alike:
 *
 *	clang $(ipttctl cflags) -c count.c -o count.o
 */
#include "ipttrace.h"

IPTTRACE_LICENSE("GPL");

#define VERDICTS 8

#ifdef IPTTRACE_BPFCC
BPF_PERCPU_ARRAY(verdicts, __u64, VERDICTS);
#else
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICTS);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");
#endif

/* Count only packets that spent at least this many ns in the table. */
IPTTRACE_CONST(__u64, minimum_cost);

static inline __u64 *counter(__u32 verdict)
{
#ifdef IPTTRACE_BPFCC
	return verdicts.lookup(&verdict);
#else
	return bpf_map_lookup_elem(&verdicts, &verdict);
#endif
}

IPTTRACE_PROGRAM
int count_entry(struct pt_regs *ctx)
{
	return IPTTRACE_SELECT_PACKET;
}

IPTTRACE_PROGRAM
int count_exit(struct pt_regs *ctx)
{
	__u64 *count;

	if (ipttrace_exit_cost(ctx) < IPTTRACE_GET(minimum_cost))
		return 0;
	count = counter(ipttrace_exit_verdict(ctx) & IPTTRACE_VERDICT_MASK);
	if (count)
		(*count)++;
	return 0;
}
