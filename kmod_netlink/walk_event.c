// SPDX-License-Identifier: GPL-2.0
/*
 * Where a walk through nftables' chains is: events, and the programs that ask for them.
 */
#include "compat/regs.h"
#include "follow.h"
#include "packet.h"
#include "selection.h"
#include "walk.h"

static DEFINE_PER_CPU(u32, traversals);

/*
 * Runs the programs in @slot, with softirqs off around them only: there may be many rules between.
 */
static __always_inline void walk_run(struct ipttrace_chain_walk *walk,
				     enum ipttrace_slot slot,
				     struct pt_regs *regs)
{
	bool off = ipttrace_softirqs_off();

	ipttrace_selection_run(walk->selection, slot,
			       walk->told ? &walk->event : NULL, regs);
	if (off)
		local_bh_enable();
}

static __always_inline void walk_regs(struct pt_regs *regs,
				      const struct ipttrace_chain_walk *walk,
				      const unsigned long args[6])
{
	ipttrace_regs(regs, ipttrace_follow_functions[0].site, walk->sp,
		      walk->bp, args);
}

static void walk_name_chain(struct ipttrace_chain_walk *walk,
			    const struct nft_chain *chain)
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
static void walk_tell(struct ipttrace_chain_walk *walk, enum ipttrace_kind kind,
		      const struct ipttrace_position *at, u64 handle,
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
	memset(event->target, 0, sizeof(event->target));
	if (kind == IPTTRACE_KIND_CHAIN_RULE && verdict_has_chain(code))
		strscpy(event->target, READ_ONCE(verdict->chain->name),
			sizeof(event->target));
	walk_name_chain(walk, at->chain);
}

/* Runs the rule programs, at a rule or at the end of a chain. */
void ipttrace_walk_show(struct ipttrace_chain_walk *walk,
			enum ipttrace_kind kind,
			const struct ipttrace_position *at, u64 handle,
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
	struct pt_regs regs __uninitialized;

	walk_regs(&regs, walk, args);
	if (walk->told)
		walk_tell(walk, kind, at, handle, verdict);
	walk_run(walk, IPTTRACE_SLOT_RULE, &regs);
}

/* Handles the end of a chain; that of the base chain is its policy. */
void ipttrace_walk_end(struct ipttrace_chain_walk *walk,
		       const struct ipttrace_position *at,
		       const struct nft_chain *base)
{
	bool policy = at->chain == base && !walk->depth;
	struct nft_verdict verdict = {
		.code = policy ? nft_base_chain(base)->policy : NFT_RETURN,
	};

	walk->rules++;
	if (walk->slots & BIT(IPTTRACE_SLOT_RULE))
		ipttrace_walk_show(walk,
				   policy ? IPTTRACE_KIND_CHAIN_POLICY :
					    IPTTRACE_KIND_CHAIN_END,
				   at, 0, &verdict);
}

/* Describes the packet and its base chain, for somebody who listens. */
void ipttrace_walk_describe(struct ipttrace_chain_walk *walk,
			    const struct nft_chain *base)
{
	struct ipttrace_event *event = &walk->event;
	const struct nft_table *table = base->table;
	/* a commit raises the generation before packets meet the new ruleset */
	bool old = walk->cursor != ((walk->base_seq + 1) & 1);

	ipttrace_packet_describe(event, walk->pkt->skb, walk->pkt->state,
				 !in_softirq());
	event->flags |= IPTTRACE_EVENT_FLAG_COUNTED;
	event->packet = walk->selection->packet;
	event->traversal = this_cpu_inc_return(traversals);
	event->ruleset = walk->base_seq - old;
	event->family = table->family;
	event->table_handle = table->handle;
	strscpy(event->table, table->name, sizeof(event->table));
	walk_name_chain(walk, base);
}

/* Runs the exit programs, before the packet is dropped. */
void ipttrace_walk_exit(struct ipttrace_chain_walk *walk,
			const struct nft_chain *base, unsigned int verdict,
			u64 cost)
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
	struct pt_regs regs __uninitialized;

	walk_regs(&regs, walk, args);
	regs_set_return_value(&regs, verdict);
	if (walk->told) {
		ipttrace_walk_check_ruleset(walk);
		event->kind = IPTTRACE_KIND_CHAIN_EXIT;
		event->cost = cost;
		event->rulenum = 0;
		event->rule_handle = 0;
		event->rules = walk->rules;
		event->depth = 0;
		memset(event->target, 0, sizeof(event->target));
		event->flags &= ~IPTTRACE_EVENT_FLAG_QUEUE_BYPASS;
		ipttrace_event_verdict(event, verdict);
		walk_name_chain(walk, base);
	}
	walk_run(walk, IPTTRACE_SLOT_EXIT, &regs);
}
