// SPDX-License-Identifier: GPL-2.0
/*
 * `ipttctl trace --hosts`: what is left of a packet on its way to another host goes with the events
 * of its arrival and of its departures, so that the story that ends here and the one that begins
 * there can be joined. Nothing in the packet is changed.
 *
 * A packet that comes in is looked at before the first function of its hook, if that has any: it
 * may take the packet, as defragmentation does, or change it. One that leaves is looked at where
 * its device gets it. The payload is hashed with a key of the trace, and only as far as it is in
 * the linear part.
 */
#include "ipttrace.h"
#include "packet.h"

IPTTRACE_LICENSE("GPL");

/* Cookie of the network namespace that packets are chosen in, or 0 for all. */
IPTTRACE_CONST(__u64, want_netns);
/* Key of the hash. */
IPTTRACE_CONST(__u64, key_low);
IPTTRACE_CONST(__u64, key_high);

#define JOIN_VERSION 2

#define JOIN_ARRIVAL 1
#define JOIN_DEPARTURE 2

/* There is a transport header; a TCP header has timestamps. */
#define JOIN_TRANSPORT 1
#define JOIN_TIMESTAMPS 2

/* Bytes of payload that are hashed at most. */
#define JOIN_HASHED 64

/* Most options of TCP that are looked at. */
#define JOIN_OPTIONS 10

/* An entry that is older belongs to another packet, ns. */
#define JOIN_STALE 1000000000ULL

/* All zero where there is nothing to tell. Numbers are in host order, addresses as on the wire. */
struct join {
	__u8 version;
	__u8 way; /* JOIN_ARRIVAL or JOIN_DEPARTURE */
	__u8 family; /* 4 or 6 */
	__u8 protocol;
	__u8 what; /* JOIN_TRANSPORT, JOIN_TIMESTAMPS */
	__u8 tcp_flags;
	__u8 hashed; /* bytes of payload in hash */
	__u8 reserved;
	__u32 length; /* of the IP packet */
	__u32 payload; /* bytes behind the transport header */
	__u32 sequence; /* of TCP, or of an ICMP echo */
	__u32 acknowledged;
	__u32 timestamp;
	__u32 echoed; /* timestamp */
	__u32 id; /* of IPv4, or of a fragment of IPv6 */
	__u16 fragment; /* offset in 8 bytes, 0x2000 if more fragments follow */
	__u16 segment; /* if the packet is many, and not of TCP: payload of each */
	__u16 source_port; /* of ICMP: type and code */
	__u16 destination_port; /* of ICMP: identifier of an echo */
	__u32 unused;
	__u64 hash;
	__u64 source[2];
	__u64 destination[2];
};

/*
 * Notes on a packet while it is looked at. They are in a map since the verifier takes what comes
 * from there for unknown: each way through a packet's headers leaves other values, and it would go
 * through the rest of the program for each of them.
 */
struct join_notes {
	struct packet packet;
	__u32 behind; /* offset of the payload, or 0 */
};

/*
 * A packet that has come to a hook, until the first function there returns; and the notes on the
 * packet that a program of this processor looks at, which may be another one.
 */
struct join_entry {
	__u64 skb;
	__u64 state;
	__u64 time;
	struct join join;
	struct join_notes notes;
};

#ifdef IPTTRACE_BPFCC
BPF_PERCPU_ARRAY(arrivals, struct join, 1);
BPF_PERCPU_ARRAY(departures, struct join, 1);
BPF_PERCPU_ARRAY(entries, struct join_entry, 1);
#else
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct join);
} arrivals SEC(".maps"), departures SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct join_entry);
} entries SEC(".maps");

struct net {
	__u64 net_cookie;
} __attribute__((preserve_access_index));

struct nf_hook_state {
	__u8 hook;
	__u8 pf;
	struct net *net;
} __attribute__((preserve_access_index));

struct skb_shared_info {
	unsigned short gso_size;
} __attribute__((preserve_access_index));
#endif

IPTTRACE_FIELD(__u64, net_cookie, net, net_cookie);
IPTTRACE_FIELD(__u8, state_pf, nf_hook_state, pf);
IPTTRACE_FIELD(__u8, state_hook, nf_hook_state, hook);
IPTTRACE_FIELD(const struct net *, state_net, nf_hook_state, net);
IPTTRACE_FIELD(const unsigned char *, join_head, sk_buff, head);
IPTTRACE_FIELD(__u16, join_network, sk_buff, network_header);
IPTTRACE_FIELD(__be16, join_protocol, sk_buff, protocol);
IPTTRACE_FIELD(__u32, join_end, sk_buff, end);
IPTTRACE_FIELD(__u16, join_gso_size, skb_shared_info, gso_size);

/* bpfcc knows no map by an argument, of a macro or of a function. */
IPTTRACE_INLINE struct join *join_arrival(void)
{
	__u32 first = 0;

#ifdef IPTTRACE_BPFCC
	return arrivals.lookup(&first);
#else
	return bpf_map_lookup_elem(&arrivals, &first);
#endif
}

IPTTRACE_INLINE struct join *join_departure(void)
{
	__u32 first = 0;

#ifdef IPTTRACE_BPFCC
	return departures.lookup(&first);
#else
	return bpf_map_lookup_elem(&departures, &first);
#endif
}

IPTTRACE_INLINE struct join_entry *join_come(void)
{
	__u32 first = 0;

#ifdef IPTTRACE_BPFCC
	return entries.lookup(&first);
#else
	return bpf_map_lookup_elem(&entries, &first);
#endif
}

/* What is in maps is read from there again, and the verifier knows nothing of it any more. */
IPTTRACE_INLINE void join_read_again(void)
{
	asm volatile("" : : : "memory");
}

#define JOIN_ETH_IP 0x0800
#define JOIN_ETH_IPV6 0x86dd
#define JOIN_ETH_VLAN 0x8100
#define JOIN_ETH_QINQ 0x88a8

/* Fields of TCP's header, whose own header has bit fields. */
struct join_tcp {
	__be16 source;
	__be16 destination;
	__be32 sequence;
	__be32 acknowledged;
	__u8 offset; /* in words, in the upper half */
	__u8 flags;
};

struct join_fragment {
	__u8 next;
	__u8 reserved;
	__be16 offset; /* in 8 bytes, in the upper 13 bits; the lowest: more follow */
	__be32 id;
};

struct join_icmp {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 id;
	__be16 sequence;
};

/* --- the hash: SipHash-2-4 ------------------------------------------------------------------- */

IPTTRACE_INLINE __u64 join_rotated(__u64 value, __u32 bits)
{
	return value << bits | value >> (64 - bits);
}

IPTTRACE_INLINE void join_round(__u64 v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = join_rotated(v[1], 13) ^ v[0];
	v[3] = join_rotated(v[3], 16) ^ v[2];
	v[0] = join_rotated(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = join_rotated(v[1], 17) ^ v[2];
	v[3] = join_rotated(v[3], 21) ^ v[0];
	v[2] = join_rotated(v[2], 32);
}

IPTTRACE_INLINE void join_word(__u64 v[4], __u64 word)
{
	v[3] ^= word;
	join_round(v);
	join_round(v);
	v[0] ^= word;
}

/* The hash of JOIN_HASHED bytes and a last word, which tells how many of them there are. */
IPTTRACE_INLINE __u64 join_hash(const __u64 words[JOIN_HASHED / 8], __u64 last)
{
	__u64 low = IPTTRACE_GET(key_low), high = IPTTRACE_GET(key_high);
	__u64 v[4] = {
		low ^ 0x736f6d6570736575ULL,
		high ^ 0x646f72616e646f6dULL,
		low ^ 0x6c7967656e657261ULL,
		high ^ 0x7465646279746573ULL,
	};
	int i;

#pragma unroll
	for (i = 0; i < JOIN_HASHED / 8; i++)
		join_word(v, words[i]);
	join_word(v, last);
	v[2] ^= 0xff;
	join_round(v);
	join_round(v);
	join_round(v);
	join_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* --- a packet -------------------------------------------------------------------------------- */

/* Finds the network header, which the packet's data need not begin with. */
IPTTRACE_INLINE bool join_open(struct packet *packet, const struct sk_buff *skb,
			       __u32 *length)
{
	const unsigned char *data = packet_skb_data(skb);
	__u32 linear = packet_skb_len(skb) - packet_skb_data_len(skb);
	__u16 network = join_network(skb);
	const unsigned char *header = join_head(skb) + network;
	__s64 offset = header - data;
	__u8 version = 0;

	if (network == 0xffff || offset > linear || offset < -1024)
		return false;
	switch (bpf_ntohs(join_protocol(skb))) {
	case JOIN_ETH_IP:
	case JOIN_ETH_IPV6:
	case JOIN_ETH_VLAN:
	case JOIN_ETH_QINQ:
		break;
	default:
		return false;
	}
	packet->data = header;
	packet->linear = linear - offset;
	*length = packet_skb_len(skb) - offset;
	if (!packet_read(packet, &version, sizeof(version), 0))
		return false;
	if (version >> 4 == 4)
		packet->pf = NFPROTO_IPV4;
	else if (version >> 4 == 6)
		packet->pf = NFPROTO_IPV6;
	else
		return false;
	return true;
}

IPTTRACE_INLINE void join_ipv6_fragment(struct join *join,
					const struct packet *packet)
{
	struct join_fragment fragment;
	__u16 offset;

	if (!packet->fragment ||
	    !packet_read(packet, &fragment, sizeof(fragment), packet->fragment))
		return;
	offset = bpf_ntohs(fragment.offset);
	join->id = bpf_ntohl(fragment.id);
	join->fragment = offset >> 3 | (offset & 1 ? 0x2000 : 0);
}

/* The length that the IP header says, without padding; 0 of a packet that is too long for that. */
IPTTRACE_INLINE void join_network_fields(struct join *join,
					 const struct packet *packet)
{
	struct ipv6hdr ip6;
	struct iphdr ip;
	__u32 said = 0;

	if (packet->pf == NFPROTO_IPV4) {
		join->family = 4;
		if (!packet_read(packet, &ip, sizeof(ip), 0))
			return;
		join->id = bpf_ntohs(ip.id);
		join->fragment = bpf_ntohs(ip.frag_off) & 0x3fff;
		said = bpf_ntohs(ip.tot_len);
	} else {
		join->family = 6;
		if (!packet_read(packet, &ip6, sizeof(ip6), 0))
			return;
		said = bpf_ntohs(ip6.payload_len);
		if (said)
			said += sizeof(ip6);
		join_ipv6_fragment(join, packet);
	}
	if (said && said < join->length)
		join->length = said;
}

IPTTRACE_INLINE void join_timestamps(struct join *join,
				     const struct packet *packet, __u32 at,
				     __u32 end)
{
	struct {
		__u8 kind;
		__u8 length;
	} option;
	__be32 times[2];
	int i;

#pragma clang loop unroll(disable)
	for (i = 0; i < JOIN_OPTIONS; i++) {
		if (at + sizeof(option) > end ||
		    !packet_read(packet, &option, sizeof(option), at))
			return;
		if (!option.kind)
			return;
		if (option.kind == 1) {
			at++;
			continue;
		}
		if (option.kind == 8 && option.length == 10) {
			if (!packet_read(packet, times, sizeof(times), at + 2))
				return;
			join->timestamp = bpf_ntohl(times[0]);
			join->echoed = bpf_ntohl(times[1]);
			join->what |= JOIN_TIMESTAMPS;
			return;
		}
		if (option.length < 2)
			return;
		at += option.length;
	}
}

/* Returns the offset of the payload, or 0 where the header cannot be read. */
IPTTRACE_INLINE __u32 join_tcp_fields(struct join *join,
				      const struct packet *packet)
{
	struct join_tcp tcp;
	__u32 end;

	if (!packet_read(packet, &tcp, sizeof(tcp), packet->transport))
		return 0;
	join->source_port = bpf_ntohs(tcp.source);
	join->destination_port = bpf_ntohs(tcp.destination);
	join->sequence = bpf_ntohl(tcp.sequence);
	join->acknowledged = bpf_ntohl(tcp.acknowledged);
	join->tcp_flags = tcp.flags;
	end = packet->transport + (tcp.offset >> 4) * 4;
	join_timestamps(join, packet, packet->transport + 20, end);
	return end;
}

/* Likewise, of anything else. */
IPTTRACE_INLINE __u32 join_other_fields(struct join *join,
					const struct packet *packet)
{
	__u32 behind = packet->transport;
	struct join_icmp icmp;

	switch (packet->protocol) {
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
		behind += 8;
		break;
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
		behind += 12;
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (!packet_read(packet, &icmp, sizeof(icmp),
				 packet->transport))
			return 0;
		join->source_port = icmp.type << 8 | icmp.code;
		join->destination_port = bpf_ntohs(icmp.id);
		join->sequence = bpf_ntohs(icmp.sequence);
		return behind + 8;
	default:
		return behind;
	}
	if (!packet_ports(packet, &join->source_port, &join->destination_port))
		return 0;
	return behind;
}

/* The payload of the packets that GSO is to cut this one into, or that GRO has merged, or 0. */
IPTTRACE_INLINE __u16 join_segment(const struct sk_buff *skb)
{
	const unsigned char *end = join_head(skb) + join_end(skb);

	return join_gso_size((const struct skb_shared_info *)end);
}

IPTTRACE_INLINE void join_hash_payload(struct join *join,
				       const struct packet *packet, __u32 at)
{
	__u64 words[JOIN_HASHED / 8] = {};
	__u64 size = join->payload;

	if (at > packet->linear)
		return;
	if (size > packet->linear - at)
		size = packet->linear - at;
	/* The verifier has to see the bound of the very value that is used. */
	asm volatile("" : "+r"(size));
	if (size > JOIN_HASHED)
		size = JOIN_HASHED;
	if (bpf_probe_read_kernel(words, size, packet->data + at))
		return;
	join->hashed = size;
	join->hash = join_hash(words, size);
}

IPTTRACE_INLINE void join_tell(struct join *join, const struct sk_buff *skb,
			       __u8 way)
{
	struct join_entry *entry = join_come();
	struct join_notes *notes;
	struct packet *packet;

	if (!entry)
		return;
	notes = &entry->notes;
	__builtin_memset(notes, 0, sizeof(*notes));
	packet = &notes->packet;
	if (!join_open(packet, skb, &join->length))
		return;
	join_read_again();
	if (packet->pf == NFPROTO_IPV4) {
		if (!packet_parse_ipv4(packet))
			return;
	} else if (!packet_parse_ipv6(packet)) {
		return;
	}
	join_read_again();
	join_network_fields(join, packet);
	join->protocol = packet->protocol;
	__builtin_memcpy(join->source, packet->saddr, sizeof(join->source));
	__builtin_memcpy(join->destination, packet->daddr,
			 sizeof(join->destination));
	if (packet->protocol != IPPROTO_TCP)
		join->segment = join_segment(skb);
	join_read_again();
	if (packet->transport) {
		if (packet->protocol == IPPROTO_TCP)
			notes->behind = join_tcp_fields(join, packet);
		else
			notes->behind = join_other_fields(join, packet);
		join_read_again();
		if (notes->behind && notes->behind <= join->length) {
			join->what |= JOIN_TRANSPORT;
			join->payload = join->length - notes->behind;
			if (packet->protocol != IPPROTO_TCP && !join->segment)
				join_hash_payload(join, packet, notes->behind);
		}
	}
	join->way = way;
	join->version = JOIN_VERSION;
}

/* --- programs -------------------------------------------------------------------------------- */

/* Tells whether packets at a hook have just come in: before, in, or on their way through IP. */
IPTTRACE_INLINE bool join_comes_in(const struct nf_hook_state *state)
{
	__u8 pf = state_pf(state), hook = state_hook(state);

	if (pf == NFPROTO_IPV4 || pf == NFPROTO_IPV6 || pf == NFPROTO_BRIDGE)
		return hook <= NF_INET_FORWARD;
	return pf == NFPROTO_NETDEV && !hook;
}

IPTTRACE_PROGRAM
int join_entry(struct pt_regs *ctx)
{
	const struct nf_hook_state *state = ipttrace_entry_state(ctx);
	const struct sk_buff *skb = ipttrace_entry_skb(ctx);
	__u64 want = IPTTRACE_GET(want_netns);
	struct join_entry *entry;

	if (want && net_cookie(state_net(state)) != want)
		return 0;
	entry = join_come();
	if (!entry || !join_comes_in(state))
		return IPTTRACE_SELECT_PACKET;
	__builtin_memset(entry, 0, sizeof(*entry));
	join_tell(&entry->join, skb, JOIN_ARRIVAL);
	entry->skb = (__u64)skb;
	entry->state = (__u64)state;
	entry->time = bpf_ktime_get_ns();
	return IPTTRACE_SELECT_PACKET;
}

IPTTRACE_PROGRAM
int join_function(struct pt_regs *ctx)
{
	const struct nf_hook_state *state = ipttrace_function_state(ctx);
	const struct sk_buff *skb = ipttrace_function_skb(ctx);
	struct join_entry *entry;
	struct join *join;

	join = join_arrival();
	if (!join)
		return IPTTRACE_EMIT_EVENT;
	__builtin_memset(join, 0, sizeof(*join));
	if (ipttrace_function_count(ctx) != 1 || !join_comes_in(state))
		return IPTTRACE_EMIT_EVENT;
	entry = join_come();
	if (!entry)
		return IPTTRACE_EMIT_EVENT;
	/* the function may have sent packets itself, which were at hooks meanwhile */
	if (entry->state == (__u64)state &&
	    (!skb || entry->skb == (__u64)skb) &&
	    bpf_ktime_get_ns() - entry->time < JOIN_STALE)
		__builtin_memcpy(join, &entry->join, sizeof(*join));
	else if (skb)
		join_tell(join, skb, JOIN_ARRIVAL);
	entry->state = 0;
	return IPTTRACE_EMIT_EVENT;
}

/* Where a hook has no functions, nothing has changed the packet, and only this is told of it. */
IPTTRACE_PROGRAM
int join_exit(struct pt_regs *ctx)
{
	const struct nf_hook_state *state = ipttrace_exit_state(ctx);
	const struct sk_buff *skb = ipttrace_spine_exit_skb(ctx);
	struct join *join;

	join = join_arrival();
	if (!join)
		return IPTTRACE_EMIT_EVENT;
	__builtin_memset(join, 0, sizeof(*join));
	if (skb && !ipttrace_spine_exit_functions(ctx) && join_comes_in(state))
		join_tell(join, skb, JOIN_ARRIVAL);
	return IPTTRACE_EMIT_EVENT;
}

IPTTRACE_PROGRAM
int join_step(struct pt_regs *ctx)
{
	const struct sk_buff *skb = ipttrace_step_skb(ctx);
	struct join *join;

	join = join_departure();
	if (!join)
		return IPTTRACE_EMIT_EVENT;
	__builtin_memset(join, 0, sizeof(*join));
	if (skb && ipttrace_step_kind(ctx) == IPTTRACE_KIND_JOURNEY_SENT)
		join_tell(join, skb, JOIN_DEPARTURE);
	return IPTTRACE_EMIT_EVENT;
}
