// SPDX-License-Identifier: GPL-2.0
/*
 * The command that asks for the generation of the rules of a legacy table. A
 * program that lists the rules asks before and after: equal answers are the generation of the list.
 */
#include <linux/netfilter.h>
#include <net/net_namespace.h>

#include "message.h"
#include "netlink_gen.h"
#include "replace.h"

static int check_place(struct genl_info *info)
{
	static const int types[] = { IPTTRACE_A_NETNS_FD, IPTTRACE_A_FAMILY,
				     IPTTRACE_A_TABLE };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(types); i++)
		if (!info->attrs[types[i]]) {
			NL_SET_ERR_ATTR_MISS(info->extack, NULL, types[i]);
			NL_SET_ERR_MSG(
				info->extack,
				"a legacy table is named by its network namespace, family and name");
			return -EINVAL;
		}
	return 0;
}

/* Finds the table that a request names. */
static const void *find_table(struct genl_info *info)
{
	const struct nlattr *netns = info->attrs[IPTTRACE_A_NETNS_FD];
	const struct nlattr *family = info->attrs[IPTTRACE_A_FAMILY];
	const struct nlattr *name = info->attrs[IPTTRACE_A_TABLE];
	const void *table;
	struct net *net;

	if (nla_get_u32(family) != NFPROTO_IPV4 &&
	    nla_get_u32(family) != NFPROTO_IPV6) {
		NL_SET_ERR_MSG_ATTR(
			info->extack, family,
			"tables are of family 2 (IPv4) or 10 (IPv6)");
		return ERR_PTR(-EAFNOSUPPORT);
	}
	net = get_net_ns_by_fd(nla_get_u32(netns));
	if (IS_ERR(net)) {
		NL_SET_ERR_MSG_ATTR(
			info->extack, netns,
			"the file descriptor is not of a network namespace");
		return ERR_CAST(net);
	}
	table = ipttrace_replace_find(net, nla_get_u32(family), nla_data(name));
	put_net(net);
	if (table == ERR_PTR(-ENOENT))
		NL_SET_ERR_MSG_ATTR(
			info->extack, name,
			"the network namespace has no such legacy table");
	else if (IS_ERR(table))
		NL_SET_ERR_MSG(
			info->extack,
			"the kernel hides xt_find_table() (CONFIG_KALLSYMS)");
	return table;
}

static int reply(struct genl_info *info, u32 generation, bool replacing)
{
	struct sk_buff *msg = genlmsg_new(NLMSG_DEFAULT_SIZE, GFP_KERNEL);
	void *header;

	if (!msg)
		return -ENOMEM;
	header = genlmsg_put_reply(msg, info, &ipttrace_family, 0,
				   IPTTRACE_CMD_RULESET);
	if (!header || nla_put_u32(msg, IPTTRACE_A_RULESET, generation) ||
	    nla_put_u32(msg, IPTTRACE_A_REPLACING, replacing)) {
		nlmsg_free(msg);
		return -EMSGSIZE;
	}
	genlmsg_end(msg, header);
	return genlmsg_reply(msg, info);
}

int ipttrace_nl_ruleset_doit(struct sk_buff *skb, struct genl_info *info)
{
	const void *table;
	u32 generation;
	int err;

	err = check_place(info);
	if (err)
		return err;
	table = find_table(info);
	if (IS_ERR(table))
		return PTR_ERR(table);
	generation = ipttrace_replace_generation(table);
	if (!generation) {
		NL_SET_ERR_MSG(
			info->extack,
			"nobody counts how often legacy tables are replaced: there is no link at tables, or something else redirects xt_replace_table() (a live patch?)");
		return -ENODATA;
	}
	return reply(info, generation,
		     !ipttrace_replace_unchanged(table, generation));
}
