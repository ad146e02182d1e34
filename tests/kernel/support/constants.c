// SPDX-License-Identifier: GPL-2.0
/* Constants of each kind, which the program leaves in a map where a test reads them. */
#include "ipttrace.h"

IPTTRACE_LICENSE("GPL");

enum colour { RED = 1, BLUE = 7 };

struct seen {
	__u64 wide;
	__s32 below;
	enum colour paint;
	__be16 port;
	__u8 small;
	_Bool on;
	__u64 packets;
};

IPTTRACE_CONST(__u64, wide);
IPTTRACE_CONST(int, below);
IPTTRACE_CONST(enum colour, paint);
IPTTRACE_CONST(__be16, port);
IPTTRACE_CONST(unsigned char, small);
IPTTRACE_CONST(_Bool, on);

#ifdef IPTTRACE_BPFCC
BPF_ARRAY(seen, struct seen, 1);
#else
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct seen);
} seen SEC(".maps");

const volatile char name[8] = "eth0";
const volatile __u32 limits[3] = { 1, 2, 3 };
__u64 packets;
int level = 4;
#endif

static inline struct seen *first(void)
{
	__u32 zero = 0;

#ifdef IPTTRACE_BPFCC
	return seen.lookup(&zero);
#else
	return bpf_map_lookup_elem(&seen, &zero);
#endif
}

IPTTRACE_PACKET_PROGRAM
int constants(struct __sk_buff *skb)
{
	struct seen *element = first();

	if (!element)
		return 1;
	element->wide = IPTTRACE_GET(wide);
	element->below = IPTTRACE_GET(below);
	element->paint = IPTTRACE_GET(paint);
	element->port = IPTTRACE_GET(port);
	element->small = IPTTRACE_GET(small);
	element->on = IPTTRACE_GET(on);
	__sync_fetch_and_add(&element->packets, 1);
#ifndef IPTTRACE_BPFCC
	__sync_fetch_and_add(&packets, level + limits[0] + name[0] ? 1 : 0);
#endif
	return 1;
}
