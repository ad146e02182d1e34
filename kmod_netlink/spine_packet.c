// SPDX-License-Identifier: GPL-2.0
/*
 * The description of a packet at the spine: what functions at hooks change besides addresses, ports
 * and mark.
 */
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
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
#ifdef CONFIG_NF_CONNTRACK_MARK
	event->ct_mark = READ_ONCE(ct->mark);
#endif
#ifdef CONFIG_NF_CONNTRACK_ZONES
	event->ct_zone = nf_ct_zone_id(nf_ct_zone(ct), CTINFO2DIR(info));
#endif
}
#else
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
