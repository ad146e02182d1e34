// SPDX-License-Identifier: GPL-2.0
/*
 * Packets on their way through a table. ftrace calls us when ipt_do_table() or ip6t_do_table() is
 * entered. A packet that no link can want goes on; that check is all that it pays for. Any other is
 * sent through table_traverse() instead, which runs the entry programs, lets the original function
 * handle the packet, and sees the verdict as a return value. Where rules are asked for it marks the
 * packet, and nf_log_trace() is redirected for it meanwhile, and only for it.
 *
 * A handler only decides whether to redirect, and hands nothing to the replacement. Between the two
 * ftrace may run others, BPF trampolines among them, which keep no register that the original
 * function does not take.
 *
 * Everything here runs inside the RCU read section that nf_hook() holds around the hooks.
 */
#include <linux/netfilter/x_tables.h>

#include "compat/behind.h"
#include "compat/ftrace.h"
#include "compat/regs.h"
#include "events.h"
#include "frame.h"
#include "function.h"
#include "link.h"
#include "packet.h"
#include "replace.h"
#include "selection.h"
#include "traverse.h"

/*
 * Index of the packet among the arguments of ipt_do_table() and ip6t_do_table(); a constant costs
 * least.
 */
#define TABLE_SKB_ARG 1

static DEFINE_PER_CPU(u32, traversals);

/* The program sets that packets see; written under ipttrace_lock. */
static struct ipttrace_sets __rcu *published;

/* Fills in the frame of a packet that was selected. @softirqs: see ipttrace_packet_sender(). */
static void frame_fill(struct ipttrace_frame *frame, struct sk_buff *skb,
		       const struct ipttrace_selection *selection,
		       const struct xt_table *table,
		       const struct nf_hook_state *state, bool softirqs)
{
	struct ipttrace_event *event = &frame->event;

	memset(frame, 0, sizeof(*frame));
	frame->skb = skb;
	frame->table = table;
	frame->selection = selection;
	frame->slots = selection->slots;
	frame->told = ipttrace_events_wanted();
	if (!frame->told)
		return;
	ipttrace_packet_describe(event, skb, state, softirqs);
	event->packet = selection->packet;
	event->traversal = this_cpu_inc_return(traversals);
	/* padded with zeros, as the kernel's modules have it in a constant */
	static_assert(sizeof(event->table) >= sizeof(table->name));
	memcpy(event->table, table->name, sizeof(table->name));
	event->ruleset = ipttrace_replace_generation(table);
}

/*
 * Makes a frame for a packet that was selected. noinline: its stack is released before the table is
 * walked.
 */
static noinline void frame_open(struct ipttrace_frame *frame,
				struct sk_buff *skb,
				const struct ipttrace_selection *selection,
				const struct xt_table *table,
				const struct nf_hook_state *state,
				bool softirqs)
{
	bool count = false;
	unsigned int i;

	frame_fill(frame, skb, selection, table, state, softirqs);
	for (i = ipttrace_selection_next(selection, 0); i < selection->end;
	     i = ipttrace_selection_next(selection, i + 1))
		count |= selection->sets->set[i]->link->count_rules;
	frame->foreign = skb->nf_trace;
	if (!count && !(frame->slots & BIT(IPTTRACE_SLOT_RULE)))
		return;
	frame->event.flags |= IPTTRACE_EVENT_FLAG_COUNTED;
	frame->marked = true;
	skb->nf_trace = 1;
	ipttrace_frame_list(frame);
}

/*
 * Removes our mark from a packet that has left the table, and notes whether somebody else marked
 * it.
 */
static void frame_unmark(struct ipttrace_frame *frame, bool stolen)
{
	/* a stolen packet may be gone, or somebody else's */
	if (!frame->marked) {
		if (!stolen)
			frame->foreign |= frame->skb->nf_trace;
		return;
	}
	ipttrace_frame_unlist(frame);
	if (!stolen)
		frame->skb->nf_trace = frame->foreign;
}

static noinline void frame_close(struct ipttrace_frame *frame,
				 const struct ipttrace_function *fn,
				 const void *table,
				 const struct nf_hook_state *state,
				 unsigned int verdict, u64 cost)
{
	struct ipttrace_event *event = &frame->event;
	const unsigned long args[6] = {
		/* clang-format off */ /* it would put two on a line */
		(unsigned long)table,
		(unsigned long)frame->skb,
		(unsigned long)state,
		cost,
		event->rules,
		/* clang-format on */
	};

	ipttrace_event_verdict(event, verdict);
	if (frame->told)
		ipttrace_frame_compare(frame);
	frame_unmark(frame, event->verdict == NF_STOLEN);

	event->kind = IPTTRACE_KIND_EXIT;
	event->cost = cost;
	event->rulenum = 0;
	if (frame->foreign)
		event->flags |= IPTTRACE_EVENT_FLAG_FOREIGN;
	if (frame->told)
		ipttrace_frame_name(frame, ipttrace_hook_chains[event->hook]);

	if (frame->slots & BIT(IPTTRACE_SLOT_EXIT)) {
		const unsigned long sp = ipttrace_entry_sp();
		struct pt_regs regs __uninitialized;

		ipttrace_regs(&regs, fn->site, sp, ipttrace_entry_bp(sp), args);
		regs_set_return_value(&regs, verdict);
		ipttrace_selection_run(frame->selection, IPTTRACE_SLOT_EXIT,
				       frame->told ? event : NULL, &regs);
	}
}

/* --- selecting packets --------------------------------------------------------------------- */

static bool link_concerns(const struct ipttrace_link *link,
			  const struct ipttrace_function *fn)
{
	return !link->family || link->family == fn->pf;
}

/*
 * Tells whether any set may want the packet, as far as filters and families tell: no program is
 * run. A packet that no set can want is counted here, any other where its selection is made.
 */
static __always_inline bool
packet_may_be_wanted(const struct ipttrace_function *fn,
		     const struct ipttrace_sets *sets,
		     const struct sk_buff *skb)
{
	unsigned int i;

	for (i = 0; i < sets->count; i++)
		if (link_concerns(sets->set[i]->link, fn) &&
		    ipttrace_set_may_want(sets->set[i], skb))
			return true;
	for (i = 0; i < sets->count; i++)
		if (link_concerns(sets->set[i]->link, fn))
			this_cpu_inc(sets->set[i]->link->stats->packets);
	return false;
}

/*
 * Runs the entry program of a set. @softirqs, @sp and @bp are of the table function's entry: its
 * softirqs were on, its stack and frame pointers.
 */
static __always_inline bool
entry_selects(const struct ipttrace_set *set,
	      const struct ipttrace_function *fn, const void *table,
	      const struct sk_buff *skb, const struct nf_hook_state *state,
	      bool softirqs, unsigned long sp, unsigned long bp)
{
	const unsigned long args[6] = {
		/* clang-format off */ /* it would put two on a line */
		(unsigned long)table,
		(unsigned long)skb,
		(unsigned long)state,
		ipttrace_packet_sender(skb, state, softirqs),
		/* clang-format on */
	};
	struct pt_regs regs __uninitialized;

	ipttrace_regs(&regs, fn->site, sp, bp, args);
	return ipttrace_set_run(set, IPTTRACE_SLOT_ENTRY, &regs);
}

/* Asks a set about a packet: its filter, then its entry program. */
static __always_inline bool
set_wants(const struct ipttrace_set *set, const struct ipttrace_function *fn,
	  const void *table, const struct sk_buff *skb,
	  const struct nf_hook_state *state, bool softirqs, unsigned long sp,
	  unsigned long bp)
{
	if (!ipttrace_set_filter(set, skb))
		return false;
	return !(set->slots & BIT(IPTTRACE_SLOT_ENTRY)) ||
	       entry_selects(set, fn, table, skb, state, softirqs, sp, bp);
}

/*
 * Makes the selection of a packet: runs filters and entry programs. True if any set needs the
 * packet to be followed through the table. Inline, like its callees, since a packet that is passed
 * over pays for every call.
 */
static __always_inline bool
packet_select(struct ipttrace_selection *selection,
	      const struct ipttrace_function *fn, const void *table,
	      const struct sk_buff *skb, const struct nf_hook_state *state,
	      bool softirqs, unsigned long sp, unsigned long bp)
{
	const struct ipttrace_sets *sets = rcu_dereference(published);
	bool follow = false;
	unsigned int i;

	selection->sets = sets;
	/* the last link may have gone since the handler looked */
	if (!sets)
		return false;
	ipttrace_selection_begin(selection, skb, state);
	for (i = 0; i < sets->count; i++) {
		const struct ipttrace_set *set = sets->set[i];
		const struct ipttrace_link *link = set->link;

		if (!link_concerns(link, fn))
			continue;
		this_cpu_inc(link->stats->packets);
		if (ipttrace_selection_settled(selection, i, &follow))
			continue;
		if (!ipttrace_selection_is_answer(selection, i) &&
		    !set_wants(set, fn, table, skb, state, softirqs, sp, bp))
			continue;
		follow |=
			ipttrace_selection_add(selection, i, skb, state, table);
	}
	ipttrace_selection_end(selection, skb, state);
	return follow;
}

/* Calls the original function for the packet. */
static unsigned int table_original(const struct ipttrace_function *fn,
				   void *table, struct sk_buff *skb,
				   const struct nf_hook_state *state)
{
	if (fn->pf == NFPROTO_IPV4)
		return ipttrace_behind_ipt_do_table(table, skb, state);
	return ipttrace_behind_ip6t_do_table(table, skb, state);
}

/*
 * Follows a selected packet through the table, with softirqs off. noinline: a packet that was not
 * selected does not pay for the frame.
 */
static noinline unsigned int
table_follow(const struct ipttrace_function *fn,
	     const struct ipttrace_selection *selection, void *table,
	     struct sk_buff *skb, const struct nf_hook_state *state,
	     bool softirqs)
{
	struct ipttrace_frame frame;
	unsigned int verdict;
	u64 start;

	frame_open(&frame, skb, selection, table, state, softirqs);
	start = ktime_get_ns();
	verdict = table_original(fn, table, skb, state);
	frame_close(&frame, fn, table, state, verdict, ktime_get_ns() - start);
	if (verdict == NF_ACCEPT)
		ipttrace_selection_passes(selection, skb, state);
	return verdict;
}

/* Stands in for ipt_do_table() and ip6t_do_table(), for a packet that may be wanted. */
static __always_inline unsigned int
table_traverse(const struct ipttrace_function *fn, void *table,
	       struct sk_buff *skb, const struct nf_hook_state *state)
{
	const unsigned long sp = ipttrace_entry_sp();
	struct ipttrace_selection selection = {};
	/* they were on */
	bool off = ipttrace_softirqs_off();
	unsigned int verdict;

	if (packet_select(&selection, fn, table, skb, state, off, sp,
			  ipttrace_entry_bp(sp))) {
		verdict = table_follow(fn, &selection, table, skb, state, off);
		if (off)
			local_bh_enable();
		return verdict;
	}
	if (off)
		local_bh_enable();
	return table_original(fn, table, skb, state);
}

static unsigned int ipt_replacement(void *table, struct sk_buff *skb,
				    const struct nf_hook_state *state)
{
	return table_traverse(&ipttrace_functions[IPTTRACE_IPT_DO_TABLE], table,
			      skb, state);
}

static unsigned int ip6t_replacement(void *table, struct sk_buff *skb,
				     const struct nf_hook_state *state)
{
	return table_traverse(&ipttrace_functions[IPTTRACE_IP6T_DO_TABLE],
			      table, skb, state);
}

/* --- tables that are not consulted --------------------------------------------------------- */

/*
 * Tells whether any set may want to be told that a table is not consulted. Such a packet does not
 * come to the table: it is not counted.
 */
bool ipttrace_traverse_known_wanted(const struct ipttrace_function *fn,
				    const struct sk_buff *skb)
{
	const struct ipttrace_sets *sets = rcu_dereference(published);
	unsigned int i;

	for (i = 0; sets && i < sets->count; i++) {
		const struct ipttrace_set *set = sets->set[i];

		if (set->slots & BIT(IPTTRACE_SLOT_RULE) &&
		    link_concerns(set->link, fn) &&
		    (ipttrace_followed_any(skb) ||
		     ipttrace_set_may_want(set, skb)))
			return true;
	}
	return false;
}

/* Selects the sets that are told. */
static bool known_select(struct ipttrace_selection *selection,
			 const struct ipttrace_function *fn, const void *table,
			 const struct sk_buff *skb,
			 const struct nf_hook_state *state, bool softirqs,
			 unsigned long sp, unsigned long bp)
{
	const struct ipttrace_sets *sets = rcu_dereference(published);
	unsigned int i;

	selection->sets = sets;
	ipttrace_selection_know(selection, skb);
	for (i = 0; sets && i < sets->count; i++) {
		const struct ipttrace_set *set = sets->set[i];

		if (!(set->slots & BIT(IPTTRACE_SLOT_RULE)) ||
		    !link_concerns(set->link, fn) ||
		    ipttrace_selection_settled_unseen(selection, i) ||
		    !set_wants(set, fn, table, skb, state, softirqs, sp, bp))
			continue;
		if (ipttrace_set_admits(set, skb, state, table))
			ipttrace_selection_put(selection, i);
	}
	return selection->slots;
}

/* Tells the sets that are told. */
static void known_tell(const struct ipttrace_selection *selection, void *table,
		       struct sk_buff *skb, const struct nf_hook_state *state,
		       bool softirqs)
{
	struct ipttrace_frame frame;

	frame_fill(&frame, skb, selection, table, state, softirqs);
	if (skb->nf_trace)
		frame.event.flags |= IPTTRACE_EVENT_FLAG_FOREIGN;
	ipttrace_frame_known(&frame, table, state);
}

/**
 * ipttrace_traverse_known - tell that a table is not consulted: the packet's connection is known
 * @fn: the function that would walk through it
 * @table: the table
 * @skb: the packet
 * @state: state of its hook
 * @sp: stack pointer where the function was entered that decides this
 * @bp: frame pointer there
 *
 * Context: softirqs as the hook has them, in its RCU read section.
 */
void ipttrace_traverse_known(const struct ipttrace_function *fn, void *table,
			     struct sk_buff *skb,
			     const struct nf_hook_state *state,
			     unsigned long sp, unsigned long bp)
{
	struct ipttrace_selection selection = {};
	/* they were on */
	bool off = ipttrace_softirqs_off();

	if (known_select(&selection, fn, table, skb, state, off, sp, bp))
		known_tell(&selection, table, skb, state, off);
	if (off)
		local_bh_enable();
}

/* --- handlers ------------------------------------------------------------------------------ */

/*
 * The one of the functions from @first to @last that is entered. NULL if ftrace could not remove an
 * address (function.c).
 */
static __always_inline const struct ipttrace_function *
function_at(unsigned long site, unsigned int first, unsigned int last)
{
	unsigned int i;

	for (i = first; i <= last; i++)
		if (READ_ONCE(ipttrace_functions[i].site) == site)
			return &ipttrace_functions[i];
	return NULL;
}

/* ftrace handler of ipt_do_table() and ip6t_do_table(); every packet pays for it. */
static void notrace table_handler(unsigned long ip, unsigned long parent_ip,
				  struct ftrace_ops *ops,
				  struct ftrace_regs *fregs)
{
	const struct ipttrace_function *fn =
		function_at(ip, IPTTRACE_IPT_DO_TABLE, IPTTRACE_IP6T_DO_TABLE);
	void *skb = (void *)ipttrace_argument(fregs, TABLE_SKB_ARG);
	const struct ipttrace_sets *sets;

	preempt_disable_notrace();
	sets = rcu_dereference_sched(published);
	if (sets && fn &&
	    (ipttrace_selection_journeys_may_want(skb) ||
	     packet_may_be_wanted(fn, sets, skb)))
		ipttrace_redirect(fregs, fn->replacement);
	preempt_enable_notrace();
}

/* The frame of the packet that a function is called for. */
static struct ipttrace_frame *frame_of(const struct ipttrace_function *fn,
				       struct ftrace_regs *fregs)
{
	return ipttrace_frame_find(
		(void *)ipttrace_argument(fregs, fn->skb_arg));
}

/* ftrace handler of functions that are redirected for a packet in a frame, and for no other. */
static void notrace frame_handler(unsigned long ip, unsigned long parent_ip,
				  struct ftrace_ops *ops,
				  struct ftrace_regs *fregs)
{
	const struct ipttrace_function *fn =
		function_at(ip, IPTTRACE_NF_LOG_TRACE, IPTTRACE_NF_DUP_IPV6);

	preempt_disable_notrace();
	if (fn && frame_of(fn, fregs))
		ipttrace_redirect(fregs, fn->replacement);
	preempt_enable_notrace();
}

/* ftrace handler of the TRACE target: the mark that it sets on a packet in a frame is its own. */
static void notrace trace_handler(unsigned long ip, unsigned long parent_ip,
				  struct ftrace_ops *ops,
				  struct ftrace_regs *fregs)
{
	const struct ipttrace_function *fn =
		function_at(ip, IPTTRACE_TRACE_TG, IPTTRACE_TRACE_TG);
	struct ipttrace_frame *frame;

	preempt_disable_notrace();
	frame = fn ? frame_of(fn, fregs) : NULL;
	if (frame)
		frame->foreign = true;
	preempt_enable_notrace();
}

/*
 * PERMANENT: sysctl kernel.ftrace_enabled must not switch links off behind their backs. Handlers
 * call none of the functions that they are called for. They do without ftrace's protection against
 * recursion (FTRACE_OPS_FL_RECURSION), which would also keep other tracers from what our programs
 * call.
 */
#define WATCH FTRACE_OPS_FL_PERMANENT
#define REDIRECT (WATCH | FTRACE_OPS_FL_IPMODIFY)

static struct ipttrace_watch table_watch = {
	.ops = { .func = table_handler, .flags = REDIRECT },
};

static struct ipttrace_watch frame_watch = {
	.ops = { .func = frame_handler, .flags = REDIRECT },
};

static struct ipttrace_watch trace_watch = {
	.ops = { .func = trace_handler, .flags = WATCH },
};

struct ipttrace_function ipttrace_functions[IPTTRACE_FUNCTIONS] = {
	[IPTTRACE_IPT_DO_TABLE] = {
		.symbol = "ipt_do_table",
		.module = "ip_tables",
		.watch = &table_watch,
		.replacement = ipt_replacement,
		.behind = &ipttrace_behind_ipt_do_table_address,
		.skb_arg = TABLE_SKB_ARG,
		.pf = NFPROTO_IPV4,
		.shown = true,
	},
	[IPTTRACE_IP6T_DO_TABLE] = {
		.symbol = "ip6t_do_table",
		.module = "ip6_tables",
		.watch = &table_watch,
		.replacement = ip6t_replacement,
		.behind = &ipttrace_behind_ip6t_do_table_address,
		.skb_arg = TABLE_SKB_ARG,
		.pf = NFPROTO_IPV6,
		.shown = true,
	},
	[IPTTRACE_TRACE_TG] = {
		.symbol = "trace_tg",
		.module = "xt_TRACE",
		.watch = &trace_watch,
	},
	[IPTTRACE_NF_LOG_TRACE] = {
		.symbol = "nf_log_trace",
		.watch = &frame_watch,
		.replacement = (void *)ipttrace_log_replacement,
		.behind = &ipttrace_behind_nf_log_trace_address,
		.skb_arg = 3,
	},
	[IPTTRACE_NF_DUP_IPV4] = {
		.symbol = "nf_dup_ipv4",
		.module = "nf_dup_ipv4",
		.watch = &frame_watch,
		.replacement = ipttrace_dup_ipv4_replacement,
		.behind = &ipttrace_behind_nf_dup_ipv4_address,
		.skb_arg = 1,
	},
	[IPTTRACE_NF_DUP_IPV6] = {
		.symbol = "nf_dup_ipv6",
		.module = "nf_dup_ipv6",
		.watch = &frame_watch,
		.replacement = ipttrace_dup_ipv6_replacement,
		.behind = &ipttrace_behind_nf_dup_ipv6_address,
		.skb_arg = 1,
	},
};

/**
 * ipttrace_traverse_publish - put program sets in force
 * @sets: the sets, ours from now on; NULL if there are none
 *
 * Return: the sets that were in force before, or NULL. A grace period later no packet is handled by
 * them any more, and the caller frees them.
 */
struct ipttrace_sets *ipttrace_traverse_publish(struct ipttrace_sets *sets)
{
	return rcu_replace_pointer(published, sets,
				   lockdep_is_held(&ipttrace_lock));
}
