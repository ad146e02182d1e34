// SPDX-License-Identifier: GPL-2.0
/*
 * The command of verifiers: it names a network namespace to try our walks in, or says how that
 * ended (verify.c).
 */
#include <net/net_namespace.h>

#include "compat/nft.h"
#include "link.h"
#include "message.h"
#include "netlink_gen.h"
#include "nft_layout.h"
#include "verify.h"

/**
 * ipttrace_put_walk - add to a message whether links by our walks are taken, and why not
 * @msg: the message
 *
 * Context: process, without ipttrace_lock.
 * Return: 0 or -EMSGSIZE.
 */
int ipttrace_put_walk(struct sk_buff *msg)
{
	const char *refusal;
	u32 walk, spine, layout;

	mutex_lock(&ipttrace_lock);
	walk = ipttrace_verify_state(IPTTRACE_HOOK_CHAIN);
	spine = ipttrace_verify_state(IPTTRACE_HOOK_SPINE);
	layout = ipttrace_nft_layout(&refusal);
	mutex_unlock(&ipttrace_lock);
	if (nla_put_u32(msg, IPTTRACE_A_WALK, walk) ||
	    nla_put_u32(msg, IPTTRACE_A_WALK_COMPARED,
			ipttrace_nft_compared()) ||
	    nla_put_u32(msg, IPTTRACE_A_WALK_LAYOUT, layout) ||
	    nla_put_u32(msg, IPTTRACE_A_SPINE_WALK, spine))
		return -EMSGSIZE;
	if (refusal && nla_put_string(msg, IPTTRACE_A_WALK_REFUSAL, refusal))
		return -EMSGSIZE;
	return 0;
}

/* Carries out a request of a verifier, with ipttrace_lock held. */
static int verify(struct genl_info *info, const struct net *net)
{
	const struct nlattr *netns = info->attrs[IPTTRACE_A_NETNS_FD];
	const struct nlattr *walk = info->attrs[IPTTRACE_A_WALK];
	const struct nlattr *spine = info->attrs[IPTTRACE_A_SPINE_WALK];
	const struct nlattr *compared = info->attrs[IPTTRACE_A_WALK_COMPARED];
	bool anyway = compared && !nla_get_u32(compared);
	int err = 0;

	if (net)
		err = ipttrace_verify_try(net, info->snd_portid, netns,
					  info->extack);
	if (!err && walk)
		err = ipttrace_verify_end(IPTTRACE_HOOK_CHAIN,
					  nla_get_u32(walk), anyway, walk,
					  info->extack);
	if (!err && spine)
		err = ipttrace_verify_end(IPTTRACE_HOOK_SPINE,
					  nla_get_u32(spine), anyway, spine,
					  info->extack);
	return err;
}

int ipttrace_nl_verify_doit(struct sk_buff *skb, struct genl_info *info)
{
	const struct nlattr *netns = info->attrs[IPTTRACE_A_NETNS_FD];
	struct net *net = NULL;
	struct sk_buff *msg;
	void *header;
	int err;

	if (!netns && !info->attrs[IPTTRACE_A_WALK] &&
	    !info->attrs[IPTTRACE_A_SPINE_WALK]) {
		NL_SET_ERR_MSG(
			info->extack,
			"neither a network namespace nor a result is given");
		return -EINVAL;
	}
	msg = genlmsg_new(NLMSG_DEFAULT_SIZE, GFP_KERNEL);
	if (!msg)
		return -ENOMEM;
	if (netns) {
		net = get_net_ns_by_fd(nla_get_u32(netns));
		if (IS_ERR(net)) {
			NL_SET_ERR_MSG_ATTR(
				info->extack, netns,
				"the file descriptor is not of a network namespace");
			err = PTR_ERR(net);
			goto err_free;
		}
	}
	err = ipttrace_verify_compare();
	if (!err) {
		mutex_lock(&ipttrace_lock);
		err = verify(info, net);
		mutex_unlock(&ipttrace_lock);
	}
	if (net)
		put_net(net);
	if (err)
		goto err_free;
	header = genlmsg_put_reply(msg, info, &ipttrace_family, 0,
				   IPTTRACE_CMD_VERIFY);
	err = !header ? -EMSGSIZE : ipttrace_put_walk(msg);
	if (err)
		goto err_free;
	genlmsg_end(msg, header);
	return genlmsg_reply(msg, info);

err_free:
	nlmsg_free(msg);
	return err;
}
