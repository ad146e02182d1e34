/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_NETLINK_INIT_H
#define _IPTTRACE_NETLINK_INIT_H

int ipttrace_netlink_init(void);
void ipttrace_netlink_exit(void);

#endif /* _IPTTRACE_NETLINK_INIT_H */
