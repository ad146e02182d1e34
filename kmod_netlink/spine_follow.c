// SPDX-License-Identifier: GPL-2.0
/*
 * Packets that come to netfilter hooks with functions, or with placeholders alone. ftrace calls us
 * when nf_hook_slow() is entered. A packet that no link can want goes on; that check is all that it
 * pays for. Any other gets to spine_replacement(), which runs the entry programs, and if one
 * selects the packet, has it walked through the hook (spine_walk.c).
 */
#include <linux/netfilter.h>

#include "compat/behind.h"
#include "compat/ftrace.h"
#include "compat/regs.h"
#include "filter.h"
#include "link.h"
#include "packet.h"
#include "selection.h"
#include "spine_follow.h"
#include "spine_walk.h"

/* Index of the packet and of the hook's state among the arguments of nf_hook_slow(). */
#define SPINE_SKB_ARG 0
#define SPINE_STATE_ARG 1
#define SPINE_ENTRIES_ARG 2
#define SPINE_FIRST_ARG 3

/* The program sets that packets see; written under ipttrace_lock. */
static struct ipttrace_sets __rcu *published;

/* --- selecting packets --------------------------------------------------------------------- */

/* Tells whether a link is at this hook, and in its namespace. */
static __always_inline bool link_concerns(const struct ipttrace_link *link,
					  const struct nf_hook_state *state)
{
	const struct ipttrace_spine_place *place = link->place;

	if (place->netns.cookie &&
	    place->netns.cookie != state->net->net_cookie)
		return false;
	return place->hooks[state->pf] & BIT(state->hook);
}

/* The first set from number @i on whose link is at this hook, or the number of sets. */
static __always_inline unsigned int
next_concerned(const struct ipttrace_sets *sets, unsigned int i,
	       const struct nf_hook_state *state)
{
	while (i < sets->count && !link_concerns(sets->set[i]->link, state))
		i++;
	return i;
}

/* Takes a packet back from the counts of the links that are before set number @end. */
static noinline notrace void uncount_packet(const struct ipttrace_sets *sets,
					    unsigned int end,
					    const struct nf_hook_state *state)
{
	unsigned int i;

	for (i = next_concerned(sets, 0, state); i < end;
	     i = next_concerned(sets, i + 1, state))
		this_cpu_dec(sets->set[i]->link->stats->packets);
}

/*
 * Tells whether any set from number @i on, which next_concerned() found, may want the packet, as
 * far as filters tell: no program is run. A packet that no set can want is counted here, any other
 * where its selection is made. noinline: a packet that no link concerns does not pay for it.
 */
static noinline notrace bool
packet_may_be_wanted(const struct ipttrace_sets *sets, unsigned int i,
		     struct sk_buff *skb, const struct nf_hook_state *state)
{
	for (; i < sets->count; i = next_concerned(sets, i + 1, state)) {
		const struct ipttrace_set *set = sets->set[i];

		if (!set->filter || set->filter_draws ||
		    ipttrace_set_takes(set, skb, state->pf)) {
			/* these are counted with it */
			if (i)
				uncount_packet(sets, i, state);
			return true;
		}
		this_cpu_inc(set->link->stats->packets);
	}
	return false;
}

/* Runs the entry program of a set. */
static __always_inline bool entry_selects(const struct ipttrace_set *set,
					  struct sk_buff *skb,
					  const struct nf_hook_state *state,
					  unsigned int functions,
					  unsigned long sp, unsigned long bp)
{
	const unsigned long args[6] = {
		/* clang-format off */ /* it would put two on a line */
		state->pf,
		(unsigned long)skb,
		(unsigned long)state,
		ipttrace_packet_sender(skb, state, !in_softirq()),
		state->hook,
		functions,
		/* clang-format on */
	};
	struct pt_regs regs __uninitialized;
	bool off, selects;

	ipttrace_regs(&regs, ipttrace_spine_functions[0].site, sp, bp, args);
	off = ipttrace_softirqs_off();
	selects = ipttrace_set_run(set, IPTTRACE_SLOT_ENTRY, &regs);
	if (off)
		local_bh_enable();
	return selects;
}

/* Asks a set about a packet: its filter, then its entry program. */
static __always_inline bool set_wants(const struct ipttrace_set *set,
				      struct sk_buff *skb,
				      const struct nf_hook_state *state,
				      unsigned int functions, unsigned long sp,
				      unsigned long bp)
{
	if (set->filter && !ipttrace_set_takes(set, skb, state->pf))
		return false;
	return !(set->slots & BIT(IPTTRACE_SLOT_ENTRY)) ||
	       entry_selects(set, skb, state, functions, sp, bp);
}

/*
 * Makes the selection of a packet: runs filters and entry programs. True if any set needs the
 * packet to be followed. noinline: the registers of entry programs are not on the stack of the
 * walk.
 */
static noinline bool packet_select(struct ipttrace_selection *selection,
				   struct sk_buff *skb,
				   const struct nf_hook_state *state,
				   const struct nf_hook_entry *first,
				   unsigned int functions, unsigned long sp,
				   unsigned long bp)
{
	const struct ipttrace_sets *sets = rcu_dereference(published);
	bool follow = false;
	unsigned int i;

	selection->sets = sets;
	/* the last link may have gone since the handler looked */
	if (!sets)
		return false;
	ipttrace_selection_begin(selection, skb, state);
	for (i = next_concerned(sets, 0, state); i < sets->count;
	     i = next_concerned(sets, i + 1, state)) {
		const struct ipttrace_set *set = sets->set[i];

		this_cpu_inc(set->link->stats->packets);
		if (ipttrace_selection_settled(selection, i, &follow))
			continue;
		if (!ipttrace_selection_is_answer(selection, i) &&
		    !set_wants(set, skb, state, functions, sp, bp))
			continue;
		/* a bridge hands packets back to the rest of a hook's functions */
		follow |=
			ipttrace_selection_add(selection, i, skb, state, first);
	}
	ipttrace_selection_end(selection, skb, state);
	return follow;
}

/* Stands in for nf_hook_slow(), for a packet that may be wanted. */
static int spine_replacement(struct sk_buff *skb, struct nf_hook_state *state,
			     const struct nf_hook_entries *entries,
			     unsigned int i)
{
	const unsigned long sp = ipttrace_entry_sp();
	const unsigned long bp = ipttrace_entry_bp(sp);
	/* one that was removed meanwhile is replaced by one that does nothing, and counts */
	const unsigned int functions =
		ipttrace_spine_count(entries, i, entries->num_hook_entries);
	struct ipttrace_selection selection = {};
	bool movable;
	int ret;

	if (!packet_select(&selection, skb, state, &entries->hooks[i],
			   functions, sp, bp))
		return ipttrace_behind_nf_hook_slow(skb, state, entries, i);
	/* the events of a walk are numbered by one CPU, in their order */
	movable = !in_softirq();
	if (movable)
		migrate_disable();
	ret = ipttrace_spine_walk(&selection, skb, state, entries, i, sp, bp);
	if (movable)
		migrate_enable();
	return ret;
}

/* --- the redirect -------------------------------------------------------------------------- */

/*
 * Whether there are no functions from number @i on but placeholders: br_netfilter, which goes on
 * behind its own function, would not hand packets on but for them. They are no passage of the hook.
 */
static noinline notrace bool
rest_is_empty(const struct nf_hook_entries *entries, unsigned int i)
{
	return !ipttrace_spine_count(entries, i, entries->num_hook_entries);
}

/* ftrace handler of nf_hook_slow(); every packet at a hook with functions pays for it. */
static void notrace spine_handler(unsigned long ip, unsigned long parent_ip,
				  struct ftrace_ops *ops,
				  struct ftrace_regs *fregs)
{
	struct sk_buff *skb = (void *)ipttrace_argument(fregs, SPINE_SKB_ARG);
	const struct nf_hook_state *state =
		(void *)ipttrace_argument(fregs, SPINE_STATE_ARG);
	/* whoever calls nf_hook_slow() holds the RCU read lock */
	const struct ipttrace_sets *sets = rcu_dereference(published);
	unsigned int i, first;

	/* ftrace may not have been able to remove the address of an earlier load (function.c) */
	if (!sets || READ_ONCE(ipttrace_spine_functions[0].site) != ip)
		return;
	i = next_concerned(sets, 0, state);
	if (i == sets->count)
		return;
	first = ipttrace_argument(fregs, SPINE_FIRST_ARG);
	if (unlikely(first) &&
	    rest_is_empty((void *)ipttrace_argument(fregs, SPINE_ENTRIES_ARG),
			  first))
		return;
	if (!sets->set[i]->filter ||
	    ipttrace_selection_journeys_may_want(skb) ||
	    packet_may_be_wanted(sets, i, skb, state))
		ipttrace_redirect(fregs,
				  ipttrace_spine_functions[0].replacement);
}

/* PERMANENT: sysctl kernel.ftrace_enabled must not switch links off behind their backs. */
static struct ipttrace_watch spine_watch = {
	.ops = {
		.func = spine_handler,
		.flags = FTRACE_OPS_FL_PERMANENT | FTRACE_OPS_FL_IPMODIFY,
	},
};

struct ipttrace_function ipttrace_spine_functions[IPTTRACE_SPINE_FUNCTIONS] = {
	{
		.symbol = "nf_hook_slow",
		.watch = &spine_watch,
		.replacement = (void *)spine_replacement,
		.behind = &ipttrace_behind_nf_hook_slow_address,
		.shown = true,
	},
};

/**
 * ipttrace_spine_publish - put program sets in force
 * @sets: the sets, ours from now on; NULL if there are none
 *
 * Return: the sets that were in force before, or NULL. A grace period later no packet is handled by
 * them any more, and the caller frees them.
 */
struct ipttrace_sets *ipttrace_spine_publish(struct ipttrace_sets *sets)
{
	return rcu_replace_pointer(published, sets,
				   lockdep_is_held(&ipttrace_lock));
}
