/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_NF_PACKET_H
#define _IPTTRACE_NF_PACKET_H

#include <linux/if.h>
#include <linux/netfilter.h>

#include "program.h"

/**
 * struct nf_place - the place of an nf link
 * @ops: the registered hook; its dev is NULL unless it is an ingress hook
 * @active: the link's program set, as packets find it; written under ipttrace_lock
 * @net: the network namespace, NULL once @gone
 * @netns: its inode number
 * @netns_cookie: its cookie
 * @mode: enum ipttrace_nf_mode
 * @report_drops: whether each packet that the link drops is an event
 * @gone: enum ipttrace_gone once the link is at no hook any more, else 0
 * @ifindex: index of the device, or 0
 * @ifname: its name, kept up to date while it is there
 *
 * Owned by the link, freed with it a grace period after @ops left the hook. Packets read @ops,
 * @active, @mode and @report_drops, which are constant except for @active. The rest is under
 * ipttrace_lock. @net and the dev of @ops are changed under ipttrace_links_index as well, since
 * notifiers search for them. No reference to the namespace and the device is held. Notifiers run
 * before either goes: then @ops is unregistered, and @net and the dev of @ops are cleared.
 */
struct nf_place {
	struct nf_hook_ops ops;
	struct ipttrace_set __rcu *active;
	struct net *net;
	u32 netns;
	u64 netns_cookie;
	u32 mode;
	bool report_drops;
	u32 gone;
	u32 ifindex;
	char ifname[IFNAMSIZ];
};

unsigned int ipttrace_nf_packet(void *priv, struct sk_buff *skb,
				const struct nf_hook_state *state);

#endif /* _IPTTRACE_NF_PACKET_H */
