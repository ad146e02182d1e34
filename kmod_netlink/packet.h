/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_PACKET_H
#define _IPTTRACE_PACKET_H

#include <linux/netfilter.h>
#include <linux/skbuff.h>

#include "ipttrace_netlink.h"

u32 ipttrace_packet_sender(const struct sk_buff *skb,
			   const struct nf_hook_state *state, bool softirqs);
void ipttrace_packet_describe(struct ipttrace_event *event,
			      const struct sk_buff *skb,
			      const struct nf_hook_state *state, bool softirqs);

#endif /* _IPTTRACE_PACKET_H */
