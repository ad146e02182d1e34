/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_CHAIN_H
#define _IPTTRACE_CHAIN_H

#include <linux/bits.h>

#include "hook.h"

/* Bit of an armed chain link. */
#define IPTTRACE_ARMED_CHAINS BIT(3)

extern const struct ipttrace_hook_ops ipttrace_chain_hook;

#endif /* _IPTTRACE_CHAIN_H */
