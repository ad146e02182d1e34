// SPDX-License-Identifier: GPL-2.0
#include "filter.h"

/**
 * ipttrace_filter_at_offset - run a filter where data does not begin at the network header
 * @set: a set with a filter
 * @skb: the packet: at egress, or with its link-layer header
 * @offset: where its network header begins
 *
 * Context: preemption off; ftrace handlers call it.
 * Return: true if the filter lets the packet through.
 */
noinline notrace bool ipttrace_filter_at_offset(const struct ipttrace_set *set,
						struct sk_buff *skb,
						unsigned int offset)
{
	bool takes;

	if (offset > skb_headlen(skb))
		return false;
	__skb_pull(skb, offset);
	takes = ipttrace_filter_run(set->filter, skb);
	__skb_push(skb, offset);
	return takes;
}
