// SPDX-License-Identifier: GPL-2.0
/*
 * The walk of a packet through the rules of nftables: a loop of our own that means what the loop of
 * the kernel means, nft_do_chain(). Verdicts, counters, sets, and the trace messages that
 * somebody's rules ask for are the same. Differences between kernels are in compat/nft.h.
 *
 * Everything here runs inside the RCU read section that nf_hook() holds around the hooks. It keeps
 * rules, chains and tables: a commit frees them after a grace period.
 */
#include <linux/u64_stats_sync.h>

#include "walk.h"

/* Written before nft_do_chain() is redirected, see compat/nft.h. */
struct ipttrace_nft ipttrace_nft __read_mostly;

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
	if (unlikely(atomic_read(&ipttrace_nft.trace_enabled->enabled) > 0))
		ipttrace_nft_trace_init(info, pkt, verdict, base);
}

static bool trace_on(const struct nft_traceinfo *info)
{
	return unlikely(info->trace) &&
	       atomic_read(&ipttrace_nft.trace_enabled->enabled) > 0;
}

static noinline void
trace_send(struct nft_traceinfo *info, const struct nft_pktinfo *pkt,
	   const struct nft_verdict *verdict, const struct nft_chain *chain,
	   const struct nft_rule_dp *rule, enum nft_trace_types type)
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
			  const struct ipttrace_position *at)
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
	u32 masked = regs->data[bitwise->sreg] & bitwise->mask;

	/* clang-format takes the bare name for C++'s operator. */
	regs->data[bitwise->dreg] = masked ^ (bitwise->xor);
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

	if (ops == ipttrace_nft.cmp_fast)
		cmp_fast(expr, regs);
	else if (ops == ipttrace_nft.payload_fast &&
		 payload_fast(expr, regs, pkt))
		;
	else if (ops == ipttrace_nft.bitwise_fast)
		bitwise_fast(expr, regs);
	else if (ops == ipttrace_nft.cmp16_fast)
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
static struct ipttrace_position chain_start(struct ipttrace_chain_walk *walk,
					    const struct nft_chain *chain)
{
	const struct nft_rule_blob *blob;

	blob = walk->cursor ? rcu_dereference(chain->blob_gen_1) :
			      rcu_dereference(chain->blob_gen_0);
	ipttrace_walk_check_ruleset(walk);
	return (struct ipttrace_position){
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
static bool chain_run(struct ipttrace_chain_walk *walk,
		      struct ipttrace_position *at, struct nft_regs *regs,
		      struct nft_traceinfo *info)
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
			ipttrace_walk_rule(walk, at, &regs->verdict);
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
unsigned int ipttrace_walk_chains(struct ipttrace_chain_walk *walk,
				  const struct nft_chain *base)
{
	struct ipttrace_position callers[NFT_JUMP_STACK_SIZE] __uninitialized;
	struct nft_pktinfo *pkt = walk->pkt;
	struct nft_traceinfo info;
	struct nft_regs regs = {};
	struct ipttrace_position at;
	unsigned int depth = 0;

	trace_begin(&info, pkt, &regs.verdict, base);
	at = chain_start(walk, base);
	for (;;) {
		bool at_end = chain_run(walk, &at, &regs, &info);
		int code = regs.verdict.code;

		trace_verdict(&info, pkt, &regs.verdict, &at);
		if (!at_end)
			ipttrace_walk_rule(walk, &at, &regs.verdict);
		else if (depth || at.chain != base)
			ipttrace_walk_end(walk, &at, base);
		if (verdict_is_final(code))
			return code;

		switch (code) {
		case NFT_JUMP:
			/* nf_tables takes no ruleset that jumps deeper */
			if (WARN_ON_ONCE(depth >= NFT_JUMP_STACK_SIZE))
				return NF_DROP;
			callers[depth] = at;
			callers[depth].rule = rule_after(at.rule);
			callers[depth].number++;
			walk->depth = ++depth;
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
		if (!depth)
			break;
		walk->depth = --depth;
		at = callers[depth];
	}

	trace_rule(&info, pkt, &regs.verdict, base, NULL);
	at.chain = base;
	ipttrace_walk_end(walk, &at, base);
	count_policy(nft_base_chain(base), pkt);
	return nft_base_chain(base)->policy;
}

/* --- drops --------------------------------------------------------------------------------- */

/*
 * A base chain without rules, whose policy drops: a packet that a rule has dropped is given to the
 * kernel's loop with it, so that tracepoint and drop monitors find the place where nftables drops.
 */
static struct nft_base_chain dropping = { .policy = NF_DROP };
static u64 dropping_rules[DIV_ROUND_UP(
	sizeof(struct nft_rule_blob) + sizeof(struct nft_rule_dp), sizeof(u64))];

void ipttrace_walk_dropping_init(void)
{
	struct nft_rule_blob *blob = (struct nft_rule_blob *)dropping_rules;
	struct nft_rule_dp *end = (struct nft_rule_dp *)blob->data;

	end->is_last = 1;
	RCU_INIT_POINTER(dropping.chain.blob_gen_0, blob);
	RCU_INIT_POINTER(dropping.chain.blob_gen_1, blob);
}

unsigned int ipttrace_walk_drop(struct nft_pktinfo *pkt)
{
	/* whoever traces it has had the message of the rule: there would be another one */
	if (unlikely(pkt->skb->nf_trace))
		return NF_DROP_REASON(pkt->skb, SKB_DROP_REASON_NETFILTER_DROP,
				      EPERM);
	return ipttrace_behind_nft_do_chain(pkt, &dropping.chain);
}
