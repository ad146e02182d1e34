// SPDX-License-Identifier: GPL-2.0
/*
 * Whether the walks through nftables' chains (walk.c) and along the spine (spine_walk.c) may run.
 * The kernel's headers do not show the loops that they stand in for, so they run for everybody only
 * where somebody has verified on this very kernel that they do the same. Until then they run in
 * network namespaces of the verifier alone. The one through chains runs for nobody where the
 * kernel's structures do not lie where it would find them.
 */
#include <linux/netlink.h>
#include <net/net_namespace.h>

#include "compat/nft.h"
#include "hook.h"
#include "link.h"
#include "nft_layout.h"
#include "verify.h"

/**
 * struct trial - a network namespace of a verifier
 * @netns_cookie: its cookie, which no other namespace gets
 * @portid: the verifier's socket; 0 if the place is free
 */
struct trial {
	u64 netns_cookie;
	u32 portid;
};

/* Under ipttrace_links_index, since a closing socket is not to wait for ipttrace_lock. */
static struct trial trials[IPTTRACE_MAX_TRIALS];
/* Under ipttrace_lock. */
static enum ipttrace_walk states[IPTTRACE_HOOKS] = {
	[IPTTRACE_HOOK_CHAIN] = IPTTRACE_WALK_UNVERIFIED,
	[IPTTRACE_HOOK_SPINE] = IPTTRACE_WALK_UNVERIFIED,
};

/* Under ipttrace_lock: whoever verified that of chains trusts it although not all was compared. */
static bool although_not_compared;

/* The trial in a namespace by a socket; by any socket if @portid is 0. NULL if there is none. */
static struct trial *find_trial(u64 netns_cookie, u32 portid)
{
	unsigned int i;

	lockdep_assert_held(&ipttrace_links_index);
	for (i = 0; i < ARRAY_SIZE(trials); i++)
		if (trials[i].portid &&
		    trials[i].netns_cookie == netns_cookie &&
		    (!portid || trials[i].portid == portid))
			return &trials[i];
	return NULL;
}

static struct trial *free_trial(void)
{
	unsigned int i;

	lockdep_assert_held(&ipttrace_links_index);
	for (i = 0; i < ARRAY_SIZE(trials); i++)
		if (!trials[i].portid)
			return &trials[i];
	return NULL;
}

static bool is_trial(u64 netns_cookie)
{
	bool found;

	spin_lock(&ipttrace_links_index);
	found = find_trial(netns_cookie, 0);
	spin_unlock(&ipttrace_links_index);
	return found;
}

/* Refuses with a sentence of nft_layout.c, which are constants. */
static int refuse(const char *sentence, const struct nlattr *attr,
		  struct netlink_ext_ack *extack)
{
	if (extack) {
		extack->_msg = sentence;
		NL_SET_BAD_ATTR(extack, attr);
	}
	return -EOPNOTSUPP;
}

/* Refuses a chain link where the structures of nf_tables do not permit it. */
static int layouts_permit(u64 netns_cookie, const struct nlattr *attr,
			  struct netlink_ext_ack *extack)
{
	enum ipttrace_layout layout;
	const char *why;

	layout = ipttrace_nft_layout(&why);
	if (layout == IPTTRACE_LAYOUT_DIFFERS)
		return refuse(why, attr, extack);
	if (layout == IPTTRACE_LAYOUT_UNKNOWN && !although_not_compared &&
	    !(netns_cookie && is_trial(netns_cookie)))
		return refuse(why, attr, extack);
	return 0;
}

/**
 * ipttrace_verify_permits - check whether a link may be made whose packets we walk with
 * @hook: kind of hook: chains or the spine
 * @netns_cookie: cookie of its network namespace, or 0 for all
 * @attr: attribute to blame
 * @extack: extended ACK, set on error
 *
 * Context: with ipttrace_lock held.
 * In a verifier's namespace it may, whatever was found before, since it may be verified once more;
 * but not at chains if the layouts of structures differ.
 *
 * Return: 0; -EOPNOTSUPP if the walk differs from the kernel's loop, or that is not known.
 */
int ipttrace_verify_permits(enum ipttrace_hook hook, u64 netns_cookie,
			    const struct nlattr *attr,
			    struct netlink_ext_ack *extack)
{
	int err = 0;

	lockdep_assert_held(&ipttrace_lock);
	if (hook == IPTTRACE_HOOK_CHAIN)
		err = layouts_permit(netns_cookie, attr, extack);
	if (err)
		return err;
	if (netns_cookie && is_trial(netns_cookie))
		return 0;
	if (states[hook] == IPTTRACE_WALK_VERIFIED)
		return 0;
	if (states[hook] == IPTTRACE_WALK_DIFFERS) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"on this kernel the walk there does not do what the kernel does");
		return -EOPNOTSUPP;
	}
	NL_SET_ERR_MSG_ATTR(
		extack, attr,
		"the walk there is not verified on this kernel yet: see ipttctl module verify");
	return -EOPNOTSUPP;
}

/* True if a result permits links that layouts, found out later, do not. */
static bool is_overtaken(enum ipttrace_layout layout)
{
	lockdep_assert_held(&ipttrace_lock);
	return layout == IPTTRACE_LAYOUT_UNKNOWN && !although_not_compared &&
	       states[IPTTRACE_HOOK_CHAIN] == IPTTRACE_WALK_VERIFIED;
}

static int layouts_compare(bool found)
{
	const char *why;
	int err;

	err = ipttrace_nft_layout_compare(found);
	if (err)
		return err;
	mutex_lock(&ipttrace_lock);
	if (is_overtaken(ipttrace_nft_layout(&why)) &&
	    !ipttrace_links_count(IPTTRACE_HOOK_CHAIN))
		states[IPTTRACE_HOOK_CHAIN] = IPTTRACE_WALK_UNVERIFIED;
	mutex_unlock(&ipttrace_lock);
	return 0;
}

/**
 * ipttrace_verify_compare - compare the layouts of nf_tables' structures
 *
 * Does nothing if that was done since nf_tables was loaded, or it is not loaded. Where layouts are
 * unknown, a result that was told before that does not hold, unless links wait by it.
 *
 * Context: process, may sleep, without ipttrace_lock.
 * Return: 0, whatever was found, or -ENOMEM.
 */
int ipttrace_verify_compare(void)
{
	return layouts_compare(false);
}

/**
 * ipttrace_verify_layouts - check that nft_do_chain() may be redirected to the walk
 * @extack: extended ACK, set on error; may be NULL
 *
 * Context: process, may sleep, without ipttrace_lock.
 * Return: 0; -EOPNOTSUPP if the layouts of nf_tables' structures differ, or are unknown and links
 * wait that nobody would have permitted; -ENOMEM.
 */
int ipttrace_verify_layouts(struct netlink_ext_ack *extack)
{
	enum ipttrace_layout layout;
	const char *why;
	bool refused;
	int err;

	/* whoever redirects it has found it */
	err = layouts_compare(true);
	if (err)
		return err;
	mutex_lock(&ipttrace_lock);
	layout = ipttrace_nft_layout(&why);
	refused = layout == IPTTRACE_LAYOUT_DIFFERS || is_overtaken(layout);
	mutex_unlock(&ipttrace_lock);
	return refused ? refuse(why, NULL, extack) : 0;
}

/**
 * ipttrace_verify_try - take links at chains and the spine for a network namespace of a verifier
 * @net: the namespace, a throw-away one
 * @portid: the verifier's socket; closing it ends this
 * @attr: attribute to blame
 * @extack: extended ACK, set on error
 *
 * Context: with ipttrace_lock held.
 * Return: 0, also if they are taken already; -EINVAL, -ENOSPC.
 */
int ipttrace_verify_try(const struct net *net, u32 portid,
			const struct nlattr *attr,
			struct netlink_ext_ack *extack)
{
	struct trial *trial;
	int err = 0;

	lockdep_assert_held(&ipttrace_lock);
	if (net_eq(net, &init_net)) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the initial network namespace is not one to try things in");
		return -EINVAL;
	}
	spin_lock(&ipttrace_links_index);
	trial = find_trial(net->net_cookie, portid) ?: free_trial();
	if (trial)
		*trial = (struct trial){ net->net_cookie, portid };
	else
		err = -ENOSPC;
	spin_unlock(&ipttrace_links_index);
	if (err)
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"there are as many namespaces as verifiers get");
	return err;
}

/**
 * ipttrace_verify_end - tell how the verification of a walk ended
 * @hook: kind of hook: chains or the spine
 * @walk: the result, which holds until the module is unloaded
 * @anyway: trust it although no source of this kernel's series was compared with the walk, or the
 *	layouts of the structures of chains were not
 * @attr: attribute to blame
 * @extack: extended ACK, set on error
 *
 * Context: with ipttrace_lock held.
 * Return: 0; -EOPNOTSUPP if the kernel's series or its layouts were not compared, or these differ;
 * -EBUSY if there are links that the result does not permit.
 */
int ipttrace_verify_end(enum ipttrace_hook hook, enum ipttrace_walk walk,
			bool anyway, const struct nlattr *attr,
			struct netlink_ext_ack *extack)
{
	bool verified = walk == IPTTRACE_WALK_VERIFIED;
	enum ipttrace_layout layout;
	const char *why;

	lockdep_assert_held(&ipttrace_lock);
	layout = ipttrace_nft_layout(&why);
	if (verified && hook == IPTTRACE_HOOK_CHAIN &&
	    (layout == IPTTRACE_LAYOUT_DIFFERS ||
	     (layout == IPTTRACE_LAYOUT_UNKNOWN && !anyway)))
		return refuse(why, attr, extack);
	if (verified && !ipttrace_nft_compared() && !anyway) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"no source of this kernel's series was compared with the walk");
		return -EOPNOTSUPP;
	}
	if (!verified && ipttrace_links_count(hook)) {
		NL_SET_ERR_MSG_ATTR(extack, attr,
				    "there are links by this walk");
		return -EBUSY;
	}
	states[hook] = walk;
	if (hook == IPTTRACE_HOOK_CHAIN)
		although_not_compared = anyway;
	return 0;
}

/**
 * ipttrace_verify_release - forget the network namespaces of a verifier whose socket was closed
 * @portid: the socket
 *
 * Its links go with it.
 */
void ipttrace_verify_release(u32 portid)
{
	unsigned int i;

	spin_lock(&ipttrace_links_index);
	for (i = 0; i < ARRAY_SIZE(trials); i++)
		if (trials[i].portid == portid)
			trials[i].portid = 0;
	spin_unlock(&ipttrace_links_index);
}

/**
 * ipttrace_verify_state - tell what is known of a walk on this kernel
 * @hook: kind of hook: chains or the spine
 *
 * Context: with ipttrace_lock held.
 */
enum ipttrace_walk ipttrace_verify_state(enum ipttrace_hook hook)
{
	lockdep_assert_held(&ipttrace_lock);
	return states[hook];
}
