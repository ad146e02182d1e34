// SPDX-License-Identifier: GPL-2.0
/*
 * Packets on their way through a table. ftrace calls us when ipt_do_table() or ip6t_do_table() is
 * entered. A packet that no link selects goes on and has paid for that look. A packet that is
 * selected is sent through table_traverse() instead, which marks it, lets the original function
 * handle it, and sees the verdict as a return value. In between, nf_log_trace() is redirected for
 * the packets that are on their way through table_traverse(), and only for those.
 *
 * Everything here runs inside the RCU read section that nf_hook() holds around the hooks.
 */
#include <linux/netfilter/x_tables.h>
#include <net/netfilter/nf_log.h>

#include "compat/ftrace.h"
#include "compat/regs.h"
#include "events.h"
#include "function.h"
#include "link.h"
#include "packet.h"
#include "traverse.h"

#define SELECTION_WORDS BITS_TO_LONGS(IPTTRACE_MAX_LINKS)

/* The handler hands the selection to the replacement in two argument registers. */
static_assert(SELECTION_WORDS == 2);

/* What trace_packet() of ip_tables.c and ip6_tables.c passes to nf_log_trace(). */
#define TRACE_FORMAT "TRACE: %s:%s:%s:%u "

/**
 * struct frame - a selected packet on its way through a table
 * @node: in this CPU's frames
 * @skb: the packet
 * @sets: the program sets that are in force for it, to the end
 * @selected: which of them selected it
 * @passing: function that we are about to call ourselves: its handler lets that call through
 * @slots: slots in which any of the selected sets has a program
 * @foreign: somebody else wants the packet traced as well
 * @event: what all its events have in common
 *
 * Lives on the stack of table_traverse(), which keeps softirqs off and so stays on one CPU. Found
 * by its packet: a packet is in one table at a time. The lists are touched with preemption off.
 */
struct frame {
	struct hlist_node node;
	struct sk_buff *skb;
	const struct ipttrace_sets *sets;
	unsigned long selected[SELECTION_WORDS];
	const struct ipttrace_function *passing;
	unsigned long slots;
	bool foreign;
	struct ipttrace_event event;
};

static DEFINE_PER_CPU(struct hlist_head, frames);
static DEFINE_PER_CPU(u32, traversals);

/* What packets see of the links; written under ipttrace_lock. */
static struct ipttrace_sets __rcu *published;

static struct frame *frame_find(const struct sk_buff *skb)
{
	struct frame *frame;

	hlist_for_each_entry(frame, this_cpu_ptr(&frames), node)
		if (frame->skb == skb)
			return frame;
	return NULL;
}

/* Whether this call of @fn is the one that we make ourselves for @frame. */
static bool frame_passes(struct frame *frame,
			 const struct ipttrace_function *fn)
{
	if (frame->passing != fn)
		return false;
	frame->passing = NULL;
	return true;
}

/* Runs the programs in @slot of all sets that selected the packet, and emits what they ask for. */
static void frame_run(struct frame *frame, enum ipttrace_slot slot,
		      struct pt_regs *regs)
{
	struct ipttrace_event *event = &frame->event;
	bool wanted = ipttrace_events_wanted();
	unsigned int i;

	if (wanted)
		event->time = ktime_get_ns();
	for_each_set_bit(i, frame->selected, frame->sets->count) {
		const struct ipttrace_set *set = frame->sets->set[i];

		if (!set->progs[slot])
			continue;
		/* on PREEMPT_RT an entry program could write into the payload of this one */
		preempt_disable();
		if (ipttrace_set_run(set, slot, regs)) {
			this_cpu_inc(set->link->stats->events);
			if (wanted)
				ipttrace_set_emit(set, slot, event);
		}
		preempt_enable();
	}
}

/*
 * Fills in a frame that has its packet, sets and selection, and zeroes otherwise. noinline: what it
 * needs of the stack is given back before the table is walked.
 */
static noinline void frame_open(struct frame *frame,
				const struct xt_table *table,
				const struct nf_hook_state *state)
{
	struct ipttrace_event *event = &frame->event;
	unsigned int i;

	ipttrace_packet_describe(event, frame->skb, state);
	event->traversal = this_cpu_inc_return(traversals);
	strscpy(event->table, table->name, sizeof(event->table));

	for_each_set_bit(i, frame->selected, frame->sets->count)
		frame->slots |= frame->sets->set[i]->slots;
	frame->foreign = frame->skb->nf_trace;
	frame->skb->nf_trace = 1;
	preempt_disable();
	hlist_add_head(&frame->node, this_cpu_ptr(&frames));
	preempt_enable();
}

static const char *const hook_chains[NF_INET_NUMHOOKS] = {
	/* clang-format off */ /* it would put two on a line */
	[NF_INET_PRE_ROUTING] = "PREROUTING",
	[NF_INET_LOCAL_IN] = "INPUT",
	[NF_INET_FORWARD] = "FORWARD",
	[NF_INET_LOCAL_OUT] = "OUTPUT",
	[NF_INET_POST_ROUTING] = "POSTROUTING",
	/* clang-format on */
};

static noinline void frame_close(struct frame *frame,
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
	struct pt_regs regs;

	preempt_disable();
	hlist_del(&frame->node);
	preempt_enable();

	event->verdict = verdict & NF_VERDICT_MASK;
	event->verdict_data = verdict >> NF_VERDICT_QBITS;
	/* otherwise the packet may be gone, or somebody else's */
	if (event->verdict != NF_STOLEN)
		frame->skb->nf_trace = frame->foreign;

	event->kind = IPTTRACE_KIND_EXIT;
	event->cost = cost;
	event->rulenum = 0;
	if (frame->foreign)
		event->flags |= IPTTRACE_EVENT_FLAG_FOREIGN;
	strscpy_pad(event->chain, hook_chains[event->hook],
		    sizeof(event->chain));

	if (frame->slots & BIT(IPTTRACE_SLOT_EXIT)) {
		const unsigned long sp = ipttrace_entry_sp();

		ipttrace_regs_init(&regs, fn->address, sp,
				   ipttrace_entry_bp(sp));
		ipttrace_regs_set_args(&regs, args);
		regs_set_return_value(&regs, verdict);
		frame_run(frame, IPTTRACE_SLOT_EXIT, &regs);
	}
}

typedef unsigned int (*table_function)(void *table, struct sk_buff *skb,
				       const struct nf_hook_state *state);

/* Stands in for ipt_do_table() and ip6t_do_table(), for a packet that was selected. */
static __always_inline unsigned int
table_traverse(const struct ipttrace_function *fn, void *table,
	       struct sk_buff *skb, const struct nf_hook_state *state,
	       const struct ipttrace_sets *sets, unsigned long low,
	       unsigned long high)
{
	table_function original = (table_function)fn->address;
	struct frame frame = {
		.skb = skb,
		.sets = sets,
		.selected = { low, high },
	};
	unsigned int verdict;
	u64 start;

	local_bh_disable();
	frame_open(&frame, table, state);
	start = ktime_get_ns();
	frame.passing = fn;
	verdict = original(table, skb, state);
	frame_close(&frame, fn, table, state, verdict, ktime_get_ns() - start);
	local_bh_enable();
	return verdict;
}

static unsigned int ipt_replacement(void *table, struct sk_buff *skb,
				    const struct nf_hook_state *state,
				    const struct ipttrace_sets *sets,
				    unsigned long low, unsigned long high)
{
	return table_traverse(&ipttrace_functions[IPTTRACE_IPT_DO_TABLE], table,
			      skb, state, sets, low, high);
}

static unsigned int ip6t_replacement(void *table, struct sk_buff *skb,
				     const struct nf_hook_state *state,
				     const struct ipttrace_sets *sets,
				     unsigned long low, unsigned long high)
{
	return table_traverse(&ipttrace_functions[IPTTRACE_IP6T_DO_TABLE],
			      table, skb, state, sets, low, high);
}

static enum ipttrace_kind trace_kind(const char *comment)
{
	if (!strcmp(comment, "return"))
		return IPTTRACE_KIND_RETURN;
	if (!strcmp(comment, "policy"))
		return IPTTRACE_KIND_POLICY;
	return IPTTRACE_KIND_RULE;
}

/* A rule event: the packet is at the rule that the arguments behind TRACE_FORMAT name. */
static void frame_rule(struct frame *frame, const unsigned long args[6],
		       unsigned long sp, va_list list)
{
	struct ipttrace_event *event = &frame->event;
	struct pt_regs regs;

	event->rules++;
	if (!(frame->slots & BIT(IPTTRACE_SLOT_RULE)))
		return;
	strscpy_pad(event->table, va_arg(list, const char *),
		    sizeof(event->table));
	strscpy_pad(event->chain, va_arg(list, const char *),
		    sizeof(event->chain));
	event->kind = trace_kind(va_arg(list, const char *));
	event->rulenum = va_arg(list, unsigned int);
	if (frame->foreign)
		event->flags |= IPTTRACE_EVENT_FLAG_FOREIGN;

	ipttrace_regs_init(&regs, (unsigned long)nf_log_trace, sp,
			   ipttrace_entry_bp(sp));
	ipttrace_regs_set_args(&regs, args);
	frame_run(frame, IPTTRACE_SLOT_RULE, &regs);
}

/* Stands in for nf_log_trace(), for a packet in a frame; softirqs are off. */
static __printf(8, 9) void log_replacement(struct net *net, u_int8_t pf,
					   unsigned int hooknum,
					   const struct sk_buff *skb,
					   const struct net_device *in,
					   const struct net_device *out,
					   const struct nf_loginfo *loginfo,
					   const char *fmt, ...)
{
	const unsigned long args[6] = {
		(unsigned long)net,
		pf,
		hooknum,
		(unsigned long)skb,
		(unsigned long)in,
		(unsigned long)out,
	};
	char prefix[NF_LOG_PREFIXLEN];
	struct frame *frame;
	va_list list;

	preempt_disable();
	frame = frame_find(skb);
	preempt_enable();
	if (WARN_ON_ONCE(!frame))
		return;

	if (!strcmp(fmt, TRACE_FORMAT)) {
		va_start(list, fmt);
		frame_rule(frame, args, ipttrace_entry_sp(), list);
		va_end(list);
	}
	if (frame->foreign) {
		va_start(list, fmt);
		vsnprintf(prefix, sizeof(prefix), fmt, list);
		va_end(list);
		frame->passing = &ipttrace_functions[IPTTRACE_NF_LOG_TRACE];
		nf_log_trace(net, pf, hooknum, skb, in, out, loginfo, "%s",
			     prefix);
	}
}

typedef void (*dup_function)(struct net *net, struct sk_buff *skb,
			     unsigned int hooknum, const void *gateway,
			     int oif);

/*
 * Stand in for nf_dup_ipv4() and nf_dup_ipv6(), which copy a packet for the TEE target: the copy
 * must not carry a mark that is only ours.
 */
static void dup_replacement(struct net *net, struct sk_buff *skb,
			    unsigned int hooknum, const void *gateway, int oif,
			    const struct ipttrace_function *fn)
{
	dup_function original = (dup_function)fn->address;
	struct frame *frame;

	preempt_disable();
	frame = frame_find(skb);
	preempt_enable();
	if (WARN_ON_ONCE(!frame))
		return;

	skb->nf_trace = frame->foreign;
	frame->passing = fn;
	original(net, skb, hooknum, gateway, oif);
	skb->nf_trace = 1;
}

static void dup_ipv4_replacement(struct net *net, struct sk_buff *skb,
				 unsigned int hooknum, const void *gateway,
				 int oif)
{
	dup_replacement(net, skb, hooknum, gateway, oif,
			&ipttrace_functions[IPTTRACE_NF_DUP_IPV4]);
}

static void dup_ipv6_replacement(struct net *net, struct sk_buff *skb,
				 unsigned int hooknum, const void *gateway,
				 int oif)
{
	dup_replacement(net, skb, hooknum, gateway, oif,
			&ipttrace_functions[IPTTRACE_NF_DUP_IPV6]);
}

/*
 * Programs share per-CPU maps with themselves, as networking programs do: a softirq must not run
 * one on top of another. On PREEMPT_RT softirqs are threads, and preemption is off.
 */
static bool softirqs_off(void)
{
	if (IS_ENABLED(CONFIG_PREEMPT_RT) || in_softirq())
		return false;
	local_bh_disable();
	return true;
}

static bool entry_wants(const struct ipttrace_function *fn,
			const struct ipttrace_set *set,
			const struct pt_regs *args)
{
	const unsigned long params[6] = {
		args->di,
		args->si,
		args->dx,
		ipttrace_packet_sender((const void *)args->si,
				       (const void *)args->dx),
	};
	struct pt_regs regs;
	bool wants, off;

	ipttrace_regs_init(&regs, fn->address, args->sp, args->bp);
	ipttrace_regs_set_args(&regs, params);
	off = softirqs_off();
	wants = ipttrace_set_run(set, IPTTRACE_SLOT_ENTRY, &regs);
	if (off)
		local_bh_enable();
	return wants;
}

/* Which sets want the packet; true if its way through the table must be followed for any. */
static bool packet_select(const struct ipttrace_function *fn,
			  const struct ipttrace_sets *sets,
			  const struct pt_regs *args, unsigned long *selected)
{
	const struct sk_buff *skb = (const struct sk_buff *)args->si;
	bool follow = false;
	unsigned int i;

	for (i = 0; i < sets->count; i++) {
		const struct ipttrace_set *set = sets->set[i];
		const struct ipttrace_link *link = set->link;

		if (link->family && link->family != fn->pf)
			continue;
		this_cpu_inc(link->stats->packets);
		if (!ipttrace_set_filter(set, skb))
			continue;
		if (set->slots & BIT(IPTTRACE_SLOT_ENTRY) &&
		    !entry_wants(fn, set, args))
			continue;
		this_cpu_inc(link->stats->selected);
		if (set->slots & ~BIT(IPTTRACE_SLOT_ENTRY)) {
			__set_bit(i, selected);
			follow = true;
		}
	}
	return follow;
}

/* ftrace handler of ipt_do_table() and ip6t_do_table(): what every packet pays for. */
static void notrace table_handler(unsigned long ip, unsigned long parent_ip,
				  struct ftrace_ops *ops,
				  struct ftrace_regs *fregs)
{
	const struct ipttrace_function *fn =
		container_of(ops, struct ipttrace_function, ops);
	unsigned long selected[SELECTION_WORDS] = {};
	struct pt_regs *args = ipttrace_args(fregs);
	const struct ipttrace_sets *sets;
	struct frame *frame;

	preempt_disable_notrace();
	frame = frame_find((const struct sk_buff *)args->si);
	if (frame && frame_passes(frame, fn))
		goto out;

	/* the replacement goes on with them inside nf_hook()'s read section */
	sets = rcu_dereference_sched(published);
	if (sets && packet_select(fn, sets, args, selected)) {
		/* the function has three arguments, its replacement six */
		args->cx = (unsigned long)sets;
		args->r8 = selected[0];
		args->r9 = selected[1];
		ipttrace_redirect(fregs, fn->replacement);
	}
out:
	preempt_enable_notrace();
}

/* ftrace handler of functions that are redirected for a packet in a frame, and for no other. */
static void notrace frame_handler(unsigned long ip, unsigned long parent_ip,
				  struct ftrace_ops *ops,
				  struct ftrace_regs *fregs)
{
	const struct ipttrace_function *fn =
		container_of(ops, struct ipttrace_function, ops);
	struct pt_regs *args = ipttrace_args(fregs);
	struct frame *frame;

	preempt_disable_notrace();
	frame = frame_find((void *)regs_get_kernel_argument(args, fn->skb_arg));
	if (frame && !frame_passes(frame, fn))
		ipttrace_redirect(fregs, fn->replacement);
	preempt_enable_notrace();
}

/* ftrace handler of the TRACE target: the mark that it sets on a packet in a frame is its own. */
static void notrace trace_handler(unsigned long ip, unsigned long parent_ip,
				  struct ftrace_ops *ops,
				  struct ftrace_regs *fregs)
{
	const struct ipttrace_function *fn =
		container_of(ops, struct ipttrace_function, ops);
	struct pt_regs *args = ipttrace_args(fregs);
	struct frame *frame;

	preempt_disable_notrace();
	frame = frame_find((void *)regs_get_kernel_argument(args, fn->skb_arg));
	if (frame)
		frame->foreign = true;
	preempt_enable_notrace();
}

/*
 * PERMANENT: sysctl kernel.ftrace_enabled must not switch links off behind their backs. Handlers
 * call nothing that they are called for: they do without ftrace's protection against recursion
 * (FTRACE_OPS_FL_RECURSION), which would also keep other tracers from what our programs call.
 */
#define WATCH FTRACE_OPS_FL_PERMANENT
#define REDIRECT (WATCH | FTRACE_OPS_FL_IPMODIFY)

struct ipttrace_function ipttrace_functions[IPTTRACE_FUNCTIONS] = {
	[IPTTRACE_IPT_DO_TABLE] = {
		.symbol = "ipt_do_table",
		.module = "ip_tables",
		.replacement = ipt_replacement,
		.skb_arg = 1,
		.pf = NFPROTO_IPV4,
		.ops = { .func = table_handler, .flags = REDIRECT },
	},
	[IPTTRACE_IP6T_DO_TABLE] = {
		.symbol = "ip6t_do_table",
		.module = "ip6_tables",
		.replacement = ip6t_replacement,
		.skb_arg = 1,
		.pf = NFPROTO_IPV6,
		.ops = { .func = table_handler, .flags = REDIRECT },
	},
	[IPTTRACE_NF_LOG_TRACE] = {
		.symbol = "nf_log_trace",
		.replacement = (void *)log_replacement,
		.skb_arg = 3,
		.ops = { .func = frame_handler, .flags = REDIRECT },
	},
	[IPTTRACE_TRACE_TG] = {
		.symbol = "trace_tg",
		.module = "xt_TRACE",
		.ops = { .func = trace_handler, .flags = WATCH },
	},
	[IPTTRACE_NF_DUP_IPV4] = {
		.symbol = "nf_dup_ipv4",
		.module = "nf_dup_ipv4",
		.replacement = dup_ipv4_replacement,
		.skb_arg = 1,
		.ops = { .func = frame_handler, .flags = REDIRECT },
	},
	[IPTTRACE_NF_DUP_IPV6] = {
		.symbol = "nf_dup_ipv6",
		.module = "nf_dup_ipv6",
		.replacement = dup_ipv6_replacement,
		.skb_arg = 1,
		.ops = { .func = frame_handler, .flags = REDIRECT },
	},
};

/**
 * ipttrace_traverse_publish - put program sets in force
 * @sets: them, ours from now on; NULL if there are none
 *
 * Return: those that were in force before, or NULL. A grace period later no packet is handled by
 * them any more, and the caller frees them.
 */
struct ipttrace_sets *ipttrace_traverse_publish(struct ipttrace_sets *sets)
{
	return rcu_replace_pointer(published, sets,
				   lockdep_is_held(&ipttrace_lock));
}
