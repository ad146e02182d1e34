/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_NETLINK_INIT_H
#define _IPTTRACE_NETLINK_INIT_H

/*
 * For MODULE_VERSION and for requests: the copy that THIS_MODULE has is NULL
 * when there was no memory for it.
 */
#define IPTTRACE_VERSION "0.1.0"

struct genl_info;
struct ipttrace_link;

int ipttrace_netlink_init(void);
void ipttrace_netlink_exit(void);
int ipttrace_nl_with_link(struct genl_info *info,
			  int (*change)(struct ipttrace_link *link,
					struct genl_info *info));

#endif /* _IPTTRACE_NETLINK_INIT_H */
