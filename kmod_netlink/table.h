/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_TABLE_H
#define _IPTTRACE_TABLE_H

#include <linux/bits.h>

#include "hook.h"

#define IPTTRACE_ARMED_IPV4 BIT(0)
#define IPTTRACE_ARMED_IPV6 BIT(1)

extern const struct ipttrace_hook_ops ipttrace_table_hook;

#endif /* _IPTTRACE_TABLE_H */
