// SPDX-License-Identifier: GPL-2.0
/*
 * `ipttctl trace`: follow the packets that its options want through every table of iptables, every
 * base chain of nftables and every hook of netfilter, and between these. The entry program reads
 * only what has the same place at all of them.
 */
#include "ipttrace.h"
#include "packet.h"

IPTTRACE_LICENSE("GPL");

/* Bits of the options below that are set. An option whose bit is clear accepts any packet. */
IPTTRACE_CONST(__u32, want);
#define WANT_PID 1
#define WANT_NETNS 2
#define WANT_ADDRESS 4
#define WANT_PROTOCOL 8
#define WANT_PORT 16
#define WANT_ICMP_ID 32
#define WANT_FAMILY 64
#define WANT_HEADERS (WANT_ADDRESS | WANT_PROTOCOL | WANT_PORT | WANT_ICMP_ID)

/* Family of the packet's hook (NFPROTO_*). */
IPTTRACE_CONST(__u8, want_family);
/* The sending process. */
IPTTRACE_CONST(__u32, want_pid);
/*
 * Cookie of the network namespace. The next namespace may have its inode number, none its cookie.
 */
IPTTRACE_CONST(__u64, want_netns);
/*
 * Family of the network (NFPROTO_*), its address and its mask as on the wire, IPv4 in the first
 * bytes and zeros after it. One address is the network with a mask of ones.
 */
IPTTRACE_CONST(__u8, want_address_pf);
IPTTRACE_CONST(__u64, want_address_high);
IPTTRACE_CONST(__u64, want_address_low);
IPTTRACE_CONST(__u64, want_mask_high);
IPTTRACE_CONST(__u64, want_mask_low);
/* Transport protocol; in IPv6 the one after the extension headers. */
IPTTRACE_CONST(__u8, want_protocol);
/* Port at either end. */
IPTTRACE_CONST(__u16, want_port);
/* Identifier of an ICMP or ICMPv6 echo. */
IPTTRACE_CONST(__u16, want_icmp_id);

#ifndef IPTTRACE_BPFCC
struct net {
	__u64 net_cookie;
} __attribute__((preserve_access_index));

struct nf_hook_state {
	__u8 pf;
	struct net *net;
} __attribute__((preserve_access_index));
#endif

IPTTRACE_FIELD(__u64, net_cookie, net, net_cookie);
IPTTRACE_FIELD(__u8, state_pf, nf_hook_state, pf);
IPTTRACE_FIELD(const struct net *, state_net, nf_hook_state, net);

static inline bool is_wanted_address(const __u64 *address)
{
	return (address[0] & IPTTRACE_GET(want_mask_high)) ==
		       IPTTRACE_GET(want_address_high) &&
	       (address[1] & IPTTRACE_GET(want_mask_low)) ==
		       IPTTRACE_GET(want_address_low);
}

static inline bool has_wanted_headers(const struct sk_buff *skb, __u8 pf,
				      __u32 want)
{
	struct packet packet = {};
	__u16 source, destination, id;

	if (want & WANT_ADDRESS && pf != IPTTRACE_GET(want_address_pf))
		return false;
	if (!packet_parse(&packet, skb, pf))
		return false;
	if (want & WANT_ADDRESS && !is_wanted_address(packet.saddr) &&
	    !is_wanted_address(packet.daddr))
		return false;
	if (want & WANT_PROTOCOL &&
	    packet.protocol != IPTTRACE_GET(want_protocol))
		return false;
	if (want & WANT_PORT) {
		if (!packet_ports(&packet, &source, &destination))
			return false;
		if (source != IPTTRACE_GET(want_port) &&
		    destination != IPTTRACE_GET(want_port))
			return false;
	}
	if (want & WANT_ICMP_ID) {
		if (!packet_echo_id(&packet, &id) ||
		    id != IPTTRACE_GET(want_icmp_id))
			return false;
	}
	return true;
}

IPTTRACE_PROGRAM
int trace_entry(struct pt_regs *ctx)
{
	const struct nf_hook_state *state = ipttrace_entry_state(ctx);
	__u32 want = IPTTRACE_GET(want);

	if (want & WANT_PID &&
	    ipttrace_entry_tgid(ctx) != IPTTRACE_GET(want_pid))
		return 0;
	if (want & WANT_FAMILY && state_pf(state) != IPTTRACE_GET(want_family))
		return 0;
	if (want & WANT_NETNS &&
	    net_cookie(state_net(state)) != IPTTRACE_GET(want_netns))
		return 0;
	if (want & WANT_HEADERS &&
	    !has_wanted_headers(ipttrace_entry_skb(ctx), state_pf(state), want))
		return 0;
	return IPTTRACE_SELECT_PACKET;
}

IPTTRACE_PROGRAM
int trace_rule(struct pt_regs *ctx)
{
	return IPTTRACE_EMIT_EVENT;
}

IPTTRACE_PROGRAM
int trace_exit(struct pt_regs *ctx)
{
	return IPTTRACE_EMIT_EVENT;
}

IPTTRACE_PROGRAM
int trace_function(struct pt_regs *ctx)
{
	return IPTTRACE_EMIT_EVENT;
}

IPTTRACE_PROGRAM
int trace_step(struct pt_regs *ctx)
{
	return IPTTRACE_EMIT_EVENT;
}
