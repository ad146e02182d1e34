/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_VERIFY_H
#define _IPTTRACE_VERIFY_H

#include <linux/types.h>

#include "ipttrace_netlink.h"

struct net;
struct netlink_ext_ack;
struct nlattr;
struct sk_buff;

int ipttrace_verify_permits(enum ipttrace_hook hook, u64 netns_cookie,
			    const struct nlattr *attr,
			    struct netlink_ext_ack *extack);
int ipttrace_verify_try(const struct net *net, u32 portid,
			const struct nlattr *attr,
			struct netlink_ext_ack *extack);
int ipttrace_verify_end(enum ipttrace_hook hook, enum ipttrace_walk walk,
			bool anyway, const struct nlattr *attr,
			struct netlink_ext_ack *extack);
int ipttrace_verify_compare(void);
int ipttrace_verify_layouts(struct netlink_ext_ack *extack);
void ipttrace_verify_release(u32 portid);
enum ipttrace_walk ipttrace_verify_state(enum ipttrace_hook hook);
int ipttrace_put_walk(struct sk_buff *msg);

#endif /* _IPTTRACE_VERIFY_H */
