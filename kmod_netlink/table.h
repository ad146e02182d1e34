/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_TABLE_H
#define _IPTTRACE_TABLE_H

#include <linux/bits.h>
#include <linux/gfp_types.h>
#include <linux/netlink.h>

struct ipttrace_sets;

#define IPTTRACE_ARMED_IPV4 BIT(0)
#define IPTTRACE_ARMED_IPV6 BIT(1)

int ipttrace_table_init(void);
void ipttrace_table_exit(void);
int ipttrace_table_arm(struct netlink_ext_ack *extack);
void ipttrace_table_armed_end(void);
struct ipttrace_sets *ipttrace_table_prepare(gfp_t gfp);
struct ipttrace_sets *ipttrace_table_publish(struct ipttrace_sets *sets);
void ipttrace_table_release(void);
u32 ipttrace_table_armed(u32 family);

#endif /* _IPTTRACE_TABLE_H */
