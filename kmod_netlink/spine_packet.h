/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_SPINE_PACKET_H
#define _IPTTRACE_SPINE_PACKET_H

#include <linux/skbuff.h>

#include "ipttrace_netlink.h"

void ipttrace_packet_describe_more(struct ipttrace_event *event,
				   const struct sk_buff *skb);
void ipttrace_packet_describe_end(void);

#endif /* _IPTTRACE_SPINE_PACKET_H */
