// SPDX-License-Identifier: GPL-2.0
/*
 * Notes which packets a program set has seen: each carries its number in its payload.
 */
#include "packet.h"

IPTTRACE_LICENSE("GPL");

#define PACKETS 1048576
/* The number that is added to the element of a packet. */
#define SEEN_BY_ENTRY 1
#define SEEN_BY_EXIT 0x100000000ULL

/* 64 bits wide: smaller elements of an array have gaps between them. */
BPF_ARRAY(seen, __u64, PACKETS);

/* The destination port of the packets that are numbered. */
IPTTRACE_CONST(__u16, port);

static inline void note(const struct sk_buff *skb, __u64 by)
{
	__u16 source, destination;
	struct packet packet = {};
	__u64 *element;
	__u32 number;

	if (!skb || !packet_parse(&packet, skb, NFPROTO_IPV4) ||
	    !packet_ports(&packet, &source, &destination) ||
	    destination != IPTTRACE_GET(port))
		return;
	if (!packet_read(&packet, &number, sizeof(number),
			 packet.transport + 8))
		return;
	element = seen.lookup(&number);
	if (element)
		__sync_fetch_and_add(element, by);
}

IPTTRACE_PROGRAM
int seen_entry(struct pt_regs *ctx)
{
	note(ipttrace_entry_skb(ctx), SEEN_BY_ENTRY);
	return IPTTRACE_SELECT_PACKET;
}

IPTTRACE_PROGRAM
int seen_exit(struct pt_regs *ctx)
{
	note(ipttrace_exit_skb(ctx), SEEN_BY_EXIT);
	return 0;
}
