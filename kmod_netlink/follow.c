// SPDX-License-Identifier: GPL-2.0
/*
 * Packets that come to nftables' base chains. ftrace calls us when nft_do_chain() is entered. A
 * packet that no link can want goes on; that check is all that it pays for. Any other gets to
 * chain_replacement(), which runs the entry programs, and if one selects the packet, walks through
 * the rules in place of the kernel (walk.c). Nothing is marked, and nobody else pays for it.
 * verify.c says who may use it where.
 *
 * A handler only decides whether to redirect, and hands nothing to the replacement: see traverse.c.
 */
#include <linux/sched/clock.h>

#include "compat/ftrace.h"
#include "compat/nft.h"
#include "compat/regs.h"
#include "events.h"
#include "filter.h"
#include "follow.h"
#include "link.h"
#include "nested.h"
#include "packet.h"
#include "selection.h"
#include "walk.h"

#define MODULE_NAME "nf_tables"

/* Index of the packet and of the base chain among the arguments of nft_do_chain(). */
#define CHAIN_PKT_ARG 0
#define CHAIN_CHAIN_ARG 1

/* Deeper ones are left to the kernel. */
#define NESTED_WALKS 4

static DEFINE_PER_CPU(struct hlist_head, walks);

/* The program sets that packets see; written under ipttrace_lock. */
static struct ipttrace_sets __rcu *published;

/* --- packets ------------------------------------------------------------------------------- */

/* Begins a walk: where it is, and what all its events have in common. */
static __always_inline void
walk_begin(struct ipttrace_chain_walk *walk,
	   const struct ipttrace_selection *selection, struct nft_pktinfo *pkt,
	   const struct nft_chain *base, unsigned long sp, unsigned long bp)
{
	const struct net *net = nft_net(pkt);

	walk->pkt = pkt;
	walk->selection = selection;
	walk->slots = selection->slots;
	walk->sp = sp;
	walk->bp = bp;
	walk->named = NULL;
	walk->depth = 0;
	walk->rules = 0;
	walk->told = ipttrace_events_wanted();
	if (walk->told)
		memset(&walk->event, 0, sizeof(walk->event));
	else
		walk->event.flags = 0;
	walk->cursor = READ_ONCE(net->nft.gencursor);
	/* see ipttrace_walk_describe() */
	smp_rmb();
	walk->base_seq = ipttrace_nft_base_seq(&ipttrace_nft, net);
	if (walk->told)
		ipttrace_walk_describe(walk, base);
}

/*
 * Follows a selected packet through a base chain. noinline: a packet that was not selected does not
 * pay for the walk.
 */
static noinline unsigned int
chain_follow(const struct ipttrace_selection *selection,
	     struct nft_pktinfo *pkt, void *priv, unsigned long sp,
	     unsigned long bp)
{
	const struct nft_chain *base = priv;
	unsigned int verdict;
	struct ipttrace_chain_walk walk __uninitialized;
	bool timed;
	u64 start;

	if (!ipttrace_nested_enter(&walk.nested, &walks, NESTED_WALKS)) {
		ipttrace_selection_count_nested(selection);
		return ipttrace_behind_nft_do_chain(pkt, priv);
	}
	walk_begin(&walk, selection, pkt, base, sp, bp);

	timed = walk.slots & BIT(IPTTRACE_SLOT_EXIT);
	/* on one CPU, and cheaper than the time of events */
	start = timed ? sched_clock() : 0;
	verdict = ipttrace_walk_chains(&walk, base);
	if (timed)
		ipttrace_walk_exit(&walk, base, verdict, sched_clock() - start);
	ipttrace_nested_leave(&walk.nested);
	if ((verdict & NF_VERDICT_MASK) == NF_DROP)
		return ipttrace_walk_drop(pkt);
	if (verdict == NF_ACCEPT)
		ipttrace_selection_passes(selection, pkt->skb, pkt->state);
	return verdict;
}

/* --- selecting packets --------------------------------------------------------------------- */

static noinline notrace bool
place_has_names(const struct ipttrace_chain_place *place,
		const struct nft_chain *chain)
{
	if (strcmp(place->table, chain->table->name))
		return false;
	return !place->chain[0] ||
	       !strcmp(place->chain, READ_ONCE(chain->name));
}

/* Tells whether a place is at a base chain as far as names tell. */
static __always_inline bool
place_names(const struct ipttrace_chain_place *place,
	    const struct nft_chain *chain)
{
	return !place->table[0] || place_has_names(place, chain);
}

/* Tells whether a link may be at this base chain: it is in the namespace, and of the family. */
static __always_inline bool link_may_concern(const struct ipttrace_link *link,
					     const struct nft_pktinfo *pkt,
					     const struct nft_chain *chain)
{
	const struct ipttrace_chain_place *place = link->place;

	if (place->netns.cookie &&
	    place->netns.cookie != nft_net(pkt)->net_cookie)
		return false;
	return !link->family || link->family == chain->table->family;
}

/* Tells whether a link is at this base chain, and in the packet's namespace. */
static __always_inline bool link_concerns(const struct ipttrace_link *link,
					  const struct nft_pktinfo *pkt,
					  const struct nft_chain *chain)
{
	return link_may_concern(link, pkt, chain) &&
	       place_names(link->place, chain);
}

/* True if the set has no filter, or one that lets the packet through. */
static __always_inline bool filter_wants(const struct ipttrace_set *set,
					 const struct nft_pktinfo *pkt)
{
	return !set->filter ||
	       ipttrace_set_takes(set, pkt->skb, pkt->state->pf);
}

/* The first set from number @i on whose link may be at this base chain, or the number of sets. */
static __always_inline unsigned int
next_concerned(const struct ipttrace_sets *sets, unsigned int i,
	       const struct nft_pktinfo *pkt, const struct nft_chain *chain)
{
	while (i < sets->count &&
	       !link_may_concern(sets->set[i]->link, pkt, chain))
		i++;
	return i;
}

/* Takes a packet back from the counts of the links that are before set number @end. */
static noinline notrace void uncount_packet(const struct ipttrace_sets *sets,
					    unsigned int end,
					    const struct nft_pktinfo *pkt,
					    const struct nft_chain *chain)
{
	unsigned int i;

	for (i = 0; i < end; i++)
		if (link_concerns(sets->set[i]->link, pkt, chain))
			this_cpu_dec(sets->set[i]->link->stats->packets);
}

/*
 * Tells whether any set from number @i on, which next_concerned() found, may want the packet, as
 * far as places and filters tell: no program is run. A packet that no set can want is counted here,
 * any other where its selection is made. noinline: a packet that no link concerns does not pay for
 * it.
 */
static noinline notrace bool
packet_may_be_wanted(const struct ipttrace_sets *sets, unsigned int i,
		     const struct nft_pktinfo *pkt,
		     const struct nft_chain *chain)
{
	for (; i < sets->count; i = next_concerned(sets, i + 1, pkt, chain)) {
		const struct ipttrace_set *set = sets->set[i];

		if (!place_names(set->link->place, chain))
			continue;
		if (set->filter_draws || filter_wants(set, pkt)) {
			/* these are counted with it */
			if (i)
				uncount_packet(sets, i, pkt, chain);
			return true;
		}
		this_cpu_inc(set->link->stats->packets);
	}
	return false;
}

/* Runs the entry program of a set. noinline: its registers are off the stack before the walk. */
static noinline bool entry_selects(const struct ipttrace_set *set,
				   const struct nft_pktinfo *pkt,
				   const struct nft_chain *chain,
				   unsigned long sp, unsigned long bp)
{
	const unsigned long args[6] = {
		/* clang-format off */ /* it would put two on a line */
		(unsigned long)chain->table->name,
		(unsigned long)pkt->skb,
		(unsigned long)pkt->state,
		ipttrace_packet_sender(pkt->skb, pkt->state, !in_softirq()),
		(unsigned long)READ_ONCE(chain->name),
		chain->table->family,
		/* clang-format on */
	};
	struct pt_regs regs __uninitialized;
	bool off, selects;

	ipttrace_regs(&regs, ipttrace_follow_functions[0].site, sp, bp, args);
	off = ipttrace_softirqs_off();
	selects = ipttrace_set_run(set, IPTTRACE_SLOT_ENTRY, &regs);
	if (off)
		local_bh_enable();
	return selects;
}

/* Asks a set about a packet: its filter, then its entry program. */
static __always_inline bool set_wants(const struct ipttrace_set *set,
				      const struct nft_pktinfo *pkt,
				      const struct nft_chain *chain,
				      unsigned long sp, unsigned long bp)
{
	if (!filter_wants(set, pkt))
		return false;
	return !(set->slots & BIT(IPTTRACE_SLOT_ENTRY)) ||
	       entry_selects(set, pkt, chain, sp, bp);
}

/*
 * Makes the selection of a packet: runs filters and entry programs. True if any set needs the
 * packet to be followed.
 */
static __always_inline bool packet_select(struct ipttrace_selection *selection,
					  const struct nft_pktinfo *pkt,
					  const struct nft_chain *chain,
					  unsigned long sp, unsigned long bp)
{
	const struct ipttrace_sets *sets = rcu_dereference(published);
	bool follow = false;
	unsigned int i;

	selection->sets = sets;
	/* the last link may have gone since the handler looked */
	if (!sets)
		return false;
	ipttrace_selection_begin(selection, pkt->skb, pkt->state);
	for (i = 0; i < sets->count; i++) {
		const struct ipttrace_set *set = sets->set[i];

		if (!link_concerns(set->link, pkt, chain))
			continue;
		this_cpu_inc(set->link->stats->packets);
		if (ipttrace_selection_settled(selection, i, &follow))
			continue;
		if (!ipttrace_selection_is_answer(selection, i) &&
		    !set_wants(set, pkt, chain, sp, bp))
			continue;
		follow |= ipttrace_selection_add(selection, i, pkt->skb,
						 pkt->state, chain);
	}
	ipttrace_selection_end(selection, pkt->skb, pkt->state);
	return follow;
}

/* Stands in for nft_do_chain(), for a packet that may be wanted. */
static unsigned int chain_replacement(struct nft_pktinfo *pkt, void *priv)
{
	const unsigned long sp = ipttrace_entry_sp();
	const unsigned long bp = ipttrace_entry_bp(sp);
	struct ipttrace_selection selection = {};
	unsigned int verdict;
	bool movable;

	if (!packet_select(&selection, pkt, priv, sp, bp))
		return ipttrace_behind_nft_do_chain(pkt, priv);
	/* the events of a walk are numbered by one CPU, in their order */
	movable = !in_softirq();
	if (movable)
		migrate_disable();
	verdict = chain_follow(&selection, pkt, priv, sp, bp);
	if (movable)
		migrate_enable();
	return verdict;
}

/* --- chains that are not consulted --------------------------------------------------------- */

/*
 * Tells whether any set may want to be told that a base chain is not consulted. Such a packet does
 * not come to the chain: it is not counted.
 */
bool ipttrace_follow_known_wanted(const struct nft_chain *chain,
				  struct sk_buff *skb,
				  const struct nf_hook_state *state)
{
	const struct ipttrace_sets *sets = rcu_dereference(published);
	const struct nft_pktinfo pkt = { .skb = skb, .state = state };
	unsigned int i;

	for (i = 0; sets && i < sets->count; i++) {
		const struct ipttrace_set *set = sets->set[i];

		if (set->slots & BIT(IPTTRACE_SLOT_RULE) &&
		    link_concerns(set->link, &pkt, chain) &&
		    (set->filter_draws || ipttrace_followed_any(skb) ||
		     filter_wants(set, &pkt)))
			return true;
	}
	return false;
}

/* Selects the sets that are told. */
static bool known_select(struct ipttrace_selection *selection,
			 const struct nft_pktinfo *pkt,
			 const struct nft_chain *chain, unsigned long sp,
			 unsigned long bp)
{
	const struct ipttrace_sets *sets = rcu_dereference(published);
	unsigned int i;

	selection->sets = sets;
	ipttrace_selection_know(selection, pkt->skb);
	for (i = 0; sets && i < sets->count; i++) {
		const struct ipttrace_set *set = sets->set[i];

		if (!(set->slots & BIT(IPTTRACE_SLOT_RULE)) ||
		    !link_concerns(set->link, pkt, chain) ||
		    ipttrace_selection_settled_unseen(selection, i) ||
		    !set_wants(set, pkt, chain, sp, bp))
			continue;
		if (ipttrace_set_admits(set, pkt->skb, pkt->state, chain))
			ipttrace_selection_put(selection, i);
	}
	return selection->slots;
}

/**
 * ipttrace_follow_known - tell that a base chain is not consulted: the packet's connection is known
 * @chain: the base chain
 * @skb: the packet
 * @state: state of its hook
 * @sp: stack pointer where the function was entered that decides this
 * @bp: frame pointer there
 *
 * To rule programs it is a rule without number and handle that does not decide.
 *
 * Context: softirqs as the hook has them, in its RCU read section; nft_do_chain() is redirected.
 */
void ipttrace_follow_known(const struct nft_chain *chain, struct sk_buff *skb,
			   const struct nf_hook_state *state, unsigned long sp,
			   unsigned long bp)
{
	const struct nft_verdict undecided = { .code = NFT_CONTINUE };
	const struct ipttrace_position at = { .chain = chain };
	struct nft_pktinfo pkt = { .skb = skb, .state = state };
	struct ipttrace_selection selection = {};
	struct ipttrace_chain_walk walk;

	if (!known_select(&selection, &pkt, chain, sp, bp))
		return;
	/* the number of the walk is of one CPU */
	migrate_disable();
	walk_begin(&walk, &selection, &pkt, chain, sp, bp);
	ipttrace_walk_show(&walk, IPTTRACE_KIND_CHAIN_KNOWN, &at, 0,
			   &undecided);
	migrate_enable();
}

/* --- the redirect -------------------------------------------------------------------------- */

static __always_inline void chain_redirect(struct ftrace_regs *fregs)
{
	ipttrace_redirect(fregs, ipttrace_follow_functions[0].replacement);
}

/*
 * Does what the handler does for a packet that only the filter of one set can keep away: most hosts
 * have one link. packet_may_be_wanted() saves more registers. noinline: see there.
 */
static noinline notrace void
redirect_if_filter_takes(struct ftrace_regs *fregs,
			 const struct ipttrace_set *set,
			 const struct nft_pktinfo *pkt)
{
	if (set->filter_draws ||
	    ipttrace_set_takes(set, pkt->skb, pkt->state->pf))
		chain_redirect(fregs);
	else
		this_cpu_inc(set->link->stats->packets);
}

/* ftrace handler of nft_do_chain(); every packet pays for it. */
static void notrace chain_handler(unsigned long ip, unsigned long parent_ip,
				  struct ftrace_ops *ops,
				  struct ftrace_regs *fregs)
{
	const struct nft_pktinfo *pkt =
		(void *)ipttrace_argument(fregs, CHAIN_PKT_ARG);
	const struct nft_chain *chain =
		(void *)ipttrace_argument(fregs, CHAIN_CHAIN_ARG);
	/* nf_hook() holds the RCU read lock around nft_do_chain() */
	const struct ipttrace_sets *sets = rcu_dereference(published);
	const struct ipttrace_chain_place *place;
	const struct ipttrace_set *set;
	unsigned int i;

	/* ftrace may not have been able to remove the address of an earlier load (function.c) */
	if (!sets || READ_ONCE(ipttrace_follow_functions[0].site) != ip)
		return;
	i = next_concerned(sets, 0, pkt, chain);
	if (i == sets->count)
		return;
	set = sets->set[i];
	place = set->link->place;
	if ((!place->table[0] && !set->filter) ||
	    ipttrace_selection_journeys_may_want(pkt->skb))
		chain_redirect(fregs);
	else if (!place->table[0] && i + 1 == sets->count)
		redirect_if_filter_takes(fregs, set, pkt);
	else if (packet_may_be_wanted(sets, i, pkt, chain))
		chain_redirect(fregs);
}

/* PERMANENT: sysctl kernel.ftrace_enabled must not switch links off behind their backs. */
static struct ipttrace_watch chain_watch = {
	.ops = {
		.func = chain_handler,
		.flags = FTRACE_OPS_FL_PERMANENT | FTRACE_OPS_FL_IPMODIFY,
	},
};

struct ipttrace_function ipttrace_follow_functions[IPTTRACE_FOLLOW_FUNCTIONS] = {
	{
		.symbol = "nft_do_chain",
		.module = MODULE_NAME,
		.watch = &chain_watch,
		.replacement = (void *)chain_replacement,
		.behind = &ipttrace_behind_nft_do_chain_address,
		.shown = true,
	},
};

/**
 * ipttrace_follow_publish - put program sets in force
 * @sets: the sets, ours from now on; NULL if there are none
 *
 * Return: the sets that were in force before, or NULL. A grace period later no packet is handled by
 * them any more, and the caller frees them.
 */
struct ipttrace_sets *ipttrace_follow_publish(struct ipttrace_sets *sets)
{
	return rcu_replace_pointer(published, sets,
				   lockdep_is_held(&ipttrace_lock));
}
