// SPDX-License-Identifier: GPL-2.0
/*
 * Example: drop packets from and to networks in maps.
 *
 * Attach `blocklist` to the slot `packet` of netfilter hooks, in mode `filter`. The maps blocked4
 * and blocked6 hold networks (10.0.0.0/8, fd00::/8); the value counts the packets that were dropped
 * for one. The maps can change while it runs:
 *
 *	ipttctl attach --hook nf:inet/forward --mode filter --object packet=blocklist.o:blocklist
 *	ipttctl map set 1/blocked4 10.1.0.0/16 0
 *
 * Compiles with bpfcc and with clang alike, as count.c does.
 */
#include "ipttrace.h"

IPTTRACE_LICENSE("GPL");

#define NETWORKS 65536

struct network4 {
	__u32 length;
	__be32 address;
};

struct network6 {
	__u32 length;
	__u8 address[16];
};

#ifdef IPTTRACE_BPFCC
BPF_LPM_TRIE(blocked4, struct network4, __u64, NETWORKS);
BPF_LPM_TRIE(blocked6, struct network6, __u64, NETWORKS);
#else
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NETWORKS);
	__type(key, struct network4);
	__type(value, __u64);
} blocked4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NETWORKS);
	__type(key, struct network6);
	__type(value, __u64);
} blocked6 SEC(".maps");
#endif

/* Offsets of the addresses in IPv4 and IPv6 headers: the source, then the destination. */
#define ADDRESSES4 12
#define ADDRESSES6 8

static inline int read(struct __sk_buff *skb, __u32 offset, void *to,
		       __u32 size)
{
	return bpf_skb_load_bytes_relative(skb, offset, to, size,
					   BPF_HDR_START_NET);
}

static inline __u64 *packets4(struct network4 *key)
{
#ifdef IPTTRACE_BPFCC
	return blocked4.lookup(key);
#else
	return bpf_map_lookup_elem(&blocked4, key);
#endif
}

static inline __u64 *packets6(struct network6 *key)
{
#ifdef IPTTRACE_BPFCC
	return blocked6.lookup(key);
#else
	return bpf_map_lookup_elem(&blocked6, key);
#endif
}

/* True if an address is blocked; then the packet is counted. */
static inline int is_blocked4(struct __sk_buff *skb, __u32 offset)
{
	struct network4 key = { .length = 32 };
	__u64 *packets;

	if (read(skb, offset, &key.address, sizeof(key.address)))
		return 0;
	packets = packets4(&key);
	if (!packets)
		return 0;
	__sync_fetch_and_add(packets, 1);
	return 1;
}

static inline int is_blocked6(struct __sk_buff *skb, __u32 offset)
{
	struct network6 key = { .length = 128 };
	__u64 *packets;

	if (read(skb, offset, key.address, sizeof(key.address)))
		return 0;
	packets = packets6(&key);
	if (!packets)
		return 0;
	__sync_fetch_and_add(packets, 1);
	return 1;
}

/* 0: drop */
IPTTRACE_PACKET_PROGRAM
int blocklist(struct __sk_buff *skb)
{
	__u8 version = 0;

	if (read(skb, 0, &version, sizeof(version)))
		return 1;
	switch (version >> 4) {
	case 4:
		return !is_blocked4(skb, ADDRESSES4) &&
		       !is_blocked4(skb, ADDRESSES4 + 4);
	case 6:
		return !is_blocked6(skb, ADDRESSES6) &&
		       !is_blocked6(skb, ADDRESSES6 + 16);
	default:
		return 1;
	}
}
