// SPDX-License-Identifier: GPL-2.0
/*
 * Links that are in one network namespace or in all, without keeping any: which it is, and that it
 * goes.
 */
#include <linux/slab.h>
#include <net/net_namespace.h>
#include <net/netlink.h>

#include "hook.h"
#include "link.h"
#include "message.h"
#include "netns_place.h"
#include "verify.h"

/* The namespace of a link of any kind: NULL unless its kind has such places, and it is attached. */
static struct ipttrace_netns_place *place_of(const struct ipttrace_link *link)
{
	return ipttrace_hooks[link->hook]->in_netns ? link->place : NULL;
}

/* --- requests ------------------------------------------------------------------------------ */

/**
 * struct netns_spec - place of such a link in an attach request
 * @place: the place, until the link takes it
 * @net: a reference to its network namespace, which cannot go while the request is handled; or NULL
 * @blamed: attribute to blame where the walk of this kind of hook is not verified
 *
 * Owned by the request, as everything in its struct ipttrace_link_spec.
 */
struct netns_spec {
	struct ipttrace_netns_place *place;
	struct net *net;
	const struct nlattr *blamed;
};

/* Takes the network namespace of a request; all of them if it gives none. */
static int netns_get(struct netns_spec *spec, const struct nlattr *fd,
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
	spec->net = net;
	spec->place->net = net;
	spec->place->netns = net->ns.inum;
	spec->place->cookie = net->net_cookie;
	return 0;
}

/**
 * ipttrace_netns_parse - store the place in an attach request
 * @link_spec: the request
 * @size: bytes of the place
 * @fill: stores the rest of it
 * @attrs: attributes of the request
 * @extack: extended ACK, set on error
 *
 * Return: 0, then ipttrace_netns_spec_release() must follow; -ENOMEM, or an errno of @fill or of
 * get_net_ns_by_fd().
 */
int ipttrace_netns_parse(struct ipttrace_link_spec *link_spec, size_t size,
			 ipttrace_netns_fill fill, struct nlattr **attrs,
			 struct netlink_ext_ack *extack)
{
	const struct nlattr *fd = attrs[IPTTRACE_A_NETNS_FD];
	struct netns_spec *spec;
	int err;

	spec = kzalloc(sizeof(*spec), GFP_KERNEL);
	if (!spec)
		return -ENOMEM;
	err = -ENOMEM;
	spec->place = kzalloc(size, GFP_KERNEL);
	if (!spec->place)
		goto err_free;
	err = fill(spec->place, link_spec->family, attrs, extack);
	if (!err)
		err = netns_get(spec, fd, extack);
	if (err)
		goto err_free;
	spec->blamed = fd ?: attrs[IPTTRACE_A_HOOK];
	link_spec->place = spec;
	return 0;

err_free:
	kfree(spec->place);
	kfree(spec);
	return err;
}

/**
 * ipttrace_netns_spec_release - release the place in a request, unless a link has taken it
 * @link_spec: the request
 */
void ipttrace_netns_spec_release(struct ipttrace_link_spec *link_spec)
{
	struct netns_spec *spec = link_spec->place;

	if (spec->net)
		put_net(spec->net);
	kfree(spec->place);
	kfree(spec);
}

/**
 * ipttrace_netns_spec_place - the place in a request that no link has taken yet
 * @link_spec: the request
 */
const struct ipttrace_netns_place *
ipttrace_netns_spec_place(const struct ipttrace_link_spec *link_spec)
{
	const struct netns_spec *spec = link_spec->place;

	return spec->place;
}

/**
 * ipttrace_netns_attach - attach a link whose packets we walk with, if that is permitted
 * @link: the link, which takes the place of the request
 * @link_spec: the request
 * @publish: puts the sets of all links at this kind of hook in force, returns those before
 * @extack: extended ACK, set on error
 *
 * Context: with ipttrace_lock held; waits for a grace period.
 * Return: 0; -ENOMEM, or an errno of ipttrace_verify_permits().
 */
int ipttrace_netns_attach(
	struct ipttrace_link *link, const struct ipttrace_link_spec *link_spec,
	struct ipttrace_sets *(*publish)(struct ipttrace_sets *sets),
	struct netlink_ext_ack *extack)
{
	struct netns_spec *spec = link_spec->place;
	struct ipttrace_sets *sets;
	int err;

	lockdep_assert_held(&ipttrace_lock);
	err = ipttrace_verify_permits(link->hook, spec->place->cookie,
				      spec->blamed, extack);
	if (err)
		return err;
	sets = ipttrace_links_sets(link->hook, GFP_KERNEL);
	if (IS_ERR(sets))
		return PTR_ERR(sets);
	/* packets read it with the sets */
	spin_lock(&ipttrace_links_index);
	link->place = spec->place;
	spin_unlock(&ipttrace_links_index);
	spec->place = NULL;
	sets = publish(sets);
	synchronize_rcu();
	kfree(sets);
	return 0;
}

/* --- messages ------------------------------------------------------------------------------ */

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
