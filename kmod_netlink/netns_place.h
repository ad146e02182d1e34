/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_NETNS_PLACE_H
#define _IPTTRACE_NETNS_PLACE_H

#include <linux/netlink.h>
#include <linux/skbuff.h>

struct ipttrace_link;
struct ipttrace_link_spec;
struct ipttrace_sets;
struct net;

/**
 * struct ipttrace_netns_place - network namespace of a link that is in one, or in all
 * @cookie: its cookie, which no other gets; 0 for all
 * @net: the namespace; NULL if the link is in all, or once @gone
 * @netns: its inode number, or 0
 * @gone: enum ipttrace_gone once no packet can come any more, else 0
 *
 * The first member of the place of each link of a kind whose operations say so. @cookie is
 * constant, and all that packets read. The rest is under ipttrace_lock; @net is changed under
 * ipttrace_links_index as well, since the notifier searches for it. No reference to the namespace
 * is held: packets know it by its cookie.
 */
struct ipttrace_netns_place {
	u64 cookie;
	struct net *net;
	u32 netns;
	u32 gone;
};

/*
 * Stores what else a request says of a place, which is zeroed. Returns 0, or an errno with the
 * extended ACK set.
 */
typedef int (*ipttrace_netns_fill)(struct ipttrace_netns_place *place,
				   u32 family, struct nlattr **attrs,
				   struct netlink_ext_ack *extack);

int ipttrace_netns_places_init(void);
void ipttrace_netns_places_exit(void);
int ipttrace_netns_parse(struct ipttrace_link_spec *link_spec, size_t size,
			 ipttrace_netns_fill fill, struct nlattr **attrs,
			 struct netlink_ext_ack *extack);
void ipttrace_netns_spec_release(struct ipttrace_link_spec *link_spec);
const struct ipttrace_netns_place *
ipttrace_netns_spec_place(const struct ipttrace_link_spec *link_spec);
int ipttrace_netns_attach(
	struct ipttrace_link *link, const struct ipttrace_link_spec *link_spec,
	struct ipttrace_sets *(*publish)(struct ipttrace_sets *sets),
	struct netlink_ext_ack *extack);
size_t ipttrace_netns_place_put_size(void);
int ipttrace_netns_place_put(struct sk_buff *msg,
			     const struct ipttrace_netns_place *place);

#endif /* _IPTTRACE_NETNS_PLACE_H */
