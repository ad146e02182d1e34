/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_NETLINK_COMMANDS_H
#define _IPTTRACE_NETLINK_COMMANDS_H

#include <linux/skbuff.h>

int ipttrace_netlink_init(void);
void ipttrace_netlink_exit(void);

void ipttrace_notify_changed(void);

bool ipttrace_events_listeners(void);
struct sk_buff *ipttrace_events_message(void);
void *ipttrace_events_header(struct sk_buff *msg);
int ipttrace_events_multicast(struct sk_buff *msg);

#endif /* _IPTTRACE_NETLINK_COMMANDS_H */
