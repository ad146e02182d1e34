/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Knowledge about versions of nf_nat: when it consults which chains.
 *
 * Compared with nf_nat_inet_fn() and nf_nat_register_fn() of nf_nat_core.c, and with their callers
 * in nf_nat_proto.c, of 6.1.192, 6.12.117 and 7.3.4.
 */
#ifndef _IPTTRACE_COMPAT_NAT_H
#define _IPTTRACE_COMPAT_NAT_H

#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/netfilter/nf_nat.h>

#include "compat/behind.h"
#include "features.h"

IPTTRACE_BEHIND(unsigned int, nf_nat_inet_fn, void *priv, struct sk_buff *skb,
		const struct nf_hook_state *state);

#ifndef IPTTRACE_HAVE_NF_NAT_LOOKUP_HOOK_PRIV
/* The beginning of nf_nat_core.c's own struct. */
struct nf_nat_lookup_hook_priv {
	struct nf_hook_entries __rcu *entries;
};
#endif

/* The chains that nf_nat_inet_fn() with this @priv consults; NULL for none. */
static inline const struct nf_hook_entries *ipttrace_nat_chains(void *priv)
{
	const struct nf_nat_lookup_hook_priv *lookup = priv;

	return rcu_dereference(lookup->entries);
}

/* True if nf_nat_inet_fn() does not consult them, as it knows the packet's connection. */
static inline bool ipttrace_nat_known(const struct sk_buff *skb,
				      const struct nf_hook_state *state)
{
	enum ip_conntrack_info info;
	const struct nf_conn *ct = nf_ct_get(skb, &info);

	if (!ct)
		return false;
#if IS_ENABLED(CONFIG_NET_L3_MASTER_DEV)
	/* there is no NAT there: the packet comes again, at the device below */
	if (state->hook == NF_INET_POST_ROUTING &&
	    netif_is_l3_master(state->out))
		return false;
#endif
	switch (info) {
	case IP_CT_NEW:
	case IP_CT_RELATED:
	case IP_CT_RELATED_REPLY:
		return nf_nat_initialized(ct, HOOK2MANIP(state->hook));
	default:
		return true;
	}
}

#endif /* _IPTTRACE_COMPAT_NAT_H */
