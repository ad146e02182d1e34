/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The walk of a packet through the rules of nftables, between its parts: walk.c goes from rule to
 * rule, walk_event.c shows where it is, follow.c decides which packets are walked with.
 */
#ifndef _IPTTRACE_WALK_H
#define _IPTTRACE_WALK_H

#include "compat/nft.h"
#include "ipttrace_netlink.h"
#include "nested.h"

struct ipttrace_selection;

/**
 * struct ipttrace_position - a place in the rules of a chain
 * @chain: the chain
 * @rule: the next rule
 * @end: the end of the rules
 * @number: number of the rule in its chain, from 1
 */
struct ipttrace_position {
	const struct nft_chain *chain;
	const struct nft_rule_dp *rule;
	const void *end;
	u32 number;
};

/**
 * struct ipttrace_chain_walk - a selected packet on its way through a base chain
 * @nested: in the walks of this CPU
 * @pkt: the packet
 * @selection: the program sets that follow it
 * @slots: slots in which any of them has a program
 * @sp: stack pointer where nft_do_chain() was entered
 * @bp: frame pointer there
 * @cursor: which of two rulesets the packet meets, as the kernel's loop decides at its entry
 * @base_seq: generation of the ruleset, read after @cursor
 * @told: somebody listened at its entry: @event is filled in, and sent
 * @named: the chain that @event names
 * @depth: jumps that it has not returned from
 * @rules: rules that matched so far, ends of chains and the policy included
 * @event: fields that all its events have in common
 *
 * Lives on the stack of chain_follow() of follow.c, and stays on one CPU.
 */
struct ipttrace_chain_walk {
	struct ipttrace_nested nested;
	struct nft_pktinfo *pkt;
	const struct ipttrace_selection *selection;
	unsigned long slots;
	unsigned long sp;
	unsigned long bp;
	bool cursor;
	unsigned int base_seq;
	bool told;
	const struct nft_chain *named;
	unsigned int depth;
	u32 rules;
	struct ipttrace_event event;
};

extern struct ipttrace_nft ipttrace_nft;

void ipttrace_walk_describe(struct ipttrace_chain_walk *walk,
			    const struct nft_chain *base);
void ipttrace_walk_show(struct ipttrace_chain_walk *walk,
			enum ipttrace_kind kind,
			const struct ipttrace_position *at, u64 handle,
			const struct nft_verdict *verdict);
void ipttrace_walk_end(struct ipttrace_chain_walk *walk,
		       const struct ipttrace_position *at,
		       const struct nft_chain *base);
void ipttrace_walk_exit(struct ipttrace_chain_walk *walk,
			const struct nft_chain *base, unsigned int verdict,
			u64 cost);

unsigned int ipttrace_walk_chains(struct ipttrace_chain_walk *walk,
				  const struct nft_chain *base);
unsigned int ipttrace_walk_drop(struct nft_pktinfo *pkt);
void ipttrace_walk_dropping_init(void);

/*
 * Notes that rules which are read from now on may be of a later ruleset than the packet's: once a
 * commit has ended, the next one replaces the rules that the packet may still come to.
 */
static inline void ipttrace_walk_check_ruleset(struct ipttrace_chain_walk *walk)
{
	const struct net *net = nft_net(walk->pkt);

	/* after the pointer to the rules was read */
	smp_rmb();
	if (unlikely(ipttrace_nft_base_seq(&ipttrace_nft, net) !=
			     walk->base_seq ||
		     READ_ONCE(net->nft.gencursor) != walk->cursor))
		walk->event.flags |= IPTTRACE_EVENT_FLAG_UNCERTAIN;
}

/* Handles a rule that matched. */
static __always_inline void
ipttrace_walk_rule(struct ipttrace_chain_walk *walk,
		   const struct ipttrace_position *at,
		   const struct nft_verdict *verdict)
{
	walk->rules++;
	if (walk->slots & BIT(IPTTRACE_SLOT_RULE))
		ipttrace_walk_show(walk, IPTTRACE_KIND_CHAIN_RULE, at,
				   at->rule->handle, verdict);
}

#endif /* _IPTTRACE_WALK_H */
