/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_COMPAT_GENETLINK_H
#define _IPTTRACE_COMPAT_GENETLINK_H

#include <net/genetlink.h>

/*
 * Multicast groups have flags of their own since v6.7 (cd4d7263d58a). Before that, genl_bind()
 * takes the flag of operations that asks for the same capability: CAP_NET_ADMIN over the socket's
 * network namespace.
 */
#ifndef GENL_MCAST_CAP_NET_ADMIN
#define GENL_MCAST_CAP_NET_ADMIN GENL_UNS_ADMIN_PERM
#endif

#endif /* _IPTTRACE_COMPAT_GENETLINK_H */
