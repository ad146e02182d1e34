/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_SPINE_H
#define _IPTTRACE_SPINE_H

#include <linux/bits.h>

#include "hook.h"

/* Bit of an armed spine link. */
#define IPTTRACE_ARMED_SPINE BIT(4)

extern const struct ipttrace_hook_ops ipttrace_spine_hook;

#endif /* _IPTTRACE_SPINE_H */
