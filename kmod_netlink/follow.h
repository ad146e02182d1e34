/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_FOLLOW_H
#define _IPTTRACE_FOLLOW_H

#include <linux/types.h>

#include "function.h"
#include "ipttrace_netlink.h"
#include "netns_place.h"

struct ipttrace_sets;
struct nf_hook_state;
struct nft_chain;
struct sk_buff;

/**
 * struct ipttrace_chain_place - the place of a chain link
 * @netns: its network namespace, or all; the first member
 * @table: name of its table, or empty for all
 * @chain: name of its base chain, or empty for all of the table
 *
 * Owned by the link; constant but for @netns.
 */
struct ipttrace_chain_place {
	struct ipttrace_netns_place netns;
	char table[IPTTRACE_NFT_NAME + 1];
	char chain[IPTTRACE_NFT_NAME + 1];
};

/* nft_do_chain() alone: one function, of one watch. */
#define IPTTRACE_FOLLOW_FUNCTIONS 1

extern struct ipttrace_function
	ipttrace_follow_functions[IPTTRACE_FOLLOW_FUNCTIONS];

struct ipttrace_sets *ipttrace_follow_publish(struct ipttrace_sets *sets);
bool ipttrace_follow_known_wanted(const struct nft_chain *chain,
				  struct sk_buff *skb,
				  const struct nf_hook_state *state);
void ipttrace_follow_known(const struct nft_chain *chain, struct sk_buff *skb,
			   const struct nf_hook_state *state, unsigned long sp,
			   unsigned long bp);

#endif /* _IPTTRACE_FOLLOW_H */
