// SPDX-License-Identifier: GPL-2.0
/*
 * Packets on their way through nftables' chains. ftrace calls us when nft_do_chain() is entered. A
 * packet that no link can want goes on; that check is all that it pays for. Any other gets to
 * chain_replacement(), which runs the entry programs, and if one selects the packet, walks through
 * the rules in place of the kernel: a loop of our own that means the same, and shows each rule.
 *
 * Nothing is marked, and nobody else pays for it. Verdicts, counters, sets, and the trace messages
 * that somebody's rules ask for are those of the kernel's loop. verify.c says who may use it where.
 *
 * Everything here runs inside the RCU read section that nf_hook() holds around the hooks. It keeps
 * rules, chains and tables: a commit frees them after a grace period.
 */
#include <linux/irqflags.h>
#include <linux/ktime.h>
#include <linux/sched.h>
#include <linux/u64_stats_sync.h>

#include "compat/ftrace.h"
#include "compat/nft.h"
#include "compat/regs.h"
#include "events.h"
#include "link.h"
#include "packet.h"
#include "selection.h"
#include "symbol.h"
#include "walk.h"

#define MODULE_NAME "nf_tables"

/* Index of the packet and of the base chain among the arguments of nft_do_chain(). */
#define CHAIN_PKT_ARG 0
#define CHAIN_CHAIN_ARG 1

/*
 * Walks of a task, one inside the other: a rule that duplicates, rejects or forwards a packet sends
 * another through chains, on the same stack. Deeper ones are left to the kernel.
 */
#define NESTED_WALKS 4

/**
 * struct position - a place in the rules of a chain
 * @chain: the chain
 * @rule: the next rule
 * @end: the end of the rules
 * @number: number of the rule in its chain, from 1
 */
struct position {
	const struct nft_chain *chain;
	const struct nft_rule_dp *rule;
	const void *end;
	u32 number;
};

/**
 * struct walk - a selected packet on its way through a base chain
 * @node: in the walks of this CPU
 * @task: the task that it is in, or that the softirq it is in has interrupted
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
 * Lives on the stack of chain_follow(), and stays on one CPU (migrate_disable()).
 */
struct walk {
	struct hlist_node node;
	const struct task_struct *task;
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

/* Touched with interrupts off: walks in tasks and in softirqs share it. */
static DEFINE_PER_CPU(struct hlist_head, walks);
static DEFINE_PER_CPU(u32, traversals);

/* The program sets that packets see; written under ipttrace_lock. */
static struct ipttrace_sets __rcu *published;

static struct ipttrace_nft nft __read_mostly;

/* --- events -------------------------------------------------------------------------------- */

/*
 * Runs the programs in @slot, with softirqs off around them only: there may be many rules between.
 */
static void walk_run(struct walk *walk, enum ipttrace_slot slot,
		     struct pt_regs *regs)
{
	bool off = ipttrace_softirqs_off();

	ipttrace_selection_run(walk->selection, slot,
			       walk->told ? &walk->event : NULL, regs);
	if (off)
		local_bh_enable();
}

static struct pt_regs walk_regs(const struct walk *walk,
				const unsigned long args[6])
{
	return ipttrace_regs(ipttrace_walk_functions[0].site, walk->sp,
			     walk->bp, args);
}

/*
 * Notes that rules which are read from now on may be of a later ruleset than the packet's: once a
 * commit has ended, the next one replaces the rules that the packet may still come to.
 */
static void walk_check_ruleset(struct walk *walk)
{
	const struct net *net = nft_net(walk->pkt);

	/* after the pointer to the rules was read */
	smp_rmb();
	if (unlikely(ipttrace_nft_base_seq(&nft, net) != walk->base_seq ||
		     READ_ONCE(net->nft.gencursor) != walk->cursor))
		walk->event.flags |= IPTTRACE_EVENT_FLAG_UNCERTAIN;
}

static void walk_name_chain(struct walk *walk, const struct nft_chain *chain)
{
	if (walk->named == chain)
		return;
	walk->named = chain;
	walk->event.chain_handle = chain->handle;
	strscpy_pad(walk->event.chain, READ_ONCE(chain->name),
		    sizeof(walk->event.chain));
}

static bool verdict_has_chain(int code)
{
	return code == NFT_JUMP || code == NFT_GOTO;
}

/* Puts a rule, or the end of a chain, into the event. */
static void walk_tell(struct walk *walk, enum ipttrace_kind kind,
		      const struct position *at, u64 handle,
		      const struct nft_verdict *verdict)
{
	struct ipttrace_event *event = &walk->event;
	/* unsigned in the struct, and negative where it is nftables' own */
	int code = verdict->code;

	event->kind = kind;
	event->rulenum = kind == IPTTRACE_KIND_CHAIN_RULE ? at->number : 0;
	event->rule_handle = handle;
	event->rules = walk->rules;
	event->depth = walk->depth;
	event->flags &= ~IPTTRACE_EVENT_FLAG_QUEUE_BYPASS;
	if (code >= 0) {
		ipttrace_event_verdict(event, code);
	} else {
		event->verdict = code;
		event->verdict_data = 0;
	}
	if (verdict_has_chain(code))
		strscpy_pad(event->target, READ_ONCE(verdict->chain->name),
			    sizeof(event->target));
	else
		event->target[0] = '\0';
	walk_name_chain(walk, at->chain);
}

/* Runs the rule programs, at a rule or at the end of a chain. */
static noinline void walk_show(struct walk *walk, enum ipttrace_kind kind,
			       const struct position *at, u64 handle,
			       const struct nft_verdict *verdict)
{
	bool stolen = (verdict->code & NF_VERDICT_MASK) == NF_STOLEN;
	const unsigned long args[6] = {
		/* clang-format off */ /* it would put two on a line */
		(unsigned long)READ_ONCE(at->chain->name),
		/* a stolen packet may be gone, or somebody else's */
		stolen ? 0 : (unsigned long)walk->pkt->skb,
		(unsigned long)walk->pkt->state,
		kind == IPTTRACE_KIND_CHAIN_RULE ? at->number : 0,
		handle,
		(int)verdict->code,
		/* clang-format on */
	};
	struct pt_regs regs = walk_regs(walk, args);

	if (walk->told)
		walk_tell(walk, kind, at, handle, verdict);
	walk_run(walk, IPTTRACE_SLOT_RULE, &regs);
}

/* Handles a rule that matched. */
static __always_inline void walk_rule(struct walk *walk,
				      const struct position *at,
				      const struct nft_verdict *verdict)
{
	walk->rules++;
	if (walk->slots & BIT(IPTTRACE_SLOT_RULE))
		walk_show(walk, IPTTRACE_KIND_CHAIN_RULE, at, at->rule->handle,
			  verdict);
}

/* Handles the end of a chain; that of the base chain is its policy. */
static void walk_end(struct walk *walk, const struct position *at,
		     const struct nft_chain *base)
{
	bool policy = at->chain == base && !walk->depth;
	struct nft_verdict verdict = {
		.code = policy ? nft_base_chain(base)->policy : NFT_RETURN,
	};

	walk->rules++;
	if (walk->slots & BIT(IPTTRACE_SLOT_RULE))
		walk_show(walk,
			  policy ? IPTTRACE_KIND_CHAIN_POLICY :
				   IPTTRACE_KIND_CHAIN_END,
			  at, 0, &verdict);
}

/* --- foreign traces ------------------------------------------------------------------------ */

/*
 * Somebody's `meta nftrace set 1` has the kernel send a message for each rule. They are sent where
 * its own loop sends them, by its own functions.
 */
static void trace_begin(struct nft_traceinfo *info,
			const struct nft_pktinfo *pkt,
			const struct nft_verdict *verdict,
			const struct nft_chain *base)
{
	info->trace = false;
	if (unlikely(atomic_read(&nft.trace_enabled->enabled) > 0))
		ipttrace_nft_trace_init(info, pkt, verdict, base);
}

static bool trace_on(const struct nft_traceinfo *info)
{
	return unlikely(info->trace) &&
	       atomic_read(&nft.trace_enabled->enabled) > 0;
}

static noinline void trace_send(struct nft_traceinfo *info,
				const struct nft_pktinfo *pkt,
				const struct nft_verdict *verdict,
				const struct nft_chain *chain,
				const struct nft_rule_dp *rule,
				enum nft_trace_types type)
{
	if (!info->nf_trace)
		return;
	info->type = type;
	ipttrace_nft_trace_notify(info, pkt, verdict, chain, rule);
}

/* A rule that matched and says nothing of the packet's fate, or the policy: @rule is NULL then. */
static void trace_rule(struct nft_traceinfo *info,
		       const struct nft_pktinfo *pkt,
		       const struct nft_verdict *verdict,
		       const struct nft_chain *chain,
		       const struct nft_rule_dp *rule)
{
	if (!trace_on(info))
		return;
	info->nf_trace = pkt->skb->nf_trace;
	trace_send(info, pkt, verdict, chain, rule,
		   rule ? NFT_TRACETYPE_RULE : NFT_TRACETYPE_POLICY);
}

/* A rule with a verdict, or the end of a chain. */
static void trace_verdict(struct nft_traceinfo *info,
			  const struct nft_pktinfo *pkt,
			  const struct nft_verdict *verdict,
			  const struct position *at)
{
	enum nft_trace_types type;
	bool keep;

	if (!trace_on(info))
		return;
	type = ipttrace_nft_trace_type(verdict->code, &keep);
	if (!keep)
		info->nf_trace = pkt->skb->nf_trace;
	trace_send(info, pkt, verdict, at->chain, at->rule, type);
}

/* --- rules --------------------------------------------------------------------------------- */

static void cmp_fast(const struct nft_expr *expr, struct nft_regs *regs)
{
	const struct nft_cmp_fast_expr *cmp = nft_expr_priv(expr);
	bool equal = (regs->data[cmp->sreg] & cmp->mask) == cmp->data;

	if (equal == cmp->inv)
		regs->verdict.code = NFT_BREAK;
}

static void cmp16_fast(const struct nft_expr *expr, struct nft_regs *regs)
{
	const struct nft_cmp16_fast_expr *cmp = nft_expr_priv(expr);
	const u64 *value = (const u64 *)&regs->data[cmp->sreg];
	const u64 *mask = (const u64 *)&cmp->mask;
	const u64 *data = (const u64 *)&cmp->data;
	bool equal = !(((value[0] & mask[0]) ^ data[0]) |
		       ((value[1] & mask[1]) ^ data[1]));

	if (equal == cmp->inv)
		regs->verdict.code = NFT_BREAK;
}

static void bitwise_fast(const struct nft_expr *expr, struct nft_regs *regs)
{
	const struct nft_bitwise_fast_expr *bitwise = nft_expr_priv(expr);

	regs->data[bitwise->dreg] =
		(regs->data[bitwise->sreg] & bitwise->mask) ^ bitwise->xor;
}

/* Loads 1, 2 or 4 bytes of a header. False if these are not in the linear part of the packet. */
static bool payload_fast(const struct nft_expr *expr, struct nft_regs *regs,
			 const struct nft_pktinfo *pkt)
{
	const struct nft_payload *payload = nft_expr_priv(expr);
	u32 *to = &regs->data[payload->dreg];
	const unsigned char *from;

	if (payload->base == NFT_PAYLOAD_NETWORK_HEADER)
		from = ipttrace_nft_network_header(pkt);
	else if (ipttrace_nft_has_transport(pkt))
		from = pkt->skb->data + nft_thoff(pkt);
	else
		return false;
	from += payload->offset;
	if (unlikely(from + payload->len > skb_tail_pointer(pkt->skb)))
		return false;

	/* bytes of the register that are not loaded are zero */
	switch (payload->len) {
	case 4:
		*to = *(const u32 *)from;
		break;
	case 2:
		*to = 0;
		*(u16 *)to = *(const u16 *)from;
		break;
	default:
		*to = 0;
		*(u8 *)to = *from;
	}
	return true;
}

static __always_inline void expr_run(const struct nft_expr *expr,
				     struct nft_regs *regs,
				     struct nft_pktinfo *pkt)
{
	const struct nft_expr_ops *ops = expr->ops;

	if (ops == nft.cmp_fast)
		cmp_fast(expr, regs);
	else if (ops == nft.payload_fast && payload_fast(expr, regs, pkt))
		;
	else if (ops == nft.bitwise_fast)
		bitwise_fast(expr, regs);
	else if (ops == nft.cmp16_fast)
		cmp16_fast(expr, regs);
	else
		ops->eval(expr, regs, pkt);
}

/* Runs the expressions of a rule until one decides: NFT_BREAK means that it does not match. */
static __always_inline void rule_run(const struct nft_rule_dp *rule,
				     struct nft_regs *regs,
				     struct nft_pktinfo *pkt)
{
	const unsigned char *place = rule->data;
	const unsigned char *end = place + rule->dlen;

	while (place != end && regs->verdict.code == NFT_CONTINUE) {
		const struct nft_expr *expr = (const struct nft_expr *)place;

		expr_run(expr, regs, pkt);
		place += expr->ops->size;
	}
}

static __always_inline const struct nft_rule_dp *
rule_after(const struct nft_rule_dp *rule)
{
	return (const struct nft_rule_dp *)(rule->data + rule->dlen);
}

/* The first rule of a chain, in the ruleset that the packet meets. */
static struct position chain_start(struct walk *walk,
				   const struct nft_chain *chain)
{
	const struct nft_rule_blob *blob;

	blob = walk->cursor ? rcu_dereference(chain->blob_gen_1) :
			      rcu_dereference(chain->blob_gen_0);
	walk_check_ruleset(walk);
	return (struct position){
		.chain = chain,
		.rule = (const struct nft_rule_dp *)blob->data,
		.end = ipttrace_nft_end(blob),
		.number = 1,
	};
}

/*
 * Goes through rules until one decides over the packet. True if the rules are at their end: none
 * did, and the verdict is NFT_CONTINUE.
 */
static bool chain_run(struct walk *walk, struct position *at,
		      struct nft_regs *regs, struct nft_traceinfo *info)
{
	struct nft_pktinfo *pkt = walk->pkt;

	while (!ipttrace_nft_at_end(at->rule, at->end)) {
		regs->verdict.code = NFT_CONTINUE;
		rule_run(at->rule, regs, pkt);
		if (regs->verdict.code != NFT_BREAK) {
			if (regs->verdict.code != NFT_CONTINUE)
				return false;
			trace_rule(info, pkt, &regs->verdict, at->chain,
				   at->rule);
			walk_rule(walk, at, &regs->verdict);
		} else if (unlikely(info->trace)) {
			info->nf_trace = pkt->skb->nf_trace;
		}
		at->rule = rule_after(at->rule);
		at->number++;
	}
	regs->verdict.code = NFT_CONTINUE;
	return true;
}

/* Counts a packet that gets to the policy, if the chain has counters. */
static void count_policy(const struct nft_base_chain *base,
			 const struct nft_pktinfo *pkt)
{
	struct nft_stats __percpu *counters = READ_ONCE(base->stats);
	struct nft_stats *counter;

	if (!counters)
		return;
	local_bh_disable();
	counter = this_cpu_ptr(counters);
	u64_stats_update_begin(&counter->syncp);
	counter->pkts++;
	counter->bytes += pkt->skb->len;
	u64_stats_update_end(&counter->syncp);
	local_bh_enable();
}

/* True for a verdict that ends the walk. */
static bool verdict_is_final(int code)
{
	switch (code & NF_VERDICT_MASK) {
	case NF_ACCEPT:
	case NF_DROP:
	case NF_QUEUE:
	case NF_STOLEN:
		return true;
	default:
		return false;
	}
}

/*
 * Takes the packet from rule to rule. Returns its verdict, NF_DROP for one that the caller has to
 * drop.
 */
static noinline unsigned int walk_chains(struct walk *walk,
					 const struct nft_chain *base)
{
	struct position callers[NFT_JUMP_STACK_SIZE];
	struct nft_pktinfo *pkt = walk->pkt;
	struct nft_traceinfo info;
	struct nft_regs regs = {};
	struct position at;

	trace_begin(&info, pkt, &regs.verdict, base);
	at = chain_start(walk, base);
	for (;;) {
		bool at_end = chain_run(walk, &at, &regs, &info);
		int code = regs.verdict.code;

		trace_verdict(&info, pkt, &regs.verdict, &at);
		if (!at_end)
			walk_rule(walk, &at, &regs.verdict);
		else if (walk->depth || at.chain != base)
			walk_end(walk, &at, base);
		if (verdict_is_final(code))
			return code;

		switch (code) {
		case NFT_JUMP:
			/* nf_tables takes no ruleset that jumps deeper */
			if (WARN_ON_ONCE(walk->depth >= NFT_JUMP_STACK_SIZE))
				return NF_DROP;
			callers[walk->depth] = at;
			callers[walk->depth].rule = rule_after(at.rule);
			callers[walk->depth].number++;
			walk->depth++;
			fallthrough;
		case NFT_GOTO:
			at = chain_start(walk, regs.verdict.chain);
			continue;
		case NFT_CONTINUE:
		case NFT_RETURN:
			break;
		default:
			WARN_ON_ONCE(1);
		}
		if (!walk->depth)
			break;
		at = callers[--walk->depth];
	}

	trace_rule(&info, pkt, &regs.verdict, base, NULL);
	at.chain = base;
	walk_end(walk, &at, base);
	count_policy(nft_base_chain(base), pkt);
	return nft_base_chain(base)->policy;
}

/* --- drops --------------------------------------------------------------------------------- */

/*
 * A base chain without rules, whose policy drops: a packet that a rule has dropped is given to the
 * kernel's loop with it, so that tracepoint and drop monitors find the place where nftables drops.
 */
static struct nft_base_chain dropping = { .policy = NF_DROP };
static u64 dropping_rules[DIV_ROUND_UP(sizeof(struct nft_rule_blob) +
					       sizeof(struct nft_rule_dp),
				       sizeof(u64))];

static void dropping_init(void)
{
	struct nft_rule_blob *blob = (struct nft_rule_blob *)dropping_rules;
	struct nft_rule_dp *end = (struct nft_rule_dp *)blob->data;

	end->is_last = 1;
	RCU_INIT_POINTER(dropping.chain.blob_gen_0, blob);
	RCU_INIT_POINTER(dropping.chain.blob_gen_1, blob);
}

static unsigned int drop(struct nft_pktinfo *pkt)
{
	/* whoever traces it has had the message of the rule: there would be another one */
	if (unlikely(pkt->skb->nf_trace))
		return NF_DROP_REASON(pkt->skb, SKB_DROP_REASON_NETFILTER_DROP,
				      EPERM);
	return ipttrace_behind_nft_do_chain(pkt, &dropping.chain);
}

/* --- packets ------------------------------------------------------------------------------- */

/* Lists a walk. False if its task is in too many already. */
static bool walk_enter(struct walk *walk)
{
	struct hlist_head *list;
	const struct walk *other;
	unsigned int nested = 0;
	unsigned long flags;

	walk->task = current;
	local_irq_save(flags);
	list = this_cpu_ptr(&walks);
	hlist_for_each_entry(other, list, node)
		nested += other->task == current;
	if (nested < NESTED_WALKS)
		hlist_add_head(&walk->node, list);
	local_irq_restore(flags);
	return nested < NESTED_WALKS;
}

static void walk_leave(struct walk *walk)
{
	unsigned long flags;

	local_irq_save(flags);
	hlist_del(&walk->node);
	local_irq_restore(flags);
}

/* Counts a walk that was left out for all sets that selected the packet. */
static noinline void count_left_out(const struct ipttrace_selection *selection)
{
	unsigned int i;

	preempt_disable();
	for_each_set_bit(i, selection->selected, selection->sets->count)
		this_cpu_inc(selection->sets->set[i]->link->stats->nested);
	ipttrace_events_count_nested();
	preempt_enable();
}

/* Describes the packet and its base chain, for somebody who listens. */
static noinline void walk_describe(struct walk *walk,
				   const struct nft_chain *base)
{
	struct ipttrace_event *event = &walk->event;
	const struct nft_table *table = base->table;
	/* a commit raises the generation before packets meet the new ruleset */
	bool old = walk->cursor != ((walk->base_seq + 1) & 1);

	ipttrace_packet_describe(event, walk->pkt->skb, walk->pkt->state);
	event->flags |= IPTTRACE_EVENT_FLAG_COUNTED;
	event->traversal = this_cpu_inc_return(traversals);
	event->ruleset = walk->base_seq - old;
	event->family = table->family;
	event->table_handle = table->handle;
	strscpy(event->table, table->name, sizeof(event->table));
	walk_name_chain(walk, base);
}

/* Runs the exit programs, before the packet is dropped. */
static noinline void walk_exit(struct walk *walk, const struct nft_chain *base,
			       unsigned int verdict, u64 cost)
{
	struct ipttrace_event *event = &walk->event;
	bool stolen = (verdict & NF_VERDICT_MASK) == NF_STOLEN;
	const unsigned long args[6] = {
		/* clang-format off */ /* it would put two on a line */
		(unsigned long)READ_ONCE(base->name),
		stolen ? 0 : (unsigned long)walk->pkt->skb,
		(unsigned long)walk->pkt->state,
		cost,
		walk->rules,
		/* clang-format on */
	};
	struct pt_regs regs = walk_regs(walk, args);

	regs_set_return_value(&regs, verdict);
	if (walk->told) {
		walk_check_ruleset(walk);
		event->kind = IPTTRACE_KIND_CHAIN_EXIT;
		event->cost = cost;
		event->rulenum = 0;
		event->rule_handle = 0;
		event->rules = walk->rules;
		event->depth = 0;
		event->target[0] = '\0';
		event->flags &= ~IPTTRACE_EVENT_FLAG_QUEUE_BYPASS;
		ipttrace_event_verdict(event, verdict);
		walk_name_chain(walk, base);
	}
	walk_run(walk, IPTTRACE_SLOT_EXIT, &regs);
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
	const struct net *net = nft_net(pkt);
	unsigned int verdict;
	struct walk walk;
	bool timed;
	u64 start;

	if (!walk_enter(&walk)) {
		count_left_out(selection);
		return ipttrace_behind_nft_do_chain(pkt, priv);
	}
	walk.pkt = pkt;
	walk.selection = selection;
	walk.slots = ipttrace_selection_slots(selection);
	walk.sp = sp;
	walk.bp = bp;
	walk.named = NULL;
	walk.depth = 0;
	walk.rules = 0;
	walk.told = ipttrace_events_wanted();
	if (walk.told)
		memset(&walk.event, 0, sizeof(walk.event));
	else
		walk.event.flags = 0;
	walk.cursor = READ_ONCE(net->nft.gencursor);
	/* see walk_describe() */
	smp_rmb();
	walk.base_seq = ipttrace_nft_base_seq(&nft, net);
	if (walk.told)
		walk_describe(&walk, base);

	timed = walk.slots & BIT(IPTTRACE_SLOT_EXIT);
	start = timed ? ktime_get_ns() : 0;
	verdict = walk_chains(&walk, base);
	if (timed)
		walk_exit(&walk, base, verdict, ktime_get_ns() - start);
	walk_leave(&walk);
	if ((verdict & NF_VERDICT_MASK) == NF_DROP)
		return drop(pkt);
	return verdict;
}

/* --- selecting packets --------------------------------------------------------------------- */

static bool place_names(const struct ipttrace_chain_place *place,
			const struct nft_chain *chain)
{
	if (strcmp(place->table, chain->table->name))
		return false;
	return !place->chain[0] ||
	       !strcmp(place->chain, READ_ONCE(chain->name));
}

/* Tells whether a link is at this base chain, and in the packet's namespace. */
static __always_inline bool link_concerns(const struct ipttrace_link *link,
					  const struct nft_pktinfo *pkt,
					  const struct nft_chain *chain)
{
	const struct ipttrace_chain_place *place = link->place;

	if (place->netns_cookie &&
	    place->netns_cookie != nft_net(pkt)->net_cookie)
		return false;
	if (link->family && link->family != chain->table->family)
		return false;
	return !place->table[0] || place_names(place, chain);
}

static bool is_ip(const struct nft_pktinfo *pkt)
{
	u8 pf = pkt->state->pf;

	if (pf == NFPROTO_IPV4 || pf == NFPROTO_IPV6)
		return true;
	return pf != NFPROTO_ARP && (pkt->skb->protocol == htons(ETH_P_IP) ||
				     pkt->skb->protocol == htons(ETH_P_IPV6));
}

/* Runs a filter where the packet's data does not begin at its network header: at egress. */
static noinline bool filter_at_offset(const struct ipttrace_set *set,
				      struct sk_buff *skb, unsigned int offset)
{
	bool wanted;

	if (offset > skb_headlen(skb))
		return false;
	__skb_pull(skb, offset);
	wanted = ipttrace_set_filter(set, skb);
	__skb_push(skb, offset);
	return wanted;
}

/* True if the set's filter, if it has one, lets the packet through. */
static __always_inline bool filter_wants(const struct ipttrace_set *set,
					 const struct nft_pktinfo *pkt)
{
	int offset;

	if (!set->filter)
		return true;
	/* filters are for packets of IP */
	if (!is_ip(pkt))
		return false;
	offset = skb_network_offset(pkt->skb);
	if (unlikely(offset))
		return offset > 0 && filter_at_offset(set, pkt->skb, offset);
	return ipttrace_set_filter(set, pkt->skb);
}

/*
 * Tells whether any set may want the packet, as far as places and filters tell: no program is run.
 * A packet that no set can want is counted here, any other where its selection is made.
 */
static __always_inline bool
packet_may_be_wanted(const struct ipttrace_sets *sets,
		     const struct nft_pktinfo *pkt,
		     const struct nft_chain *chain)
{
	unsigned long concerned = 0;
	unsigned int i;

	for (i = 0; i < sets->count; i++) {
		const struct ipttrace_set *set = sets->set[i];

		if (!link_concerns(set->link, pkt, chain))
			continue;
		concerned++;
		if (set->filter_draws || filter_wants(set, pkt))
			return true;
	}
	for (i = 0; concerned && i < sets->count; i++)
		if (link_concerns(sets->set[i]->link, pkt, chain))
			this_cpu_inc(sets->set[i]->link->stats->packets);
	return false;
}

/* Runs the entry program of a set. */
static __always_inline bool entry_selects(const struct ipttrace_set *set,
					  const struct nft_pktinfo *pkt,
					  const struct nft_chain *chain,
					  unsigned long sp, unsigned long bp)
{
	const unsigned long args[6] = {
		/* clang-format off */ /* it would put two on a line */
		(unsigned long)chain->table->name,
		(unsigned long)pkt->skb,
		(unsigned long)pkt->state,
		ipttrace_packet_sender(pkt->skb, pkt->state),
		(unsigned long)READ_ONCE(chain->name),
		chain->table->family,
		/* clang-format on */
	};
	struct pt_regs regs = ipttrace_regs(ipttrace_walk_functions[0].site, sp,
					    bp, args);
	bool off, selects;

	off = ipttrace_softirqs_off();
	selects = ipttrace_set_run(set, IPTTRACE_SLOT_ENTRY, &regs);
	if (off)
		local_bh_enable();
	return selects;
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
	for (i = 0; i < sets->count; i++) {
		const struct ipttrace_set *set = sets->set[i];

		if (!link_concerns(set->link, pkt, chain))
			continue;
		this_cpu_inc(set->link->stats->packets);
		if (!filter_wants(set, pkt))
			continue;
		if (set->slots & BIT(IPTTRACE_SLOT_ENTRY) &&
		    !entry_selects(set, pkt, chain, sp, bp))
			continue;
		follow |= ipttrace_selection_add(selection, i);
	}
	return follow;
}

/* Stands in for nft_do_chain(), for a packet that may be wanted. */
static unsigned int chain_replacement(struct nft_pktinfo *pkt, void *priv)
{
	const unsigned long sp = ipttrace_entry_sp();
	const unsigned long bp = ipttrace_entry_bp(sp);
	struct ipttrace_selection selection = {};
	unsigned int verdict;

	/* the events of a walk are numbered by one CPU, in their order */
	migrate_disable();
	if (!packet_select(&selection, pkt, priv, sp, bp)) {
		migrate_enable();
		return ipttrace_behind_nft_do_chain(pkt, priv);
	}
	verdict = chain_follow(&selection, pkt, priv, sp, bp);
	migrate_enable();
	return verdict;
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
	const struct ipttrace_sets *sets;

	preempt_disable_notrace();
	sets = rcu_dereference_sched(published);
	/* ftrace may not have been able to remove the address of an earlier load (function.c) */
	if (sets && READ_ONCE(ipttrace_walk_functions[0].site) == ip &&
	    packet_may_be_wanted(sets, pkt, chain))
		ipttrace_redirect(fregs,
				  ipttrace_walk_functions[0].replacement);
	preempt_enable_notrace();
}

/* PERMANENT: sysctl kernel.ftrace_enabled must not switch links off behind their backs. */
static struct ipttrace_watch chain_watch = {
	.ops = {
		.func = chain_handler,
		.flags = FTRACE_OPS_FL_PERMANENT | FTRACE_OPS_FL_IPMODIFY,
	},
};

struct ipttrace_function ipttrace_walk_functions[IPTTRACE_WALK_FUNCTIONS] = {
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
 * ipttrace_walk_publish - put program sets in force
 * @sets: the sets, ours from now on; NULL if there are none
 *
 * Return: the sets that were in force before, or NULL. A grace period later no packet is handled by
 * them any more, and the caller frees them.
 */
struct ipttrace_sets *ipttrace_walk_publish(struct ipttrace_sets *sets)
{
	return rcu_replace_pointer(published, sets,
				   lockdep_is_held(&ipttrace_lock));
}

/* --- symbols of nf_tables ------------------------------------------------------------------ */

static const void *symbol(const char *name)
{
	return (const void *)ipttrace_module_symbol_find(MODULE_NAME, name);
}

/* Finds where a function goes on behind its patch site. */
static int find_behind(const char *name, unsigned long *behind)
{
	unsigned long site;
	char *both;
	int err;

	both = kasprintf(GFP_KERNEL, MODULE_NAME ":%s", name);
	if (!both)
		return -ENOMEM;
	err = ipttrace_site_find(both, &site);
	kfree(both);
	/* built in */
	if (err == -ENOENT)
		err = ipttrace_site_find(name, &site);
	if (!err)
		*behind = site + IPTTRACE_PATCH_SIZE;
	return err;
}

/**
 * ipttrace_walk_resolve - find what the walk needs of nf_tables besides nft_do_chain()
 * @extack: extended ACK, set on error; may be NULL
 *
 * Context: process, may sleep; nft_do_chain() is not redirected.
 * Return: 0; -ENOENT if nf_tables is not loaded; -EOPNOTSUPP, -ENOMEM, or an errno of kprobes.
 */
int ipttrace_walk_resolve(struct netlink_ext_ack *extack)
{
	int err;

	err = find_behind("nft_trace_init",
			  &ipttrace_behind_nft_trace_init_address);
	if (!err)
		err = find_behind("nft_trace_notify",
				  &ipttrace_behind_nft_trace_notify_address);
	if (err == -ENOENT || err == -ENOMEM)
		return err;
	dropping_init();
	nft.cmp_fast = symbol("nft_cmp_fast_ops");
	nft.cmp16_fast = symbol("nft_cmp16_fast_ops");
	nft.bitwise_fast = symbol("nft_bitwise_fast_ops");
	nft.payload_fast = symbol("nft_payload_fast_ops");
	nft.trace_enabled = symbol("nft_trace_enabled");
	nft.net_id = symbol("nf_tables_net_id");
	if (err || !nft.cmp_fast || !nft.cmp16_fast || !nft.bitwise_fast ||
	    !nft.payload_fast || !nft.trace_enabled || !nft.net_id) {
		NL_SET_ERR_MSG(extack,
			       "the kernel hides symbols of nf_tables that walking through its chains needs (CONFIG_KALLSYMS_ALL)");
		return -EOPNOTSUPP;
	}
	return 0;
}
