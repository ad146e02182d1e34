/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_SPINE_FOLLOW_H
#define _IPTTRACE_SPINE_FOLLOW_H

#include <linux/netfilter.h>

#include "function.h"
#include "netns_place.h"

struct ipttrace_sets;

/* No family has so many hooks. */
#define IPTTRACE_SPINE_HOOKS 8

/**
 * struct ipttrace_spine_place - the place of a spine link
 * @netns: its network namespace, or all; the first member
 * @hooks: by family, a bit for each hook that the link is at
 * @hooknum: number of its only hook, or -1 for all of its family
 *
 * Owned by the link; constant but for @netns.
 */
struct ipttrace_spine_place {
	struct ipttrace_netns_place netns;
	u8 hooks[NFPROTO_NUMPROTO];
	int hooknum;
};

/* nf_hook_slow() alone: one function, of one watch. */
#define IPTTRACE_SPINE_FUNCTIONS 1

extern struct ipttrace_function
	ipttrace_spine_functions[IPTTRACE_SPINE_FUNCTIONS];

struct ipttrace_sets *ipttrace_spine_publish(struct ipttrace_sets *sets);

#endif /* _IPTTRACE_SPINE_FOLLOW_H */
