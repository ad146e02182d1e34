// SPDX-License-Identifier: GPL-2.0
/*
 * A program that adds to its events what a packet does not say: how large packets were so far.
 *
 *	clang $(ipttctl cflags) -c sizes.c -o sizes.o
 *	ipttctl attach --hook nf:inet4/output --object packet=sizes.o:sizes --payload sizes_seen
 *	./observer.py
 */
#include "ipttrace.h"

IPTTRACE_LICENSE("GPL");

/* Of the packets on this CPU. */
struct sizes {
	__u64 total;
	__u32 largest;
	__u32 this;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sizes);
} sizes_seen SEC(".maps");

IPTTRACE_PACKET_PROGRAM
int sizes(struct __sk_buff *skb)
{
	__u32 first = 0;
	struct sizes *seen = bpf_map_lookup_elem(&sizes_seen, &first);

	if (!seen)
		return 0;
	seen->this = skb->len;
	seen->total += skb->len;
	if (seen->largest < skb->len)
		seen->largest = skb->len;
	return IPTTRACE_EMIT_EVENT;
}
