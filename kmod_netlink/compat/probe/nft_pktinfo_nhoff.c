// SPDX-License-Identifier: GPL-2.0
/* The network header that expressions see need not be the skb's (v6.19). */
#include <net/netfilter/nf_tables.h>

unsigned int probe(const struct nft_pktinfo *pkt);

unsigned int probe(const struct nft_pktinfo *pkt)
{
	return pkt->nhoff;
}
