// SPDX-License-Identifier: GPL-2.0
/*
 * The generation of a namespace's ruleset lies in struct net, not behind a pernet id (v6.17, and
 * stable ones)
 */
#include <net/net_namespace.h>

unsigned int probe(const struct net *net);

unsigned int probe(const struct net *net)
{
	return net->nft.base_seq;
}
