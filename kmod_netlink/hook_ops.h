/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_HOOK_OPS_H
#define _IPTTRACE_HOOK_OPS_H

#include <linux/netfilter.h>

bool ipttrace_hook_ops_read(struct nf_hook_ops *read,
			    const struct nf_hook_entries *entries,
			    unsigned int i, const void *function);

#endif /* _IPTTRACE_HOOK_OPS_H */
