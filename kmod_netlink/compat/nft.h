/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Knowledge about versions of nf_tables, for the walk through its chains (walk.c).
 *
 * The walk was compared with nft_do_chain() and nft_payload_fast_eval() of nf_tables_core.c, with
 * nf_tables_trace.c, and with nf_tables_commit() of nf_tables_api.c, which replaces rules under
 * packets, of 6.1.192, 6.12.117 and 7.3.4.
 */
#ifndef _IPTTRACE_COMPAT_NFT_H
#define _IPTTRACE_COMPAT_NFT_H

#include <linux/netfilter.h>
#include <linux/static_key.h>
#include <linux/string.h>
#include <linux/utsname.h>
#include <net/netfilter/nf_tables.h>
#include <net/netfilter/nf_tables_core.h>
#include <net/netns/generic.h>

#include "compat/behind.h"
#include "features.h"

/* True if the walk was compared with sources of this kernel's series. */
static inline bool ipttrace_nft_compared(void)
{
	static const char *const series[] = { "6.1.", "6.12.", "7.3." };
	const char *release = init_utsname()->release;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(series); i++)
		if (strstarts(release, series[i]))
			return true;
	return false;
}

/**
 * struct ipttrace_nft - symbols of nf_tables that it does not export
 * @cmp_fast: operations without an eval function, which its loop runs itself
 * @cmp16_fast: the same
 * @bitwise_fast: the same
 * @payload_fast: operations whose eval function is the slow way
 * @trace_enabled: on while a rule sets nftrace in any namespace
 * @net_id: where base_seq is, on kernels that do not have it in struct net; else unused
 *
 * Written before nft_do_chain() is redirected, again if the module is loaded again.
 */
struct ipttrace_nft {
	const struct nft_expr_ops *cmp_fast;
	const struct nft_expr_ops *cmp16_fast;
	const struct nft_expr_ops *bitwise_fast;
	const struct nft_expr_ops *payload_fast;
	const struct static_key *trace_enabled;
	const unsigned int *net_id;
};

/* The generation of a namespace's ruleset. Meanwhile a commit may be raising it. */
static inline unsigned int ipttrace_nft_base_seq(const struct ipttrace_nft *nft,
						 const struct net *net)
{
#ifdef IPTTRACE_HAVE_NETNS_NFT_BASE_SEQ
	return READ_ONCE(net->nft.base_seq);
#else
	const struct nftables_pernet *pernet = net_generic(net, *nft->net_id);

	return READ_ONCE(pernet->base_seq);
#endif
}

/*
 * Before v6.4 a commit writes over the end marker of rules that packets still walk through: only
 * the size tells where they end.
 */
static __always_inline bool ipttrace_nft_at_end(const struct nft_rule_dp *rule,
						const void *end)
{
#ifdef IPTTRACE_HAVE_NFT_RULE_DP_LAST
	return rule->is_last;
#else
	return (const void *)rule >= end;
#endif
}

static __always_inline const void *
ipttrace_nft_end(const struct nft_rule_blob *blob)
{
	return blob->data + blob->size;
}

/* Where the network header lies that expressions see. */
static __always_inline const unsigned char *
ipttrace_nft_network_header(const struct nft_pktinfo *pkt)
{
#ifdef IPTTRACE_HAVE_NFT_PKTINFO_NHOFF
	return skb_network_header(pkt->skb) + pkt->nhoff;
#else
	return skb_network_header(pkt->skb);
#endif
}

/* Whether the fast way reads transport headers of the packet. */
static __always_inline bool
ipttrace_nft_has_transport(const struct nft_pktinfo *pkt)
{
#ifdef IPTTRACE_HAVE_NFT_PKTINFO_NHOFF
	if (pkt->fragoff)
		return false;
#endif
	return pkt->flags & NFT_PKTINFO_L4PROTO;
}

IPTTRACE_BEHIND(unsigned int, nft_do_chain, struct nft_pktinfo *pkt,
		void *chain);

/* --- messages of `nft monitor trace`, for rules of others ---------------------------------- */

#ifdef IPTTRACE_HAVE_NFT_TRACE_NOTIFY_PKT

IPTTRACE_BEHIND(void, nft_trace_init, struct nft_traceinfo *info,
		const struct nft_pktinfo *pkt, const struct nft_chain *chain);
IPTTRACE_BEHIND(void, nft_trace_notify, const struct nft_pktinfo *pkt,
		const struct nft_verdict *verdict,
		const struct nft_rule_dp *rule, struct nft_traceinfo *info);

static inline void ipttrace_nft_trace_init(struct nft_traceinfo *info,
					   const struct nft_pktinfo *pkt,
					   const struct nft_verdict *verdict,
					   const struct nft_chain *base)
{
	ipttrace_behind_nft_trace_init(info, pkt, base);
}

static inline void ipttrace_nft_trace_notify(struct nft_traceinfo *info,
					     const struct nft_pktinfo *pkt,
					     const struct nft_verdict *verdict,
					     const struct nft_chain *chain,
					     const struct nft_rule_dp *rule)
{
	ipttrace_behind_nft_trace_notify(pkt, verdict, rule, info);
}

/*
 * The type of the message of a verdict. Sets @keep if whether the packet is traced is as known
 * before: it may be gone.
 */
static inline enum nft_trace_types ipttrace_nft_trace_type(int code, bool *keep)
{
	*keep = (code & NF_VERDICT_MASK) == NF_STOLEN;
	return NFT_TRACETYPE_RULE;
}

#else

IPTTRACE_BEHIND(void, nft_trace_init, struct nft_traceinfo *info,
		const struct nft_pktinfo *pkt,
		const struct nft_verdict *verdict,
		const struct nft_chain *chain);
IPTTRACE_BEHIND(void, nft_trace_notify, struct nft_traceinfo *info);

static inline void ipttrace_nft_trace_init(struct nft_traceinfo *info,
					   const struct nft_pktinfo *pkt,
					   const struct nft_verdict *verdict,
					   const struct nft_chain *base)
{
	ipttrace_behind_nft_trace_init(info, pkt, verdict, base);
}

static inline void ipttrace_nft_trace_notify(struct nft_traceinfo *info,
					     const struct nft_pktinfo *pkt,
					     const struct nft_verdict *verdict,
					     const struct nft_chain *chain,
					     const struct nft_rule_dp *rule)
{
	info->chain = chain;
	info->rule = rule;
	ipttrace_behind_nft_trace_notify(info);
}

static inline enum nft_trace_types ipttrace_nft_trace_type(int code, bool *keep)
{
	bool returns = code == NFT_CONTINUE || code == NFT_RETURN;

	*keep = returns || code == NF_STOLEN;
	return returns ? NFT_TRACETYPE_RETURN : NFT_TRACETYPE_RULE;
}

#endif

#endif /* _IPTTRACE_COMPAT_NFT_H */
