// SPDX-License-Identifier: GPL-2.0
/* nft_trace_notify() takes packet, verdict and rule, which nft_traceinfo held before (v6.4). */
#include <net/netfilter/nf_tables.h>

void probe(const struct nft_pktinfo *pkt, const struct nft_verdict *verdict,
	   const struct nft_rule_dp *rule, struct nft_traceinfo *info);

void probe(const struct nft_pktinfo *pkt, const struct nft_verdict *verdict,
	   const struct nft_rule_dp *rule, struct nft_traceinfo *info)
{
	nft_trace_notify(pkt, verdict, rule, info);
}
