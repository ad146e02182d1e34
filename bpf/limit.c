// SPDX-License-Identifier: GPL-2.0
/*
 * Example: let only so many packets of each IPv4 source pass in a period.
 *
 * Attach `limit` to the slot `packet` of netfilter hooks, in mode `filter`. The map `limits` has
 * the limits of single addresses; all others have the constant default_limit, where 0 is no limit.
 * The map `counts` has what passed and what was dropped. Limits change while it runs, and a new
 * version is swapped in with the limits, the counts and what is used of the period:
 *
 *	ipttctl attach --hook nf:inet4/forward --mode filter --object packet=limit.o:limit \
 *		--set default_limit=100 --set period=10
 *	ipttctl map set 1/limits 10.1.2.3 5
 *	ipttctl swap 1 --object packet=new.o:limit --set default_limit=50 --keep-maps
 *
 * Compiles with bpfcc and with clang alike, as count.c does.
 */
#include "ipttrace.h"

IPTTRACE_LICENSE("GPL");

#define ADDRESSES 16384
#define NS_PER_SECOND 1000000000ULL

/* A period of a source: they are numbered by the time since boot. */
struct period {
	__be32 address;
	__u32 number;
};

struct count {
	__u64 passed;
	__u64 dropped;
};

/* Packets in a period, for addresses that are not in `limits`; 0 is no limit. */
IPTTRACE_CONST(__u64, default_limit);
/* Length of a period in seconds; 0 is one second. */
IPTTRACE_CONST(__u32, period);

#ifdef IPTTRACE_BPFCC
BPF_HASH(limits, __be32, __u64, ADDRESSES);
BPF_HASH(counts, __be32, struct count, ADDRESSES);
BPF_TABLE("lru_hash", struct period, __u64, used, ADDRESSES);

static inline __u64 *limit_of(__be32 *address)
{
	return limits.lookup(address);
}

static inline struct count *count_of(__be32 *address)
{
	struct count none = {};

	return counts.lookup_or_try_init(address, &none);
}

static inline __u64 *used_in(struct period *period)
{
	__u64 none = 0;

	return used.lookup_or_try_init(period, &none);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ADDRESSES);
	__type(key, __be32);
	__type(value, __u64);
} limits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ADDRESSES);
	__type(key, __be32);
	__type(value, struct count);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ADDRESSES);
	__type(key, struct period);
	__type(value, __u64);
} used SEC(".maps");

static inline __u64 *limit_of(__be32 *address)
{
	return bpf_map_lookup_elem(&limits, address);
}

/* The element of a key, made with zeros if there is none. */
static inline void *element(void *map, void *key, const void *none)
{
	void *found = bpf_map_lookup_elem(map, key);

	if (found)
		return found;
	bpf_map_update_elem(map, key, none, BPF_NOEXIST);
	return bpf_map_lookup_elem(map, key);
}

static inline struct count *count_of(__be32 *address)
{
	struct count none = {};

	return element(&counts, address, &none);
}

static inline __u64 *used_in(struct period *period)
{
	__u64 none = 0;

	return element(&used, period, &none);
}
#endif

/* Offset of the source in an IPv4 header. */
#define SOURCE 12

static inline int read(struct __sk_buff *skb, __u32 offset, void *to,
		       __u32 size)
{
	return bpf_skb_load_bytes_relative(skb, offset, to, size,
					   BPF_HDR_START_NET);
}

/*
 * True if a packet of the source is within the limit. A packet is added first and compared then, so
 * that no more than the limit pass, however many CPUs do so at once.
 */
static inline int is_within(__be32 address, __u64 most)
{
	__u64 ns = (IPTTRACE_GET(period) ?: 1) * NS_PER_SECOND, *now;
	struct period key = { .address = address };

	key.number = bpf_ktime_get_ns() / ns;
	now = used_in(&key);
	if (!now)
		return 0;
	__sync_fetch_and_add(now, 1);
	return *now <= most;
}

/* 0: drop */
IPTTRACE_PACKET_PROGRAM
int limit(struct __sk_buff *skb)
{
	struct count *count;
	__be32 address = 0;
	__u64 *most, allowed;
	__u8 version = 0;
	int within;

	if (read(skb, 0, &version, sizeof(version)) || version >> 4 != 4 ||
	    read(skb, SOURCE, &address, sizeof(address)))
		return 1;
	most = limit_of(&address);
	allowed = most ? *most : IPTTRACE_GET(default_limit);
	within = (!most && !allowed) || is_within(address, allowed);
	count = count_of(&address);
	if (count)
		__sync_fetch_and_add(within ? &count->passed : &count->dropped,
				     1);
	return within;
}
