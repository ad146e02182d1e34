/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_COMPAT_NETLINK_H
#define _IPTTRACE_COMPAT_NETLINK_H

#include <linux/netlink.h>

/*
 * A sentence with numbers or names in it, @fmt, where the extended ACK has room for one: since v6.2
 * (51c352bdbcd2). Before that there is nowhere to put it that lasts until the ACK is sent, and
 * @plain has to do.
 */
#ifdef NL_SET_ERR_MSG_ATTR_FMT
#define IPTTRACE_SET_ERR_MSG_ATTR(extack, attr, plain, fmt, args...) \
	do {                                                         \
		(void)(plain);                                       \
		NL_SET_ERR_MSG_ATTR_FMT(extack, attr, fmt, ##args);  \
	} while (0)
#else
#define IPTTRACE_SET_ERR_MSG_ATTR(extack, attr, plain, fmt, args...) \
	do {                                                         \
		(void)(fmt);                                         \
		NL_SET_ERR_MSG_ATTR(extack, attr, plain);            \
	} while (0)
#endif

#endif /* _IPTTRACE_COMPAT_NETLINK_H */
