// SPDX-License-Identifier: GPL-2.0
/*
 * Functions of ours that do nothing, at netfilter hooks. The kernel passes a hook over where no
 * function is registered, so that a link at the spine would not see packets there. As long as there
 * is a link, each of its hooks has a placeholder, in its namespace or in all of them, but for the
 * hooks of devices.
 *
 * When a function is unregistered, netfilter drops all packets of the namespace that wait in
 * queues (nf_queue_nf_hook_drop()). So nothing is changed in a namespace that has queues
 * (queues.c): it gets no placeholders, and keeps those it has, until the queues have gone, or the
 * namespace, or this module.
 */
#include <linux/kernel.h>
#include <linux/limits.h>
#include <linux/mutex.h>
#include <linux/netfilter_arp.h>
#include <linux/workqueue.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>

#include "link.h"
#include "placeholders.h"
#include "queues.h"
#include "spine_follow.h"

/* A namespace that has not what is wanted is looked at again after so many seconds. */
#define PATIENCE (10 * HZ)

/* Behind others, so that no packet that is dropped pays for it. */
#define PLACEHOLDER(family, number)                           \
	{                                                     \
		.hook = ipttrace_placeholder, .pf = (family), \
		.hooknum = (number), .priority = INT_MAX,     \
	}

/* A placeholder for each hook, the same in all namespaces. A mask has a bit for each. */
static const struct nf_hook_ops placeholder_ops[] = {
	PLACEHOLDER(NFPROTO_IPV4, NF_INET_PRE_ROUTING),
	PLACEHOLDER(NFPROTO_IPV4, NF_INET_LOCAL_IN),
	PLACEHOLDER(NFPROTO_IPV4, NF_INET_FORWARD),
	PLACEHOLDER(NFPROTO_IPV4, NF_INET_LOCAL_OUT),
	PLACEHOLDER(NFPROTO_IPV4, NF_INET_POST_ROUTING),
	PLACEHOLDER(NFPROTO_IPV6, NF_INET_PRE_ROUTING),
	PLACEHOLDER(NFPROTO_IPV6, NF_INET_LOCAL_IN),
	PLACEHOLDER(NFPROTO_IPV6, NF_INET_FORWARD),
	PLACEHOLDER(NFPROTO_IPV6, NF_INET_LOCAL_OUT),
	PLACEHOLDER(NFPROTO_IPV6, NF_INET_POST_ROUTING),
#ifdef CONFIG_NETFILTER_FAMILY_ARP
	PLACEHOLDER(NFPROTO_ARP, NF_ARP_IN),
	PLACEHOLDER(NFPROTO_ARP, NF_ARP_OUT),
	PLACEHOLDER(NFPROTO_ARP, NF_ARP_FORWARD),
#endif
#ifdef CONFIG_NETFILTER_FAMILY_BRIDGE
	PLACEHOLDER(NFPROTO_BRIDGE, NF_INET_LOCAL_IN),
	PLACEHOLDER(NFPROTO_BRIDGE, NF_INET_FORWARD),
	PLACEHOLDER(NFPROTO_BRIDGE, NF_INET_LOCAL_OUT),
	PLACEHOLDER(NFPROTO_BRIDGE, NF_INET_POST_ROUTING),
#endif
};

/**
 * struct placeholders - the placeholders of a network namespace
 * @list: in namespaces
 * @net: the namespace, which cannot go while it is listed
 * @here: those that links in this namespace alone want, a bit each
 * @registered: those that are registered, a bit each
 *
 * Its memory is the namespace's. Protected by placeholders_lock.
 */
struct placeholders {
	struct list_head list;
	struct net *net;
	u32 here;
	u32 registered;
};

/*
 * Inside the lock of the spine's arming, outside ipttrace_links_index. Never with ipttrace_lock:
 * namespaces that come and go wait for this one, and must not wait for grace periods.
 */
static DEFINE_MUTEX(placeholders_lock);
/* Namespaces that have come and do not go yet; under placeholders_lock. */
static LIST_HEAD(namespaces);
/* Placeholders that links in all namespaces want; under placeholders_lock. */
static u32 everywhere;
/* Place of a link that is about to be attached, if there is one; under placeholders_lock. */
static struct ipttrace_spine_place pending;
static bool is_pending;
static unsigned int placeholders_id;

static void settle_later(struct work_struct *work);
static DECLARE_DELAYED_WORK(settle_work, settle_later);

unsigned int ipttrace_placeholder(void *priv, struct sk_buff *skb,
				  const struct nf_hook_state *state)
{
	return NF_ACCEPT;
}

/* --- registering --------------------------------------------------------------------------- */

/* The placeholders that a link at this place wants. */
static u32 wanted_by(const struct ipttrace_spine_place *place)
{
	u32 wanted = 0;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(placeholder_ops); i++)
		if (place->hooks[placeholder_ops[i].pf] &
		    BIT(placeholder_ops[i].hooknum))
			wanted |= BIT(i);
	return wanted;
}

/* Under ipttrace_links_index, if it is a link's: its namespace does not go meanwhile. */
static void want(const struct ipttrace_spine_place *place)
{
	const struct net *net = place->netns.net;
	struct placeholders *in;

	if (!place->netns.cookie) {
		everywhere |= wanted_by(place);
	} else if (net) {
		in = net_generic(net, placeholders_id);
		in->here |= wanted_by(place);
	}
}

/* Goes through all links: none is the one that is looked for. */
static bool link_wants(const struct ipttrace_link *link, const void *what)
{
	if (link->hook == IPTTRACE_HOOK_SPINE && link->place)
		want(link->place);
	return false;
}

/* Finds what links want, the coming one included. */
static void find_wanted(void)
{
	struct placeholders *in;

	everywhere = 0;
	list_for_each_entry(in, &namespaces, list)
		in->here = 0;
	ipttrace_links_any(link_wants, NULL);
	if (is_pending)
		want(&pending);
}

/* Registers what is wanted. False if any could not be, for lack of memory. */
static bool register_in(struct placeholders *in, u32 missing)
{
	unsigned long mask = missing;
	bool all = true;
	unsigned int i;
	int err;

	for_each_set_bit(i, &mask, ARRAY_SIZE(placeholder_ops)) {
		err = nf_register_net_hook(in->net, &placeholder_ops[i]);
		if (!err)
			in->registered |= BIT(i);
		/* with too many functions there is no need for one more */
		else if (err != -E2BIG)
			all = false;
	}
	return all;
}

static void unregister_one(struct placeholders *in, unsigned int i)
{
	nf_unregister_net_hook(in->net, &placeholder_ops[i]);
	in->registered &= ~BIT(i);
}

/* Gives a namespace the placeholders that are wanted. False if that has to wait. */
static bool settle_in(struct placeholders *in)
{
	u32 wanted = everywhere | in->here;
	unsigned long excess = in->registered & ~wanted;
	u32 missing = wanted & ~in->registered;
	unsigned int i;

	/* the first queue may come at any time */
	for_each_set_bit(i, &excess, ARRAY_SIZE(placeholder_ops)) {
		if (ipttrace_queues_may_hold(in->net))
			return false;
		unregister_one(in, i);
	}
	if (!missing)
		return true;
	return !ipttrace_queues_may_hold(in->net) && register_in(in, missing);
}

static void settle_again(void)
{
	queue_delayed_work(system_unbound_wq, &settle_work, PATIENCE);
}

static void settle(void)
{
	struct placeholders *in;
	bool settled = true;

	lockdep_assert_held(&placeholders_lock);
	find_wanted();
	ipttrace_queues_learn();
	list_for_each_entry(in, &namespaces, list)
		settled &= settle_in(in);
	if (!settled)
		settle_again();
}

static void settle_later(struct work_struct *work)
{
	mutex_lock(&placeholders_lock);
	settle();
	mutex_unlock(&placeholders_lock);
}

/**
 * ipttrace_placeholders_begin - have functions at the hooks of a link that is about to be attached
 * @coming: its place
 *
 * ipttrace_placeholders_end() must follow; until then a reference to its namespace is held.
 *
 * Context: process, may sleep, without ipttrace_lock.
 */
void ipttrace_placeholders_begin(const struct ipttrace_spine_place *coming)
{
	mutex_lock(&placeholders_lock);
	/* the link's own may go before ipttrace_placeholders_end() */
	pending = *coming;
	is_pending = true;
	settle();
	mutex_unlock(&placeholders_lock);
}

/**
 * ipttrace_placeholders_end - end ipttrace_placeholders_begin(), whether the link was made or not
 */
void ipttrace_placeholders_end(void)
{
	mutex_lock(&placeholders_lock);
	is_pending = false;
	settle();
	mutex_unlock(&placeholders_lock);
}

/**
 * ipttrace_placeholders_release - have those unregistered that no link wants; does not wait
 */
void ipttrace_placeholders_release(void)
{
	mod_delayed_work(system_unbound_wq, &settle_work, 0);
}

/* --- namespaces ---------------------------------------------------------------------------- */

static int __net_init namespace_comes(struct net *net)
{
	struct placeholders *in = net_generic(net, placeholders_id);

	in->net = net;
	mutex_lock(&placeholders_lock);
	list_add_tail(&in->list, &namespaces);
	if (!settle_in(in))
		settle_again();
	mutex_unlock(&placeholders_lock);
	return 0;
}

/*
 * Called when a namespace goes, and for all that there are when the module does. What waits in
 * queues is dropped, now or by whoever goes next.
 */
static void __net_exit namespace_leaves(struct net *net)
{
	struct placeholders *in = net_generic(net, placeholders_id);
	unsigned long all;
	unsigned int i;

	mutex_lock(&placeholders_lock);
	list_del(&in->list);
	all = in->registered;
	for_each_set_bit(i, &all, ARRAY_SIZE(placeholder_ops))
		unregister_one(in, i);
	mutex_unlock(&placeholders_lock);
}

static struct pernet_operations namespace_operations = {
	.init = namespace_comes,
	.pre_exit = namespace_leaves,
	.id = &placeholders_id,
	.size = sizeof(struct placeholders),
};

/**
 * ipttrace_placeholders_init - know the namespaces that there are, and those to come
 *
 * Return: 0 or an errno.
 */
int ipttrace_placeholders_init(void)
{
	BUILD_BUG_ON(ARRAY_SIZE(placeholder_ops) > BITS_PER_TYPE(u32));
	ipttrace_queues_init();
	return register_pernet_subsys(&namespace_operations);
}

/**
 * ipttrace_placeholders_exit - undo ipttrace_placeholders_init(); no link may be left
 *
 * Unregisters those that were kept, too. No packet is in a placeholder when it returns.
 */
void ipttrace_placeholders_exit(void)
{
	cancel_delayed_work_sync(&settle_work);
	/* waits for a grace period between its parts */
	unregister_pernet_subsys(&namespace_operations);
	/* a namespace may have come in between, and had to wait for a queue */
	cancel_delayed_work_sync(&settle_work);
}
