/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_NF_H
#define _IPTTRACE_NF_H

#include <linux/bits.h>
#include <linux/netfilter.h>
#include <linux/netlink.h>

#include "ipttrace_netlink.h"

struct ipttrace_link;
struct ipttrace_set;

#define IPTTRACE_ARMED_NF BIT(2)

/**
 * struct ipttrace_nf - the place of an nf link
 * @ops: what is registered at the hook; its dev is NULL unless it is an ingress hook
 * @active: the link's program set, as packets find it; written under ipttrace_lock
 * @net: the network namespace, NULL once @gone
 * @netns: its inode number
 * @netns_cookie: its cookie
 * @mode: enum ipttrace_nf_mode
 * @report_drops: whether each packet that the link drops is an event
 * @gone: enum ipttrace_gone once the link is at no hook any more, else 0
 * @ifindex: of the device, or 0
 * @ifname: its name, kept up to date while it is there
 *
 * Owned by the link, freed with it a grace period after @ops left the hook. Packets read @ops,
 * @active, @mode and @report_drops, which are constant but for @active; the rest is under
 * ipttrace_lock. There is no reference to namespace and device: both tell when they go, before
 * they do, and then @ops is unregistered and @net and the device are forgotten.
 */
struct ipttrace_nf {
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

/* What an attach request says of the place; @net is a reference of whoever holds the spec. */
struct ipttrace_nf_spec {
	struct net *net;
	u32 hooknum;
	s32 priority;
	u32 mode;
	u32 ifindex;
	const struct nlattr *ifindex_attr;
};

int ipttrace_nf_init(void);
void ipttrace_nf_exit(void);
int ipttrace_nf_parse(struct ipttrace_nf_spec *spec, u32 family, u32 flags,
		      struct nlattr **attrs, struct netlink_ext_ack *extack);
void ipttrace_nf_spec_release(struct ipttrace_nf_spec *spec);
int ipttrace_nf_attach(struct ipttrace_link *link,
		       const struct ipttrace_nf_spec *spec,
		       struct netlink_ext_ack *extack);
void ipttrace_nf_detach(struct ipttrace_nf *nf);

#endif /* _IPTTRACE_NF_H */
