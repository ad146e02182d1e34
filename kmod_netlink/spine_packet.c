// SPDX-License-Identifier: GPL-2.0
/*
 * The description of a packet at the spine: what functions at hooks change besides addresses, ports
 * and mark.
 */
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/module.h>
#include <net/dsfield.h>
#if IS_ENABLED(CONFIG_NF_CONNTRACK)
#include <net/netfilter/nf_conntrack.h>
#include <net/netfilter/nf_conntrack_zones.h>
#endif

#include "spine_packet.h"

static void describe_header(struct ipttrace_event *event,
			    const struct sk_buff *skb)
{
	int offset = skb_network_offset(skb);
	union {
		struct iphdr v4;
		struct ipv6hdr v6;
	} header;
	const struct iphdr *ip;
	const struct ipv6hdr *ip6;

	switch (event->ethertype) {
	case ETH_P_IP:
		ip = skb_header_pointer(skb, offset, sizeof(*ip), &header.v4);
		if (!ip)
			return;
		event->ttl = ip->ttl;
		event->tos = ip->tos;
		break;
	case ETH_P_IPV6:
		ip6 = skb_header_pointer(skb, offset, sizeof(*ip6), &header.v6);
		if (!ip6)
			return;
		event->ttl = ip6->hop_limit;
		event->tos = ipv6_get_dsfield(ip6);
		break;
	}
}

#if IS_ENABLED(CONFIG_NF_CONNTRACK)
static u16 conntrack_state(enum ip_conntrack_info info)
{
	switch (info) {
	case IP_CT_NEW:
		return IPTTRACE_CONNTRACK_NEW;
	case IP_CT_ESTABLISHED:
		return IPTTRACE_CONNTRACK_ESTABLISHED;
	case IP_CT_RELATED:
		return IPTTRACE_CONNTRACK_RELATED;
	case IP_CT_ESTABLISHED_REPLY:
		return IPTTRACE_CONNTRACK_REPLY;
	case IP_CT_RELATED_REPLY:
		return IPTTRACE_CONNTRACK_RELATED_REPLY;
	default:
		return IPTTRACE_CONNTRACK_NONE;
	}
}

/*
 * nf_ct_get_id(). The module that has it is held from the first packet with a connection on, until
 * the spine is not watched any more: we are not linked against it, for most hosts can do without.
 */
static typeof(nf_ct_get_id) *get_id;

/* A packet that has a connection shows that the module is there. */
static noinline typeof(get_id) hold_get_id(void)
{
	typeof(get_id) found = symbol_get(nf_ct_get_id);
	typeof(get_id) before;

	if (!found)
		return NULL;
	before = cmpxchg(&get_id, NULL, found);
	if (!before)
		return found;
	symbol_put(nf_ct_get_id);
	return before;
}

static u32 connection_id(const struct nf_conn *ct)
{
	typeof(get_id) get = READ_ONCE(get_id) ?: hold_get_id();

	/* ctnetlink sends it as it is, and conntrack takes it for big-endian */
	return get ? ntohl((__force __be32)get(ct)) : 0;
}

/**
 * ipttrace_packet_describe_end - let go of what was held to describe packets
 *
 * Context: process; no packet is described any more.
 */
void ipttrace_packet_describe_end(void)
{
	if (xchg(&get_id, NULL))
		symbol_put(nf_ct_get_id);
}

static void describe_connection(struct ipttrace_event *event,
				const struct sk_buff *skb)
{
	enum ip_conntrack_info info;
	const struct nf_conn *ct = nf_ct_get(skb, &info);

	if (!ct) {
		if (info == IP_CT_UNTRACKED)
			event->ct_state = IPTTRACE_CONNTRACK_UNTRACKED;
		return;
	}
	/* a rule put it there for conntrack to begin with */
	if (nf_ct_is_template(ct))
		return;
	event->ct_state = conntrack_state(info);
	event->ct_id = connection_id(ct);
#ifdef CONFIG_NF_CONNTRACK_MARK
	event->ct_mark = READ_ONCE(ct->mark);
#endif
#ifdef CONFIG_NF_CONNTRACK_ZONES
	event->ct_zone = nf_ct_zone_id(nf_ct_zone(ct), CTINFO2DIR(info));
#endif
}
#else
void ipttrace_packet_describe_end(void)
{
}

static void describe_connection(struct ipttrace_event *event,
				const struct sk_buff *skb)
{
}
#endif

/**
 * ipttrace_packet_describe_more - describe what functions at hooks may change
 * @event: the event, filled in by ipttrace_packet_describe()
 * @skb: the packet
 */
void ipttrace_packet_describe_more(struct ipttrace_event *event,
				   const struct sk_buff *skb)
{
	event->skb_priority = skb->priority;
	describe_header(event, skb);
	describe_connection(event, skb);
}
