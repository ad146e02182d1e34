// SPDX-License-Identifier: GPL-2.0
/* An object file with a type of each kind in its maps and constants. */
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_helpers.h>

enum colour { RED = 1, BLUE = 7 };

struct net4 {
	__u32 prefixlen;
	__be32 address;
};

struct everything {
	__u64 packets;
	__s16 small;
	__be16 port;
	enum colour colour;
	char name[8];
	union {
		__u32 whole;
		__u16 halves[2];
	};
	unsigned int low : 3;
	int high : 5;
	_Bool on;
	unsigned char mac[6];
	struct in_addr host;
	struct in6_addr host6;
	void *pointer;
	double ratio;
	struct {
		__u8 first;
		__u8 second;
	} pair;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct net4);
	__type(value, struct everything);
} networks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u8);
} shared SEC(".maps");

const volatile __u16 port = 7;
const volatile struct net4 network;

SEC("socket")
int drop(struct __sk_buff *skb)
{
	struct net4 key = { 32, network.address };
	__u32 zero = 0;

	return !bpf_map_lookup_elem(&networks, &key) &&
	       !bpf_map_lookup_elem(&shared, &zero) && port;
}

SEC("kprobe/first")
int first(void *ctx)
{
	return port;
}

SEC("kprobe")
int second(void *ctx)
{
	return 2;
}

SEC("kprobe")
int third(void *ctx)
{
	return 3;
}

SEC("nonsense")
int any(void *ctx)
{
	return 4;
}

char LICENSE[] SEC("license") = "GPL";
