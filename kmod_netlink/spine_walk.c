// SPDX-License-Identifier: GPL-2.0
/*
 * Packets that come to netfilter hooks with functions, or with placeholders alone. ftrace calls us
 * when nf_hook_slow() is entered. A packet that no link can want goes on; that check is all that it
 * pays for. Any other gets to spine_replacement(), which runs the entry programs, and if one
 * selects the packet, calls the functions of the hook in place of the kernel: a loop of our own
 * that means what the loop of the kernel means. verify.c says who may use it where.
 *
 * The loop was compared with nf_hook_slow() of net/netfilter/core.c and with nf_queue(), of
 * 6.1.192, 6.12.117 and 7.3.4.
 */
#include <linux/netfilter.h>
#include <linux/sched/clock.h>
#include <linux/uaccess.h>
#include <net/netfilter/nf_queue.h>

#include "compat/behind.h"
#include "compat/ftrace.h"
#include "compat/regs.h"
#include "events.h"
#include "filter.h"
#include "hook_names.h"
#include "link.h"
#include "nested.h"
#include "packet.h"
#include "placeholders.h"
#include "selection.h"
#include "spine_packet.h"
#include "spine_walk.h"

/* Index of the packet and of the hook's state among the arguments of nf_hook_slow(). */
#define SPINE_SKB_ARG 0
#define SPINE_STATE_ARG 1
#define SPINE_ENTRIES_ARG 2
#define SPINE_FIRST_ARG 3

/* Deeper ones are left to the kernel. */
#define NESTED_WALKS 4

static DEFINE_PER_CPU(struct hlist_head, walks);
static DEFINE_PER_CPU(u32, traversals);

/* The program sets that packets see; written under ipttrace_lock. */
static struct ipttrace_sets __rcu *published;

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
 * Lives on the stack of spine_follow(), and stays on one CPU.
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
 * The number of functions of a hook from @from up to @to, placeholders apart. notrace: for the
 * handler too.
 */
static notrace unsigned int
count_functions(const struct nf_hook_entries *entries, unsigned int from,
		unsigned int to)
{
	unsigned int count = 0;

	for (; from < to; from++)
		count += READ_ONCE(entries->hooks[from].hook) !=
			 ipttrace_placeholder;
	return count;
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

/* Follows a selected packet. noinline: one that was not selected does not pay for the walk. */
static noinline int
spine_follow(const struct ipttrace_selection *selection, struct sk_buff *skb,
	     struct nf_hook_state *state, const struct nf_hook_entries *entries,
	     unsigned int i, unsigned long sp, unsigned long bp)
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
	walk.before = count_functions(entries, 0, i);
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
		count_functions(entries, i, entries->num_hook_entries);
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
	ret = spine_follow(&selection, skb, state, entries, i, sp, bp);
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
	return !count_functions(entries, i, entries->num_hook_entries);
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
