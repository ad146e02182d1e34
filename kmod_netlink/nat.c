// SPDX-License-Identifier: GPL-2.0
/*
 * Packets that NAT's tables and chains are not asked about. nf_nat_inet_fn() consults them for the
 * first packet of a connection, and remembers what they decide: others meet none of their rules.
 * It is redirected for such a packet, to tell so to the links that select the packet; then it
 * handles the packet as ever.
 *
 * A handler only decides whether to redirect, and hands nothing to the replacement: see traverse.c.
 */
#include "compat/ftrace.h"
#include "compat/nat.h"
#include "compat/nft.h"
#include "compat/regs.h"
#include "follow.h"
#include "nat.h"
#include "traverse.h"

/* Index of each argument of nf_nat_inet_fn(). */
#define NAT_PRIV_ARG 0
#define NAT_SKB_ARG 1
#define NAT_STATE_ARG 2

static struct ipttrace_function nat_function;

/* The base chain of nftables that a hook calls, or NULL. */
static const struct nft_chain *chain_of(const struct nf_hook_ops *ops)
{
	/* what nft_symbols.c knows of nf_tables it finds out before that is redirected */
	if (ops->hook_ops_type != NF_HOOK_OP_NF_TABLES ||
	    !ipttrace_function_armed(&ipttrace_follow_functions[0]))
		return NULL;
	return ops->priv;
}

/* The function that walks through the table which a hook calls; NULL if we do not watch it. */
static const struct ipttrace_function *
table_function_of(const struct nf_hook_ops *ops, u8 pf)
{
	const struct ipttrace_function *fn =
		&ipttrace_functions[pf == NFPROTO_IPV4 ? IPTTRACE_IPT_DO_TABLE :
							 IPTTRACE_IP6T_DO_TABLE];
	unsigned long entry = (unsigned long)ops->hook;

	/* the patch site may lie behind an ENDBR */
	return READ_ONCE(fn->site) - entry < IPTTRACE_PATCH_SIZE ? fn : NULL;
}

static const struct nf_hook_ops *consulted(const struct nf_hook_entries *chains,
					   unsigned int i)
{
	/* another one is put in its place while it is removed */
	return READ_ONCE(nf_hook_entries_get_hook_ops(chains)[i]);
}

/* Tells whether any link may want to be told, as far as places and filters tell. */
static bool known_wanted(void *priv, struct sk_buff *skb,
			 const struct nf_hook_state *state)
{
	const struct nf_hook_entries *chains = ipttrace_nat_chains(priv);
	const struct ipttrace_function *fn;
	const struct nf_hook_ops *ops;
	const struct nft_chain *chain;
	unsigned int i;

	for (i = 0; chains && i < chains->num_hook_entries; i++) {
		ops = consulted(chains, i);
		chain = chain_of(ops);
		if (chain && ipttrace_follow_known_wanted(chain, skb, state))
			return true;
		fn = table_function_of(ops, state->pf);
		if (fn && ipttrace_traverse_known_wanted(fn, skb))
			return true;
	}
	return false;
}

/* Tells of each table and base chain that is not consulted. noinline: see nat_replacement(). */
static noinline void known_tell(void *priv, struct sk_buff *skb,
				const struct nf_hook_state *state,
				unsigned long sp, unsigned long bp)
{
	const struct nf_hook_entries *chains = ipttrace_nat_chains(priv);
	const struct ipttrace_function *fn;
	const struct nf_hook_ops *ops;
	const struct nft_chain *chain;
	unsigned int i;

	for (i = 0; chains && i < chains->num_hook_entries; i++) {
		ops = consulted(chains, i);
		chain = chain_of(ops);
		if (chain)
			ipttrace_follow_known(chain, skb, state, sp, bp);
		fn = table_function_of(ops, state->pf);
		if (fn)
			ipttrace_traverse_known(fn, ops->priv, skb, state, sp,
						bp);
	}
}

/*
 * Stands in for nf_nat_inet_fn(), for a packet of a known connection that may be wanted. Its stack
 * is released before the packet goes on.
 */
static unsigned int nat_replacement(void *priv, struct sk_buff *skb,
				    const struct nf_hook_state *state)
{
	const unsigned long sp = ipttrace_entry_sp();

	known_tell(priv, skb, state, sp, ipttrace_entry_bp(sp));
	return ipttrace_behind_nf_nat_inet_fn(priv, skb, state);
}

/* ftrace handler of nf_nat_inet_fn(); every packet where NAT is done pays for it. */
static void notrace nat_handler(unsigned long ip, unsigned long parent_ip,
				struct ftrace_ops *ops,
				struct ftrace_regs *fregs)
{
	void *priv = (void *)ipttrace_argument(fregs, NAT_PRIV_ARG);
	struct sk_buff *skb = (void *)ipttrace_argument(fregs, NAT_SKB_ARG);
	const struct nf_hook_state *state =
		(void *)ipttrace_argument(fregs, NAT_STATE_ARG);

	preempt_disable_notrace();
	/* ftrace may not have been able to remove the address of an earlier load (function.c) */
	if (READ_ONCE(nat_function.site) == ip &&
	    ipttrace_nat_known(skb, state) && known_wanted(priv, skb, state))
		ipttrace_redirect(fregs, nat_function.replacement);
	preempt_enable_notrace();
}

/* PERMANENT: sysctl kernel.ftrace_enabled must not switch links off behind their backs. */
static struct ipttrace_watch nat_watch = {
	.ops = {
		.func = nat_handler,
		.flags = FTRACE_OPS_FL_PERMANENT | FTRACE_OPS_FL_IPMODIFY,
	},
};

static struct ipttrace_function nat_function = {
	.symbol = "nf_nat_inet_fn",
	.module = "nf_nat",
	.watch = &nat_watch,
	.replacement = (void *)nat_replacement,
	.behind = &ipttrace_behind_nf_nat_inet_fn_address,
};

/* The place of NAT's chains is known of kernels whose sources were compared. */
static int nat_resolve(struct netlink_ext_ack *extack)
{
	return ipttrace_nft_compared() ? 0 : -ENOENT;
}

struct ipttrace_arming ipttrace_nat_arming = {
	.lock = __MUTEX_INITIALIZER(ipttrace_nat_arming.lock),
	.hooks = BIT(IPTTRACE_HOOK_TABLE) | BIT(IPTTRACE_HOOK_CHAIN),
	.functions = &nat_function,
	.count = 1,
	.resolve = nat_resolve,
};

int ipttrace_nat_init(void)
{
	return ipttrace_arming_init(&ipttrace_nat_arming);
}

void ipttrace_nat_exit(void)
{
	ipttrace_arming_exit(&ipttrace_nat_arming);
}
