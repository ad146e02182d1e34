/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_NETLINK_INIT_H
#define _IPTTRACE_NETLINK_INIT_H

/*
 * For MODULE_VERSION and for requests: the copy that THIS_MODULE has is NULL
 * when there was no memory for it.
 */
#define IPTTRACE_VERSION "0.1.0"

int ipttrace_netlink_init(void);
void ipttrace_netlink_exit(void);

#endif /* _IPTTRACE_NETLINK_INIT_H */
