/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_STEPS_CHECK_H
#define _IPTTRACE_STEPS_CHECK_H

#include <linux/netlink.h>

int ipttrace_steps_check(struct netlink_ext_ack *extack);

#endif /* _IPTTRACE_STEPS_CHECK_H */
