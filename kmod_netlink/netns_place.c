// SPDX-License-Identifier: GPL-2.0
/*
 * Links that are in one network namespace or in all, without keeping any: which it is, and that it
 * goes.
 */
#include <net/net_namespace.h>
#include <net/netlink.h>

#include "hook.h"
#include "link.h"
#include "message.h"
#include "netns_place.h"

/* The namespace of a link of any kind: NULL unless its kind has such places, and it is attached. */
static struct ipttrace_netns_place *place_of(const struct ipttrace_link *link)
{
	return ipttrace_hooks[link->hook]->in_netns ? link->place : NULL;
}

/**
 * ipttrace_netns_place_get - take the network namespace of a request
 * @place: zeroed
 * @fd: attribute with its file descriptor; NULL for all namespaces
 * @extack: extended ACK, set on error
 *
 * Return: 0, then the caller has a reference to the namespace in @place, if there is one; or the
 * errno of get_net_ns_by_fd().
 */
int ipttrace_netns_place_get(struct ipttrace_netns_place *place,
			     const struct nlattr *fd,
			     struct netlink_ext_ack *extack)
{
	struct net *net;

	if (!fd)
		return 0;
	net = get_net_ns_by_fd(nla_get_u32(fd));
	if (IS_ERR(net)) {
		NL_SET_ERR_MSG_ATTR(
			extack, fd,
			"the file descriptor is not of a network namespace");
		return PTR_ERR(net);
	}
	place->net = net;
	place->netns = net->ns.inum;
	place->cookie = net->net_cookie;
	return 0;
}

/**
 * ipttrace_netns_place_put_size - most bytes that ipttrace_netns_place_put() adds
 */
size_t ipttrace_netns_place_put_size(void)
{
	return 2 * nla_total_size(sizeof(u32)) + nla_total_size(sizeof(u64));
}

/**
 * ipttrace_netns_place_put - add the namespace of a link to a message
 * @msg: the message
 * @place: the place
 *
 * Context: with ipttrace_lock held.
 * Return: 0 or -EMSGSIZE.
 */
int ipttrace_netns_place_put(struct sk_buff *msg,
			     const struct ipttrace_netns_place *place)
{
	if (place->cookie &&
	    (nla_put_u32(msg, IPTTRACE_A_NETNS, place->netns) ||
	     ipttrace_put_u64(msg, IPTTRACE_A_NETNS_COOKIE, place->cookie)))
		return -EMSGSIZE;
	if (place->gone && nla_put_u32(msg, IPTTRACE_A_GONE, place->gone))
		return -EMSGSIZE;
	return 0;
}

/* --- namespaces that disappear ------------------------------------------------------------- */

static bool in_namespace(const struct ipttrace_link *link, const void *net)
{
	const struct ipttrace_netns_place *place = place_of(link);

	return place && place->net == net;
}

static void link_gone(struct ipttrace_link *link)
{
	struct ipttrace_netns_place *place = link->place;

	place->gone = IPTTRACE_GONE_NETNS;
	spin_lock(&ipttrace_links_index);
	place->net = NULL;
	spin_unlock(&ipttrace_links_index);
	ipttrace_links_sequence++;
	ipttrace_notify(link, IPTTRACE_CMD_LINK_CHANGED, 0, false);
}

static void __net_exit namespace_leaves(struct net *net)
{
	struct ipttrace_link *link;

	if (!ipttrace_links_any(in_namespace, net))
		return;
	mutex_lock(&ipttrace_lock);
	list_for_each_entry(link, &ipttrace_links, list)
		if (in_namespace(link, net))
			link_gone(link);
	mutex_unlock(&ipttrace_lock);
}

static struct pernet_operations namespace_operations = {
	.pre_exit = namespace_leaves,
};

/**
 * ipttrace_netns_places_init - register for namespaces that disappear
 *
 * Return: 0 or an errno.
 */
int ipttrace_netns_places_init(void)
{
	return register_pernet_subsys(&namespace_operations);
}

/**
 * ipttrace_netns_places_exit - undo ipttrace_netns_places_init(); no link may be left
 */
void ipttrace_netns_places_exit(void)
{
	unregister_pernet_subsys(&namespace_operations);
}
