// SPDX-License-Identifier: GPL-2.0
/*
 * Selected packets at tables, and the rules that the kernel reports for them: functions that are
 * redirected for a packet in a frame, and for no other (traverse.c).
 */
#include <linux/netfilter/x_tables.h>
#include <net/netfilter/nf_log.h>

#include "compat/behind.h"
#include "compat/regs.h"
#include "frame.h"
#include "replace.h"
#include "selection.h"
#include "traverse.h"

/* The format that trace_packet() of ip_tables.c and ip6_tables.c passes to nf_log_trace(). */
#define TRACE_FORMAT "TRACE: %s:%s:%s:%u "

/* Stands where the kernel passes "rule", "return" or "policy": the table is not consulted. */
#define KNOWN "known"

static DEFINE_PER_CPU(struct hlist_head, frames);

const char *const ipttrace_hook_chains[NF_INET_NUMHOOKS] = {
	/* clang-format off */ /* it would put two on a line */
	[NF_INET_PRE_ROUTING] = "PREROUTING",
	[NF_INET_LOCAL_IN] = "INPUT",
	[NF_INET_FORWARD] = "FORWARD",
	[NF_INET_LOCAL_OUT] = "OUTPUT",
	[NF_INET_POST_ROUTING] = "POSTROUTING",
	/* clang-format on */
};

/* The listed frame of a packet, or NULL. The caller has preemption off. */
struct ipttrace_frame *ipttrace_frame_find(const struct sk_buff *skb)
{
	struct ipttrace_frame *frame;

	hlist_for_each_entry(frame, this_cpu_ptr(&frames), node)
		if (frame->skb == skb)
			return frame;
	return NULL;
}

/* Lists a frame, so that its packet's rules find it. */
void ipttrace_frame_list(struct ipttrace_frame *frame)
{
	preempt_disable();
	hlist_add_head(&frame->node, this_cpu_ptr(&frames));
	preempt_enable();
}

void ipttrace_frame_unlist(struct ipttrace_frame *frame)
{
	preempt_disable();
	hlist_del(&frame->node);
	preempt_enable();
}

/*
 * Compares the generation of the rules once the table's function has read where they are, which it
 * does once, before the first of them.
 */
void ipttrace_frame_compare(struct ipttrace_frame *frame)
{
	struct ipttrace_event *event = &frame->event;

	if (frame->compared)
		return;
	frame->compared = true;
	if (!ipttrace_replace_unchanged(frame->table, event->ruleset))
		event->flags |= IPTTRACE_EVENT_FLAG_UNCERTAIN;
}

/* Names a chain in the event. Names do not change while a packet is in a table. */
void ipttrace_frame_name(struct ipttrace_frame *frame, const char *chain)
{
	if (frame->chain == chain)
		return;
	frame->chain = chain;
	strscpy_pad(frame->event.chain, chain, sizeof(frame->event.chain));
}

/* By "rule", "return", "policy" or KNOWN. */
static enum ipttrace_kind trace_kind(const char *comment)
{
	switch (comment[0]) {
	case 'p':
		return IPTTRACE_KIND_POLICY;
	case 'k':
		return IPTTRACE_KIND_KNOWN;
	default:
		return comment[1] == 'e' ? IPTTRACE_KIND_RETURN :
					   IPTTRACE_KIND_RULE;
	}
}

/*
 * Puts the rule into the event that the arguments behind TRACE_FORMAT name. The table has been put
 * there before.
 */
static void frame_tell(struct ipttrace_frame *frame, va_list list)
{
	va_arg(list, const char *);
	ipttrace_frame_name(frame, va_arg(list, const char *));
	frame->event.kind = trace_kind(va_arg(list, const char *));
	frame->event.rulenum = va_arg(list, unsigned int);
}

/* Tells whether a report is about a rule. */
static bool is_of_rule(struct ipttrace_frame *frame, const char *format)
{
	if (frame->format == format)
		return true;
	if (strcmp(format, TRACE_FORMAT))
		return false;
	frame->format = format;
	return true;
}

/* Handles a rule: the packet is at the one that the arguments behind TRACE_FORMAT name. */
static void frame_rule(struct ipttrace_frame *frame,
		       const unsigned long args[6], unsigned long sp,
		       va_list list)
{
	struct ipttrace_event *event = &frame->event;
	struct pt_regs regs __uninitialized;

	event->rules++;
	if (!(frame->slots & BIT(IPTTRACE_SLOT_RULE)))
		return;
	if (frame->told) {
		ipttrace_frame_compare(frame);
		frame_tell(frame, list);
	}
	if (frame->foreign)
		event->flags |= IPTTRACE_EVENT_FLAG_FOREIGN;

	ipttrace_regs(&regs, ipttrace_functions[IPTTRACE_NF_LOG_TRACE].site, sp,
		      ipttrace_entry_bp(sp), args);
	ipttrace_selection_run(frame->selection, IPTTRACE_SLOT_RULE,
			       frame->told ? event : NULL, &regs);
}

/*
 * Stands in for nf_log_trace(), for a packet in a frame; softirqs are off. noinline: programs are
 * given the stack as it was at its entry.
 */
noinline void
ipttrace_log_replacement(struct net *net, u_int8_t pf, unsigned int hooknum,
			 const struct sk_buff *skb, const struct net_device *in,
			 const struct net_device *out,
			 const struct nf_loginfo *loginfo, const char *fmt, ...)
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
	struct ipttrace_frame *frame;
	va_list list;

	preempt_disable();
	frame = ipttrace_frame_find(skb);
	preempt_enable();
	if (WARN_ON_ONCE(!frame))
		return;

	if (is_of_rule(frame, fmt)) {
		va_start(list, fmt);
		frame_rule(frame, args, ipttrace_entry_sp(), list);
		va_end(list);
	}
	if (frame->foreign) {
		va_start(list, fmt);
		vsnprintf(prefix, sizeof(prefix), fmt, list);
		va_end(list);
		ipttrace_behind_nf_log_trace(net, pf, hooknum, skb, in, out,
					     loginfo, "%s", prefix);
	}
}

/*
 * Takes a mark that is only ours from a packet, or puts it back. The packet does not carry it while
 * it is copied for the TEE target, or the copy would too.
 */
static void dup_mark(struct sk_buff *skb, bool ours)
{
	const struct ipttrace_frame *frame;

	preempt_disable();
	frame = ipttrace_frame_find(skb);
	preempt_enable();
	if (!WARN_ON_ONCE(!frame))
		skb->nf_trace = ours || frame->foreign;
}

/* Stand in for nf_dup_ipv4() and nf_dup_ipv6(), for a packet in a frame. */
void ipttrace_dup_ipv4_replacement(struct net *net, struct sk_buff *skb,
				   unsigned int hooknum,
				   const struct in_addr *gateway, int oif)
{
	dup_mark(skb, false);
	ipttrace_behind_nf_dup_ipv4(net, skb, hooknum, gateway, oif);
	dup_mark(skb, true);
}

void ipttrace_dup_ipv6_replacement(struct net *net, struct sk_buff *skb,
				   unsigned int hooknum,
				   const struct in6_addr *gateway, int oif)
{
	dup_mark(skb, false);
	ipttrace_behind_nf_dup_ipv6(net, skb, hooknum, gateway, oif);
	dup_mark(skb, true);
}

/*
 * Runs the rule programs where the kernel does not consult a table of NAT, with the arguments that
 * they would have at a rule.
 */
void ipttrace_frame_known(struct ipttrace_frame *frame,
			  const struct xt_table *table,
			  const struct nf_hook_state *state)
{
	ipttrace_frame_list(frame);
	ipttrace_log_replacement(state->net, state->pf, state->hook, frame->skb,
				 state->in, state->out, NULL, TRACE_FORMAT,
				 table->name, ipttrace_hook_chains[state->hook],
				 KNOWN, 0);
	ipttrace_frame_unlist(frame);
}
