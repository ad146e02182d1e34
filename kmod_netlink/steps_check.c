// SPDX-License-Identifier: GPL-2.0
/*
 * Whether it is seen that packets are copied and freed. A kernel can be built so that a function
 * that journey_steps.c watches is inside of its callers as well, and such calls are seen by nobody:
 * a packet would be followed on when its address is another's. Therefore packets of our own go the
 * ways that packets are copied and freed on, before the first journey begins.
 *
 * Compared with net/core/skbuff.c of 6.1.192, 6.12.117 and 7.3.4.
 */
#include <linux/netfilter.h>
#include <linux/skbuff.h>
#include <net/net_namespace.h>

#include "compat/behind.h"
#include "followed.h"
#include "function.h"
#include "steps_check.h"

/* The journey of these packets: there is no other one yet, and no link is on it. */
#define CHECKED BIT(0)

static bool is_followed(const struct sk_buff *skb)
{
	struct ipttrace_followed known;
	bool found;

	rcu_read_lock();
	found = ipttrace_followed_find(skb, &known);
	rcu_read_unlock();
	return found;
}

static void follow(const struct sk_buff *skb)
{
	const struct nf_hook_state state = { .net = &init_net };

	rcu_read_lock();
	ipttrace_followed_add(skb, &state, 0, CHECKED);
	rcu_read_unlock();
}

/* Frees a packet; true if that was seen. The packet's address is another's by then, perhaps. */
static bool free_is_seen(struct sk_buff *skb, void (*free)(struct sk_buff *skb))
{
	struct ipttrace_followed known;
	bool left;

	free(skb);
	rcu_read_lock();
	left = ipttrace_followed_remove(skb, &known);
	rcu_read_unlock();
	return !left;
}

/* By __kfree_skb(), as most are. */
static void free_one(struct sk_buff *skb)
{
	consume_skb(skb);
}

/* As drivers free what they have sent. Packets that are freed in bulk go the same way. */
static void free_in_softirq(struct sk_buff *skb)
{
	local_bh_disable();
	napi_consume_skb(skb, 1);
	local_bh_enable();
}

/* As UDP frees what was read. Where it cannot be found, nobody else calls it either. */
static void free_stateless(struct sk_buff *skb)
{
	unsigned long site;

	if (ipttrace_site_find("__consume_stateless_skb", &site)) {
		consume_skb(skb);
		return;
	}
	ipttrace_behind___consume_stateless_skb_address =
		site + IPTTRACE_PATCH_SIZE;
	ipttrace_behind___consume_stateless_skb(skb);
}

/**
 * ipttrace_steps_check - check that copies and frees of packets are seen
 * @extack: extended ACK, set on error
 *
 * Context: process, under ipttrace_lock, while the functions are watched, there is room for
 * packets, and no journey.
 * Return: 0, -ENOMEM, or -EOPNOTSUPP if one is not seen.
 */
int ipttrace_steps_check(struct netlink_ext_ack *extack)
{
	struct sk_buff *skb, *copy = NULL, *clone = NULL;
	bool seen;

	skb = alloc_skb(NET_SKB_PAD, GFP_KERNEL);
	if (!skb)
		return -ENOMEM;
	skb_reset_network_header(skb);
	ipttrace_followed_live(CHECKED);
	follow(skb);
	copy = skb_copy(skb, GFP_KERNEL);
	clone = skb_clone(skb, GFP_KERNEL);
	seen = (!copy || is_followed(copy)) && (!clone || is_followed(clone));
	/* each of them is to be freed */
	seen &= !copy || free_is_seen(copy, free_stateless);
	seen &= !clone || free_is_seen(clone, free_in_softirq);
	seen &= free_is_seen(skb, free_one);
	ipttrace_followed_live(0);
	if (!seen) {
		NL_SET_ERR_MSG(
			extack,
			"a packet was copied or freed for a trial, and that is not seen on this kernel");
		return -EOPNOTSUPP;
	}
	return copy && clone ? 0 : -ENOMEM;
}
