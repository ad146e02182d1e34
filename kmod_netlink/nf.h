/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_NF_H
#define _IPTTRACE_NF_H

#include <linux/bits.h>

#include "hook.h"

#define IPTTRACE_ARMED_NF BIT(2)

extern const struct ipttrace_hook_ops ipttrace_nf_hook;

#endif /* _IPTTRACE_NF_H */
