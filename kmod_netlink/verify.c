// SPDX-License-Identifier: GPL-2.0
/*
 * Whether the walk through nftables' chains may run. The kernel's headers do not show the loop that
 * it stands in for, so it runs for everybody only where somebody has verified on this very kernel
 * that it does the same. Until then it runs in network namespaces of the verifier alone. It runs
 * for nobody where the kernel's structures do not lie where it would find them.
 */
#include <linux/netlink.h>
#include <net/net_namespace.h>

#include "compat/nft.h"
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
static enum ipttrace_walk state = IPTTRACE_WALK_UNVERIFIED;
/* Under ipttrace_lock: whoever verified it trusts it although something could not be compared. */
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

/**
 * ipttrace_verify_permits - check whether a chain link may be made
 * @netns_cookie: cookie of its network namespace, or 0 for all
 * @attr: attribute to blame
 * @extack: extended ACK, set on error
 *
 * Context: with ipttrace_lock held.
 * In a verifier's namespace it may, whatever was found before, since it may be verified once more;
 * but not if the layouts of structures differ.
 *
 * Return: 0; -EOPNOTSUPP if the walk differs from the kernel's loop, or that is not known.
 */
int ipttrace_verify_permits(u64 netns_cookie, const struct nlattr *attr,
			    struct netlink_ext_ack *extack)
{
	enum ipttrace_layout layout;
	const char *why;

	lockdep_assert_held(&ipttrace_lock);
	layout = ipttrace_nft_layout(&why);
	if (layout == IPTTRACE_LAYOUT_DIFFERS)
		return refuse(why, attr, extack);
	if (netns_cookie && is_trial(netns_cookie))
		return 0;
	if (layout == IPTTRACE_LAYOUT_UNKNOWN && !although_not_compared)
		return refuse(why, attr, extack);
	if (state == IPTTRACE_WALK_VERIFIED)
		return 0;
	if (state == IPTTRACE_WALK_DIFFERS) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"on this kernel the walk through chains does not do what the kernel does");
		return -EOPNOTSUPP;
	}
	NL_SET_ERR_MSG_ATTR(
		extack, attr,
		"the walk through chains is not verified on this kernel yet: see ipttctl module verify");
	return -EOPNOTSUPP;
}

/* True if a result permits links that layouts, found out later, do not. */
static bool is_overtaken(enum ipttrace_layout layout)
{
	lockdep_assert_held(&ipttrace_lock);
	return layout == IPTTRACE_LAYOUT_UNKNOWN && !although_not_compared &&
	       state == IPTTRACE_WALK_VERIFIED;
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
		state = IPTTRACE_WALK_UNVERIFIED;
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
 * ipttrace_verify_try - take chain links for a network namespace of a verifier
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
 * ipttrace_verify_end - tell how a verification ended
 * @walk: the result, which holds until the module is unloaded
 * @anyway: trust it although no source of this kernel's series was compared with the walk, or the
 *	layouts of its structures were not
 * @attr: attribute to blame
 * @extack: extended ACK, set on error
 *
 * Context: with ipttrace_lock held.
 * Return: 0; -EOPNOTSUPP if the kernel's series or its layouts were not compared, or these differ;
 * -EBUSY if links are at chains that the result does not permit.
 */
int ipttrace_verify_end(enum ipttrace_walk walk, bool anyway,
			const struct nlattr *attr,
			struct netlink_ext_ack *extack)
{
	bool verified = walk == IPTTRACE_WALK_VERIFIED;
	enum ipttrace_layout layout;
	const char *why;

	lockdep_assert_held(&ipttrace_lock);
	layout = ipttrace_nft_layout(&why);
	if (verified && (layout == IPTTRACE_LAYOUT_DIFFERS ||
			 (layout == IPTTRACE_LAYOUT_UNKNOWN && !anyway)))
		return refuse(why, attr, extack);
	if (verified && !ipttrace_nft_compared() && !anyway) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"no source of this kernel's series was compared with the walk");
		return -EOPNOTSUPP;
	}
	if (!verified && ipttrace_links_count(IPTTRACE_HOOK_CHAIN)) {
		NL_SET_ERR_MSG_ATTR(extack, attr, "there are chain links");
		return -EBUSY;
	}
	state = walk;
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
 * ipttrace_verify_state - tell what is known of the walk on this kernel
 *
 * Context: with ipttrace_lock held.
 */
enum ipttrace_walk ipttrace_verify_state(void)
{
	lockdep_assert_held(&ipttrace_lock);
	return state;
}
