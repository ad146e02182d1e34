/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reading a packet's headers from its skb.
 *
 * Only the linear part of the skb is read. The table code itself guarantees no more than the IP
 * header there, but drivers and the local stack put the transport header there too.
 */
#ifndef _IPTTRACE_PACKET_H
#define _IPTTRACE_PACKET_H

#include "ipttrace.h"

#ifdef IPTTRACE_BPFCC
/*
 * The kernel's internal headers would take bpfcc many times as long as everything else. So none of
 * them is included, and the one that linux/in.h would include is kept out.
 */
#define _LINUX_SOCKET_H
#include <uapi/linux/socket.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/netfilter.h>
#else
#include <stdbool.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/netfilter.h>
#include <bpf/bpf_endian.h>

struct sk_buff {
	unsigned int len, data_len;
	__be16 protocol;
	__u16 network_header;
	unsigned int end;
	unsigned char *head, *data;
} __attribute__((preserve_access_index));
#endif

IPTTRACE_FIELD(__u32, packet_skb_len, sk_buff, len);
IPTTRACE_FIELD(__u32, packet_skb_data_len, sk_buff, data_len);
IPTTRACE_FIELD(const unsigned char *, packet_skb_data, sk_buff, data);

/* ICMP_ECHO, ...: their headers include the C library's where there are no kernel headers. */
#define PACKET_ICMP_ECHOREPLY 0
#define PACKET_ICMP_ECHO 8
#define PACKET_ICMPV6_ECHO_REQUEST 128
#define PACKET_ICMPV6_ECHO_REPLY 129

/* Extension headers that are walked over; a packet with more counts as one without transport. */
#define PACKET_EXTENSIONS 8

/**
 * struct packet - a packet's headers: their place and the fields that are read
 * @data: the IP header
 * @linear: bytes that can be read there
 * @transport: offset of the transport header, or 0 where there is none
 * @fragment: offset of IPv6's fragment header, or 0 where there is none
 * @pf: NFPROTO_IPV4 or NFPROTO_IPV6
 * @protocol: transport protocol
 * @saddr: source address; IPv4 is in the first four bytes, as on the wire
 * @daddr: destination address, likewise
 */
struct packet {
	const unsigned char *data;
	__u32 linear;
	__u32 transport;
	__u32 fragment;
	__u8 pf;
	__u8 protocol;
	__u64 saddr[2];
	__u64 daddr[2];
};

/* Copy size bytes at an offset of the packet; false where the linear part ends before that. */
IPTTRACE_INLINE bool packet_read(const struct packet *packet, void *to,
				 __u32 size, __u32 offset)
{
	if (offset > packet->linear || packet->linear - offset < size)
		return false;
	return bpf_probe_read_kernel(to, size, packet->data + offset) == 0;
}

IPTTRACE_INLINE bool packet_parse_ipv4(struct packet *packet)
{
	struct iphdr ip;

	if (!packet_read(packet, &ip, sizeof(ip), 0))
		return false;
	packet->protocol = ip.protocol;
	packet->saddr[0] = 0;
	packet->daddr[0] = 0;
	*(__be32 *)packet->saddr = ip.saddr;
	*(__be32 *)packet->daddr = ip.daddr;
	packet->transport = 0;
	/* A later fragment starts in the middle of the data. */
	if (!(ip.frag_off & bpf_htons(0x1fff)))
		packet->transport = ip.ihl * 4;
	return true;
}

IPTTRACE_INLINE bool packet_parse_ipv6(struct packet *packet)
{
	struct {
		__u8 next;
		__u8 length;
		__be16 fragment;
	} extension;
	struct ipv6hdr ip;
	__u32 offset = sizeof(ip);
	__u8 next;
	int i;

	if (!packet_read(packet, &ip, sizeof(ip), 0))
		return false;
	__builtin_memcpy(packet->saddr, &ip.saddr, sizeof(packet->saddr));
	__builtin_memcpy(packet->daddr, &ip.daddr, sizeof(packet->daddr));
	packet->transport = 0;
	packet->fragment = 0;
	next = ip.nexthdr;
	/* Unrolled, the loop would be most of the program. */
#pragma clang loop unroll(disable)
	for (i = 0; i <= PACKET_EXTENSIONS; i++) {
		packet->protocol = next;
		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_MH:
		case IPPROTO_AH:
		case IPPROTO_FRAGMENT:
			break;
		case IPPROTO_NONE:
			return true;
		default:
			packet->transport = offset;
			return true;
		}
		if (!packet_read(packet, &extension, sizeof(extension), offset))
			return true;
		if (next == IPPROTO_FRAGMENT) {
			packet->fragment = offset;
			offset += 8;
			if (extension.fragment & bpf_htons(0xfff8)) {
				packet->protocol = extension.next;
				return true;
			}
		} else if (next == IPPROTO_AH) {
			offset += (extension.length + 2) * 4;
		} else {
			offset += (extension.length + 1) * 8;
		}
		next = extension.next;
	}
	return true;
}

/*
 * Find a packet's addresses, transport protocol and transport header. False if its IP header cannot
 * be read.
 */
IPTTRACE_INLINE bool packet_parse(struct packet *packet,
				  const struct sk_buff *skb, __u8 pf)
{
	packet->pf = pf;
	packet->data = packet_skb_data(skb);
	packet->linear = packet_skb_len(skb) - packet_skb_data_len(skb);
	if (pf == NFPROTO_IPV4)
		return packet_parse_ipv4(packet);
	if (pf == NFPROTO_IPV6)
		return packet_parse_ipv6(packet);
	return false;
}

/* Read a packet's ports, in host byte order; false where it has none that can be read. */
IPTTRACE_INLINE bool packet_ports(const struct packet *packet, __u16 *source,
				  __u16 *destination)
{
	__be16 ports[2];

	switch (packet->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
		break;
	default:
		return false;
	}
	if (!packet->transport ||
	    !packet_read(packet, ports, sizeof(ports), packet->transport))
		return false;
	*source = bpf_ntohs(ports[0]);
	*destination = bpf_ntohs(ports[1]);
	return true;
}

/* Read the identifier of an ICMP or ICMPv6 echo, in host byte order; false for anything else. */
IPTTRACE_INLINE bool packet_echo_id(const struct packet *packet, __u16 *id)
{
	struct {
		__u8 type;
		__u8 code;
		__be16 checksum;
		__be16 id;
	} echo;

	if (!packet->transport ||
	    !packet_read(packet, &echo, sizeof(echo), packet->transport))
		return false;
	if (packet->pf == NFPROTO_IPV4 && packet->protocol == IPPROTO_ICMP) {
		if (echo.type != PACKET_ICMP_ECHO &&
		    echo.type != PACKET_ICMP_ECHOREPLY)
			return false;
	} else if (packet->pf == NFPROTO_IPV6 &&
		   packet->protocol == IPPROTO_ICMPV6) {
		if (echo.type != PACKET_ICMPV6_ECHO_REQUEST &&
		    echo.type != PACKET_ICMPV6_ECHO_REPLY)
			return false;
	} else {
		return false;
	}
	*id = bpf_ntohs(echo.id);
	return true;
}

#endif /* _IPTTRACE_PACKET_H */
