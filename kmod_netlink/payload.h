/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_PAYLOAD_H
#define _IPTTRACE_PAYLOAD_H

#include <linux/netlink.h>

#include "program.h"

int ipttrace_set_add_payload(struct ipttrace_set *set,
			     const struct nlattr *attr,
			     struct netlink_ext_ack *extack);
const void *ipttrace_set_payload(const struct ipttrace_set *set,
				 enum ipttrace_slot slot);

#endif /* _IPTTRACE_PAYLOAD_H */
