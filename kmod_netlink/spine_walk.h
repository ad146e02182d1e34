/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_SPINE_WALK_H
#define _IPTTRACE_SPINE_WALK_H

#include <linux/netfilter.h>

#include "placeholders.h"

struct ipttrace_selection;

int ipttrace_spine_walk(const struct ipttrace_selection *selection,
			struct sk_buff *skb, struct nf_hook_state *state,
			const struct nf_hook_entries *entries, unsigned int i,
			unsigned long sp, unsigned long bp);

/*
 * The number of functions of a hook from @from up to @to, placeholders apart. Inline: the handler
 * of ftrace asks too.
 */
static __always_inline unsigned int
ipttrace_spine_count(const struct nf_hook_entries *entries, unsigned int from,
		     unsigned int to)
{
	unsigned int count = 0;

	for (; from < to; from++)
		count += READ_ONCE(entries->hooks[from].hook) !=
			 ipttrace_placeholder;
	return count;
}

#endif /* _IPTTRACE_SPINE_WALK_H */
