// SPDX-License-Identifier: GPL-2.0
/* The struct behind the priv of NAT's hooks is in a header (7.3, and not 6.12) */
#include <linux/netfilter.h>

struct nf_hook_entries *probe(const struct nf_nat_lookup_hook_priv *priv);

struct nf_hook_entries *probe(const struct nf_nat_lookup_hook_priv *priv)
{
	return priv->entries;
}
