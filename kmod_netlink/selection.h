/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Program sets that selected a packet, and the running of their programs: the same at tables and at
 * chains.
 */
#ifndef _IPTTRACE_SELECTION_H
#define _IPTTRACE_SELECTION_H

#include <linux/bottom_half.h>
#include <linux/netfilter.h>
#include <linux/preempt.h>
#include <linux/types.h>

#include "answers.h"
#include "followed.h"
#include "ipttrace_netlink.h"
#include "limits.h"
#include "link.h"
#include "program.h"

/**
 * struct ipttrace_selection - program sets that a packet meets at a table or base chain
 * @sets: the program sets that are in force for it, from entry to exit
 * @slots: the slots in which any set of @selected has a program, a bit each
 * @end: the highest number of a set in @selected, and one more; 0 if it is empty
 * @packet: number of the packet, or 0 if it is not followed
 * @length: its length when it was followed first, see struct ipttrace_followed
 * @on: journeys that follow the packet, a bit each, and not because of this selection
 * @off: journeys that leave it out, likewise
 * @answers: journeys that follow it if they do not know it yet: it is an answer, see answers.h
 * @joined: journeys that follow it because of this selection
 * @left: journeys that leave it out because of this selection
 * @selected: those that selected it and have more programs to run, a bit each
 */
struct ipttrace_selection {
	const struct ipttrace_sets *sets;
	unsigned long slots;
	unsigned int end;
	u64 packet;
	u32 length;
	u32 on;
	u32 off;
	u32 answers;
	u32 joined;
	u32 left;
	DECLARE_BITMAP(selected, IPTTRACE_MAX_LINKS);
};

void ipttrace_selection_run(const struct ipttrace_selection *selection,
			    enum ipttrace_slot slot,
			    struct ipttrace_event *event, struct pt_regs *regs);

void ipttrace_selection_count_nested(const struct ipttrace_selection *selection);

/*
 * The first selected set whose number is @i or more; @end or more if there is none. Inline, unlike
 * find_next_bit(): packets go through a few words only.
 */
static __always_inline unsigned int
ipttrace_selection_next(const struct ipttrace_selection *selection,
			unsigned int i)
{
	for (; i < selection->end;
	     i = round_down(i, BITS_PER_LONG) + BITS_PER_LONG) {
		unsigned long left = selection->selected[BIT_WORD(i)] >>
				     (i % BITS_PER_LONG);

		if (left)
			return i + __ffs(left);
	}
	return i;
}

/* Puts a set among those that follow the packet, behind all that are there. */
static __always_inline void
ipttrace_selection_put(struct ipttrace_selection *selection, unsigned int i)
{
	__set_bit(i, selection->selected);
	selection->end = i + 1;
	selection->slots |= selection->sets->set[i]->slots;
}

/*
 * Notes that a set has selected the packet, at a table or chain. Returns true if it has more
 * programs than the entry program, for which the packet is followed, and its limits admit that.
 */
static __always_inline bool
ipttrace_selection_add(struct ipttrace_selection *selection, unsigned int i,
		       const struct sk_buff *skb,
		       const struct nf_hook_state *state, const void *place)
{
	const struct ipttrace_set *set = selection->sets->set[i];
	u32 journey = READ_ONCE(set->link->journey);

	this_cpu_inc(set->link->stats->selected);
	if (!(set->slots & ~BIT(IPTTRACE_SLOT_ENTRY)))
		return false;
	if (!ipttrace_set_admits(set, skb, state, place)) {
		selection->left |= journey;
		return false;
	}
	selection->joined |= journey;
	ipttrace_selection_put(selection, i);
	return true;
}

/* Whether a journey may want a packet, whatever filters say. False is certain. */
static __always_inline bool
ipttrace_selection_journeys_may_want(const struct sk_buff *skb)
{
	return ipttrace_followed_any(skb) || ipttrace_answers_any();
}

/* Finds out which journeys follow a packet, or leave it out. */
static __always_inline void
ipttrace_selection_know(struct ipttrace_selection *selection,
			const struct sk_buff *skb)
{
	struct ipttrace_followed known;

	if (likely(!ipttrace_followed_any(skb)) ||
	    !ipttrace_followed_find(skb, &known))
		return;
	selection->packet = known.on ? known.packet : 0;
	selection->length = known.length;
	selection->on = known.on;
	selection->off = known.off;
}

/* Begins the selection of a packet: finds out what journeys have to do with it. */
static __always_inline void
ipttrace_selection_begin(struct ipttrace_selection *selection,
			 const struct sk_buff *skb,
			 const struct nf_hook_state *state)
{
	ipttrace_selection_know(selection, skb);
	if (ipttrace_answers_any())
		selection->answers = ipttrace_answers_find(
			skb, state, ~(selection->on | selection->off));
}

/*
 * Tells whether a journey has decided over the packet for a set: filter and entry program are not
 * asked then. Sets @follow if the packet is followed with more programs.
 */
static __always_inline bool
ipttrace_selection_settled(struct ipttrace_selection *selection, unsigned int i,
			   bool *follow)
{
	const struct ipttrace_set *set = selection->sets->set[i];
	u32 journey = READ_ONCE(set->link->journey);

	if (likely(!(journey & (selection->on | selection->off))))
		return false;
	if (!(journey & selection->on))
		return true;
	this_cpu_inc(set->link->stats->selected);
	if (set->slots & ~BIT(IPTTRACE_SLOT_ENTRY)) {
		ipttrace_selection_put(selection, i);
		*follow = true;
	}
	return true;
}

/*
 * The same for a packet that does not come to the table or chain, which is not consulted: nothing
 * is counted, since it is not among the packets of the link there. The set has more programs.
 */
static __always_inline bool
ipttrace_selection_settled_unseen(struct ipttrace_selection *selection,
				  unsigned int i)
{
	u32 journey = READ_ONCE(selection->sets->set[i]->link->journey);

	if (likely(!(journey & (selection->on | selection->off))))
		return false;
	if (journey & selection->on)
		ipttrace_selection_put(selection, i);
	return true;
}

/* Tells whether a set selects a packet as an answer: filter and entry program are not asked. */
static __always_inline bool
ipttrace_selection_is_answer(const struct ipttrace_selection *selection,
			     unsigned int i)
{
	return selection->answers &
	       READ_ONCE(selection->sets->set[i]->link->journey);
}

/*
 * Notes where a packet is, as it is now: answers to it are followed too, if a journey wants that.
 * Where it is selected, and again once functions have accepted it: they may have given it other
 * addresses.
 */
static __always_inline void
ipttrace_selection_passes(const struct ipttrace_selection *selection,
			  const struct sk_buff *skb,
			  const struct nf_hook_state *state)
{
	if (ipttrace_answers_any())
		ipttrace_answers_expect(skb, state, selection->length,
					selection->on | selection->joined);
}

/* Ends the selection of a packet: journeys follow it from now on. */
static __always_inline void
ipttrace_selection_end(struct ipttrace_selection *selection,
		       const struct sk_buff *skb,
		       const struct nf_hook_state *state)
{
	if (unlikely(selection->joined | selection->left)) {
		selection->packet = ipttrace_followed_add(
			skb, state, selection->joined, selection->left);
		if (!selection->length)
			selection->length = skb->len - skb_network_offset(skb);
	}
	ipttrace_selection_passes(selection, skb, state);
}

/* Stores a verdict in an event of a rule or an exit. */
static inline void ipttrace_event_verdict(struct ipttrace_event *event,
					  unsigned int verdict)
{
	event->verdict = verdict & NF_VERDICT_MASK;
	event->verdict_data = verdict >> NF_VERDICT_QBITS;
	if (event->verdict == NF_QUEUE &&
	    (verdict & NF_VERDICT_FLAG_QUEUE_BYPASS))
		event->flags |= IPTTRACE_EVENT_FLAG_QUEUE_BYPASS;
}

/*
 * Turns softirqs off, and returns true, unless they are off: an incoming packet is in a softirq.
 * Programs run so: they share per-CPU maps with themselves, as networking programs do, and none may
 * run on top of another. On PREEMPT_RT softirqs are threads, and programs run with preemption off.
 */
static inline bool ipttrace_softirqs_off(void)
{
	if (in_softirq())
		return false;
	local_bh_disable();
	return true;
}

#endif /* _IPTTRACE_SELECTION_H */
