// SPDX-License-Identifier: GPL-2.0
/*
 * A selected packet on its way through a netfilter hook: the functions of the hook are called in
 * place of the kernel, by a loop of our own that means what the loop of the kernel means, and
 * programs run behind each of them. spine_follow.c selects packets, verify.c says who may use it
 * where.
 *
 * The loop was compared with nf_hook_slow() of net/netfilter/core.c and with nf_queue(), of
 * 6.1.192, 6.12.117 and 7.3.4.
 */
#include <linux/netfilter.h>
#include <linux/sched/clock.h>
#include <linux/uaccess.h>
#include <net/netfilter/nf_queue.h>

#include "compat/behind.h"
#include "compat/regs.h"
#include "events.h"
#include "hook_names.h"
#include "link.h"
#include "nested.h"
#include "packet.h"
#include "placeholders.h"
#include "selection.h"
#include "spine_follow.h"
#include "spine_packet.h"
#include "spine_walk.h"

/* Deeper ones are left to the kernel. */
#define NESTED_WALKS 4

static DEFINE_PER_CPU(struct hlist_head, walks);
static DEFINE_PER_CPU(u32, traversals);

/**
 * struct spine_walk - a selected packet on its way through a hook
 * @nested: in the walks of this CPU
 * @skb: the packet; NULL once it may be gone, or somebody else's
 * @state: state of the hook
 * @entries: the functions of the hook
 * @selection: the program sets that follow it
 * @sp: stack pointer where nf_hook_slow() was entered
 * @bp: frame pointer there
 * @before: functions of the hook that it does not meet here: a bridge has called them
 * @functions: functions that it met so far; placeholders do not count
 * @told: somebody listened at its entry: @event is filled in, and sent
 * @event: fields that all its events have in common; of the packet as it was when it was described
 *	last: at the entry, and after each function if function programs run. Of a packet that a
 *	function kept without these, the exit's event has the addresses and the mark of the entry
 *
 * Lives on the stack of ipttrace_spine_walk(), and stays on one CPU.
 */
struct spine_walk {
	struct ipttrace_nested nested;
	struct sk_buff *skb;
	struct nf_hook_state *state;
	const struct nf_hook_entries *entries;
	const struct ipttrace_selection *selection;
	unsigned long sp;
	unsigned long bp;
	u32 before;
	u32 functions;
	bool told;
	struct ipttrace_event event;
};

/* --- events -------------------------------------------------------------------------------- */

/*
 * The number of the packet as it is now. A function that puts fragments together makes the whole of
 * the last one's sk_buff: the number of before has ended.
 */
static u64 packet_now(const struct spine_walk *walk)
{
	struct ipttrace_followed known;

	if (!walk->selection->packet ||
	    !ipttrace_followed_find(walk->skb, &known))
		return 0;
	return known.on ? known.packet : 0;
}

/* Describes the packet as it is now. */
static void spine_describe(struct spine_walk *walk)
{
	struct ipttrace_event *event = &walk->event;
	u32 traversal = event->traversal;

	memset(event, 0, sizeof(*event));
	event->traversal = traversal;
	event->flags = IPTTRACE_EVENT_FLAG_COUNTED;
	event->packet = packet_now(walk);
	ipttrace_packet_describe(event, walk->skb, walk->state, !in_softirq());
	ipttrace_packet_describe_more(event, walk->skb);
}

/* Runs the programs in @slot, with softirqs off around them only. */
static void spine_show(struct spine_walk *walk, enum ipttrace_slot slot,
		       struct pt_regs *regs)
{
	bool off = ipttrace_softirqs_off();

	ipttrace_selection_run(walk->selection, slot,
			       walk->told ? &walk->event : NULL, regs);
	if (off)
		local_bh_enable();
}

static __always_inline void spine_regs(struct pt_regs *regs,
				       const struct spine_walk *walk,
				       const unsigned long args[6])
{
	ipttrace_regs(regs, ipttrace_spine_functions[0].site, walk->sp,
		      walk->bp, args);
}

/*
 * Tells the priority that a function is registered with. Its operations may be freed without a
 * grace period once it is removed. In the newest array of the hook they have been replaced before
 * that, by some of no family; in an older one they may still be named: they have to be of this very
 * function.
 */
static void spine_tell_priority(struct ipttrace_event *event,
				const struct nf_hook_entries *entries,
				unsigned int i, nf_hookfn *function)
{
	struct nf_hook_ops *const *all = nf_hook_entries_get_hook_ops(entries);
	const struct nf_hook_ops *ops = READ_ONCE(all[i]);
	struct nf_hook_ops read;

	if (copy_from_kernel_nofault(&read, ops, sizeof(read)))
		return;
	/* what was read is of these operations if they are still there */
	smp_rmb();
	if (READ_ONCE(all[i]) != ops || !read.pf || read.hook != function ||
	    read.priv != entries->hooks[i].priv)
		return;
	event->priority = read.priority;
	event->flags |= IPTTRACE_EVENT_FLAG_PRIORITY;
}

/* Runs the function programs, after a function of the hook. */
static noinline void spine_show_function(struct spine_walk *walk,
					 unsigned int i, nf_hookfn *function,
					 unsigned int verdict)
{
	const unsigned long args[6] = {
		/* clang-format off */ /* it would put two on a line */
		(unsigned long)function,
		(unsigned long)walk->skb,
		(unsigned long)walk->state,
		walk->before + walk->functions,
		walk->functions,
		verdict,
		/* clang-format on */
	};
	struct ipttrace_event *event = &walk->event;
	struct pt_regs regs __uninitialized;

	spine_regs(&regs, walk, args);
	if (walk->told) {
		/* otherwise as it was before the function */
		if (walk->skb)
			spine_describe(walk);
		event->kind = IPTTRACE_KIND_SPINE_FUNCTION;
		event->flags &= ~(IPTTRACE_EVENT_FLAG_QUEUE_BYPASS |
				  IPTTRACE_EVENT_FLAG_PRIORITY);
		event->priority = 0;
		event->rulenum = walk->before + walk->functions;
		event->rules = walk->functions;
		ipttrace_event_verdict(event, verdict);
		ipttrace_hook_name(event, function);
		spine_tell_priority(event, walk->entries, i, function);
	}
	spine_show(walk, IPTTRACE_SLOT_FUNCTION, &regs);
}

/* Runs the exit programs, before the packet is dropped. */
static noinline void spine_show_exit(struct spine_walk *walk,
				     unsigned int verdict, u64 cost)
{
	const unsigned long args[6] = {
		/* clang-format off */ /* it would put two on a line */
		0,
		(unsigned long)walk->skb,
		(unsigned long)walk->state,
		cost,
		walk->functions,
		/* clang-format on */
	};
	struct ipttrace_event *event = &walk->event;
	struct pt_regs regs __uninitialized;

	spine_regs(&regs, walk, args);
	regs_set_return_value(&regs, verdict);
	if (walk->told) {
		/* what the last function left, if nobody has looked since */
		if (walk->skb &&
		    !(walk->selection->slots & BIT(IPTTRACE_SLOT_FUNCTION)))
			spine_describe(walk);
		event->kind = IPTTRACE_KIND_SPINE_EXIT;
		event->flags &= ~(IPTTRACE_EVENT_FLAG_QUEUE_BYPASS |
				  IPTTRACE_EVENT_FLAG_PRIORITY);
		event->cost = cost;
		event->priority = 0;
		event->rulenum = 0;
		event->rule_handle = 0;
		event->rules = walk->functions;
		memset(event->table, 0, sizeof(event->table));
		memset(event->chain, 0, sizeof(event->chain));
		ipttrace_event_verdict(event, verdict);
	}
	spine_show(walk, IPTTRACE_SLOT_EXIT, &regs);
}

/* --- the walk ------------------------------------------------------------------------------ */

static unsigned int drop_as_told(void *priv, struct sk_buff *skb,
				 const struct nf_hook_state *state)
{
	return (unsigned long)priv;
}

/*
 * Drops a packet in the kernel's own loop, with one function that says so, so that tracepoint and
 * drop monitors find the place where netfilter drops.
 */
static int spine_drop(struct sk_buff *skb, struct nf_hook_state *state,
		      unsigned int verdict)
{
	u64 space[DIV_ROUND_UP(sizeof(struct nf_hook_entries) +
				       sizeof(struct nf_hook_entry),
			       sizeof(u64))];
	struct nf_hook_entries *entries = (struct nf_hook_entries *)space;

	entries->num_hook_entries = 1;
	entries->hooks[0] = (struct nf_hook_entry){
		.hook = drop_as_told,
		.priv = (void *)(unsigned long)verdict,
	};
	return ipttrace_behind_nf_hook_slow(skb, state, entries, 0);
}

/*
 * Calls the functions of the hook from number @i on until one keeps the packet. Returns the verdict
 * over the packet; *@ret is what nf_hook_slow() returns for it, unless it has to be dropped.
 */
static unsigned int spine_run(struct spine_walk *walk, unsigned int i, int *ret)
{
	const struct nf_hook_entries *entries = walk->entries;
	bool shown = walk->selection->slots & BIT(IPTTRACE_SLOT_FUNCTION);
	struct nf_hook_state *state = walk->state;
	struct sk_buff *skb = walk->skb;

	for (; i < entries->num_hook_entries; i++) {
		const struct nf_hook_entry *entry = &entries->hooks[i];
		/* a function that is removed is replaced under packets */
		nf_hookfn *function = READ_ONCE(entry->hook);
		unsigned int verdict;

		if (function == ipttrace_placeholder)
			continue;
		verdict = function(entry->priv, skb, state);
		walk->functions++;
		if ((verdict & NF_VERDICT_MASK) == NF_STOLEN)
			walk->skb = NULL;
		if (shown)
			spine_show_function(walk, i, function, verdict);

		switch (verdict & NF_VERDICT_MASK) {
		case NF_ACCEPT:
			continue;
		case NF_DROP:
			return verdict;
		case NF_STOLEN:
			*ret = NF_DROP_GETERR(verdict);
			return verdict;
		case NF_QUEUE:
			/* the last look at it, for its exit */
			if (walk->told && !shown)
				spine_describe(walk);
			*ret = nf_queue(skb, state, i, verdict);
			/* nobody listens, and the packet may pass then */
			if (*ret == 1)
				continue;
			walk->skb = NULL;
			return verdict;
		default:
			WARN_ON_ONCE(1);
			*ret = 0;
			return verdict;
		}
	}
	*ret = 1;
	return NF_ACCEPT;
}

/**
 * ipttrace_spine_walk - follow a selected packet through a hook
 * @selection: the program sets that selected it
 * @skb: the packet
 * @state: state of the hook
 * @entries: the functions of the hook
 * @i: number of the first one that it meets
 * @sp: stack pointer where nf_hook_slow() was entered
 * @bp: frame pointer there
 *
 * Context: on one CPU, in the RCU read section of the hook; nf_hook_slow() is redirected.
 *
 * Return: what nf_hook_slow() returns.
 */
int ipttrace_spine_walk(const struct ipttrace_selection *selection,
			struct sk_buff *skb, struct nf_hook_state *state,
			const struct nf_hook_entries *entries, unsigned int i,
			unsigned long sp, unsigned long bp)
{
	struct spine_walk walk __uninitialized;
	unsigned int verdict;
	bool timed;
	u64 start;
	int ret;

	if (!ipttrace_nested_enter(&walk.nested, &walks, NESTED_WALKS)) {
		ipttrace_selection_count_nested(selection);
		return ipttrace_behind_nf_hook_slow(skb, state, entries, i);
	}
	walk.skb = skb;
	walk.state = state;
	walk.entries = entries;
	walk.selection = selection;
	walk.sp = sp;
	walk.bp = bp;
	walk.before = ipttrace_spine_count(entries, 0, i);
	walk.functions = 0;
	walk.told = ipttrace_events_wanted();
	if (walk.told) {
		walk.event.traversal = this_cpu_inc_return(traversals);
		/* a packet that the first function keeps is shown as it came */
		spine_describe(&walk);
	}
	timed = selection->slots & BIT(IPTTRACE_SLOT_EXIT);
	start = timed ? sched_clock() : 0;
	verdict = spine_run(&walk, i, &ret);
	if (timed)
		spine_show_exit(&walk, verdict, sched_clock() - start);
	ipttrace_nested_leave(&walk.nested);
	if ((verdict & NF_VERDICT_MASK) == NF_DROP)
		return spine_drop(skb, state, verdict);
	if (verdict == NF_ACCEPT)
		ipttrace_selection_passes(selection, skb, state);
	return ret;
}
