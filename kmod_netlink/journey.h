/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_JOURNEY_H
#define _IPTTRACE_JOURNEY_H

#include <linux/bits.h>

#include "hook.h"

#define IPTTRACE_ARMED_JOURNEY BIT(5)

struct ipttrace_link;

extern const struct ipttrace_hook_ops ipttrace_journey_hook;

int ipttrace_journey_join(struct ipttrace_link *link, const struct nlattr *attr,
			  struct netlink_ext_ack *extack);
int ipttrace_journey_check_release(const struct ipttrace_link *link,
				   const struct nlattr *attr,
				   struct netlink_ext_ack *extack);
size_t ipttrace_journey_joined_size(void);
int ipttrace_journey_put_joined(struct sk_buff *msg,
				const struct ipttrace_link *link);

#endif /* _IPTTRACE_JOURNEY_H */
