/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Filters on packets at any hook: filters are for packets of IP, from their IP header on, where a
 * packet's data may begin elsewhere, and not all packets are of IP.
 */
#ifndef _IPTTRACE_FILTER_H
#define _IPTTRACE_FILTER_H

#include <linux/if_ether.h>
#include <linux/netfilter.h>
#include <linux/preempt.h>
#include <linux/skbuff.h>

#include "program.h"

bool ipttrace_filter_at_offset(const struct ipttrace_set *set,
			       struct sk_buff *skb, unsigned int offset);

static __always_inline bool ipttrace_is_ip(const struct sk_buff *skb, u8 pf)
{
	if (pf == NFPROTO_IPV4 || pf == NFPROTO_IPV6)
		return true;
	return pf != NFPROTO_ARP && (skb->protocol == htons(ETH_P_IP) ||
				     skb->protocol == htons(ETH_P_IPV6));
}

/* True if the filter of the set, which has one, lets a packet at a hook of family @pf through. */
static __always_inline bool ipttrace_set_takes(const struct ipttrace_set *set,
					       struct sk_buff *skb, u8 pf)
{
	bool takes;
	int offset;

	if (!ipttrace_is_ip(skb, pf))
		return false;
	offset = skb_network_offset(skb);
	/* BPF stays on its CPU */
	preempt_disable_notrace();
	if (likely(!offset))
		takes = ipttrace_filter_run(set->filter, skb);
	else
		takes = offset > 0 &&
			ipttrace_filter_at_offset(set, skb, offset);
	preempt_enable_notrace();
	return takes;
}

#endif /* _IPTTRACE_FILTER_H */
