/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_MESSAGE_H
#define _IPTTRACE_MESSAGE_H

#include <linux/skbuff.h>

struct genl_family;
struct ipttrace_link;
struct ipttrace_link_stats;
struct net;

/* The family (netlink.c) and its multicast groups, by index. */
extern struct genl_family ipttrace_family;
enum { IPTTRACE_EVENTS, IPTTRACE_LINKS, IPTTRACE_NAMESPACES };

int ipttrace_put_u64(struct sk_buff *msg, int type, u64 value);
int ipttrace_put_link_stats(struct sk_buff *msg,
			    const struct ipttrace_link_stats *stats,
			    unsigned long slots);
int ipttrace_put_program(struct sk_buff *msg, int type, u32 slot, u32 id,
			 const u8 *tag, const char *name);
size_t ipttrace_link_size(void);
int ipttrace_put_link(struct sk_buff *msg, const struct ipttrace_link *link,
		      u32 portid, u32 seq, int flags, u8 command, u32 reason,
		      bool forced);
int ipttrace_put_cpu_stats(struct sk_buff *msg, int cpu);

void ipttrace_notify(const struct ipttrace_link *link, u8 command, u32 reason,
		     bool forced);
void ipttrace_notify_changed(void);
void ipttrace_notify_namespace(const struct net *net);

bool ipttrace_events_listeners(void);
struct sk_buff *ipttrace_events_message(void);
void *ipttrace_events_header(struct sk_buff *msg);
int ipttrace_events_multicast(struct sk_buff *msg);

#endif /* _IPTTRACE_MESSAGE_H */
