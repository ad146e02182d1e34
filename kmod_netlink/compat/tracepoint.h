/* SPDX-License-Identifier: GPL-2.0 */
/* The arguments of tracepoints that differ between kernels. */
#ifndef _IPTTRACE_COMPAT_TRACEPOINT_H
#define _IPTTRACE_COMPAT_TRACEPOINT_H

#include <linux/tracepoint.h>

#include "features.h"

struct sock;

/* The parameters of a probe of kfree_skb from the reason on. */
#ifdef IPTTRACE_HAVE_KFREE_SKB_RX_SK
#define IPTTRACE_KFREE_SKB_REASON \
	enum skb_drop_reason reason, struct sock *rx_sk
#else
#define IPTTRACE_KFREE_SKB_REASON enum skb_drop_reason reason
#endif

#endif /* _IPTTRACE_COMPAT_TRACEPOINT_H */
