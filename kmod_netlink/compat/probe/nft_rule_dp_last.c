// SPDX-License-Identifier: GPL-2.0
/*
 * The end of a chain's rules is a rule of its own, which stays until the last reader has gone
 * (v6.4).
 */
#include <net/netfilter/nf_tables.h>

const struct nft_chain *probe(const struct nft_rule_dp_last *last);

const struct nft_chain *probe(const struct nft_rule_dp_last *last)
{
	return last->chain;
}
