// SPDX-License-Identifier: GPL-2.0
/*
 * The generic-netlink family: parses requests, calls, replies and notifies (message.c says how).
 */
#include <linux/capability.h>
#include <linux/module.h>
#include <linux/netfilter.h>
#include <net/genetlink.h>

#include "events.h"
#include "link.h"
#include "message.h"
#include "netlink.h"
#include "netlink_policy.h"

/* --- requests ------------------------------------------------------------------------------ */

static int parse_program(struct ipttrace_set *set, const struct nlattr *nest,
			 struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_program_policy)];
	int err;

	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_program_policy, extack);
	if (err)
		return err;
	if (!tb[IPTTRACE_A_PROGRAM_SLOT]) {
		NL_SET_ERR_ATTR_MISS(extack, nest, IPTTRACE_A_PROGRAM_SLOT);
		NL_SET_ERR_MSG(extack, "a program has no slot");
		return -EINVAL;
	}
	if (!tb[IPTTRACE_A_PROGRAM_FD]) {
		NL_SET_ERR_ATTR_MISS(extack, nest, IPTTRACE_A_PROGRAM_FD);
		NL_SET_ERR_MSG(extack, "a program has no file descriptor");
		return -EINVAL;
	}
	return ipttrace_set_add_program(set, tb[IPTTRACE_A_PROGRAM_SLOT],
					tb[IPTTRACE_A_PROGRAM_FD], extack);
}

static struct ipttrace_set *parse_set(struct genl_info *info)
{
	const struct nlattr *nest = info->attrs[IPTTRACE_A_PROGRAMS];
	struct nlattr *tb[ARRAY_SIZE(ipttrace_program_set_policy)];
	struct netlink_ext_ack *extack = info->extack;
	const struct nlattr *attr;
	struct ipttrace_set *set;
	int remaining, err;

	if (!nest) {
		NL_SET_ERR_ATTR_MISS(extack, NULL, IPTTRACE_A_PROGRAMS);
		NL_SET_ERR_MSG(extack, "no program set is given");
		return ERR_PTR(-EINVAL);
	}
	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_program_set_policy, extack);
	if (err)
		return ERR_PTR(err);
	if (!tb[IPTTRACE_A_PROGRAM_SET_PROGRAM]) {
		NL_SET_ERR_MSG_ATTR(extack, nest,
				    "the program set has no program");
		return ERR_PTR(-EINVAL);
	}
	set = ipttrace_set_alloc();
	if (!set)
		return ERR_PTR(-ENOMEM);
	nla_for_each_nested(attr, nest, remaining) {
		if (nla_type(attr) != IPTTRACE_A_PROGRAM_SET_PROGRAM)
			continue;
		err = parse_program(set, attr, extack);
		if (err)
			goto err_free;
	}
	if (tb[IPTTRACE_A_PROGRAM_SET_FILTER]) {
		err = ipttrace_set_add_filter(
			set, tb[IPTTRACE_A_PROGRAM_SET_FILTER], extack);
		if (err)
			goto err_free;
	}
	if (tb[IPTTRACE_A_PROGRAM_SET_COOKIE])
		set->cookie = nla_get_u64(tb[IPTTRACE_A_PROGRAM_SET_COOKIE]);
	return set;

err_free:
	ipttrace_set_free(set);
	return ERR_PTR(err);
}

static int parse_expectation(struct genl_info *info,
			     struct ipttrace_expectation *expect)
{
	const struct nlattr *attr;
	int remaining, err;

	memset(expect, 0, sizeof(*expect));
	if (info->attrs[IPTTRACE_A_EXPECT_GENERATION])
		expect->generation =
			nla_get_u32(info->attrs[IPTTRACE_A_EXPECT_GENERATION]);

	nlmsg_for_each_attr(attr, info->nlhdr, GENL_HDRLEN, remaining) {
		struct nlattr *tb[ARRAY_SIZE(ipttrace_expected_program_policy)];
		u32 slot;

		if (nla_type(attr) != IPTTRACE_A_EXPECT_PROGRAM)
			continue;
		err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, attr,
				       ipttrace_expected_program_policy,
				       info->extack);
		if (err)
			return err;
		if (!tb[IPTTRACE_A_EXPECTED_PROGRAM_SLOT] ||
		    !tb[IPTTRACE_A_EXPECTED_PROGRAM_ID]) {
			NL_SET_ERR_MSG_ATTR(
				info->extack, attr,
				"an expected program needs its slot and its id");
			return -EINVAL;
		}
		slot = nla_get_u32(tb[IPTTRACE_A_EXPECTED_PROGRAM_SLOT]);
		__set_bit(slot, &expect->slots);
		expect->prog_id[slot] =
			nla_get_u32(tb[IPTTRACE_A_EXPECTED_PROGRAM_ID]);
	}
	return 0;
}

/* CAP_NET_ADMIN lets one speak to the family; running a program takes what loading it takes. */
static int check_program_capability(struct netlink_ext_ack *extack)
{
	if (bpf_capable() || perfmon_capable())
		return 0;
	NL_SET_ERR_MSG(extack,
		       "attaching a program needs CAP_BPF or CAP_PERFMON");
	return -EPERM;
}

static struct ipttrace_link *find_link(struct genl_info *info)
{
	const struct nlattr *attr = info->attrs[IPTTRACE_A_LINK];
	struct ipttrace_link *link;

	if (!attr) {
		NL_SET_ERR_ATTR_MISS(info->extack, NULL, IPTTRACE_A_LINK);
		NL_SET_ERR_MSG(info->extack, "no link is given");
		return ERR_PTR(-EINVAL);
	}
	link = ipttrace_link_find(nla_get_u32(attr));
	if (!link) {
		NL_SET_ERR_MSG_ATTR(info->extack, attr,
				    "there is no such link");
		return ERR_PTR(-ENOENT);
	}
	return link;
}

static int parse_spec(struct genl_info *info, struct ipttrace_link_spec *spec)
{
	struct nlattr **attrs = info->attrs;

	memset(spec, 0, sizeof(*spec));
	spec->portid = info->snd_portid;
	if (!attrs[IPTTRACE_A_HOOK]) {
		NL_SET_ERR_ATTR_MISS(info->extack, NULL, IPTTRACE_A_HOOK);
		NL_SET_ERR_MSG(info->extack, "no hook is given");
		return -EINVAL;
	}
	spec->hook = nla_get_u32(attrs[IPTTRACE_A_HOOK]);
	if (spec->hook != IPTTRACE_HOOK_TABLE) {
		NL_SET_ERR_MSG_ATTR(info->extack, attrs[IPTTRACE_A_HOOK],
				    "there is no such hook");
		return -EOPNOTSUPP;
	}
	if (attrs[IPTTRACE_A_FAMILY])
		spec->family = nla_get_u32(attrs[IPTTRACE_A_FAMILY]);
	if (spec->family != NFPROTO_UNSPEC && spec->family != NFPROTO_IPV4 &&
	    spec->family != NFPROTO_IPV6) {
		NL_SET_ERR_MSG_ATTR(
			info->extack, attrs[IPTTRACE_A_FAMILY],
			"tables are of family 2 (IPv4) or 10 (IPv6)");
		return -EAFNOSUPPORT;
	}
	if (attrs[IPTTRACE_A_FLAGS])
		spec->flags = nla_get_u32(attrs[IPTTRACE_A_FLAGS]);
	return 0;
}

/* A message for the reply, made before anything changes, so that no change goes unanswered. */
static struct sk_buff *reply_new(void)
{
	return genlmsg_new(NLMSG_DEFAULT_SIZE, GFP_KERNEL);
}

static int reply_link(struct sk_buff *msg, struct genl_info *info,
		      const struct ipttrace_link *link)
{
	int err;

	err = ipttrace_put_link(msg, link, info->snd_portid, info->snd_seq, 0,
				info->genlhdr->cmd, 0);
	/* a link takes a small part of the message that reply_new() makes */
	if (WARN_ON_ONCE(err)) {
		nlmsg_free(msg);
		return err;
	}
	return genlmsg_reply(msg, info);
}

/*
 * What attaching and swapping need before they take the lock: the right, the program set and the
 * message for the reply. The caller owns both afterwards.
 */
static int prepare_change(struct genl_info *info, struct ipttrace_set **set,
			  struct sk_buff **msg)
{
	int err;

	err = check_program_capability(info->extack);
	if (err)
		return err;
	*set = parse_set(info);
	if (IS_ERR(*set))
		return PTR_ERR(*set);
	*msg = reply_new();
	if (!*msg) {
		ipttrace_set_free(*set);
		return -ENOMEM;
	}
	return 0;
}

static int attach_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct ipttrace_link_spec spec;
	struct ipttrace_link *link;
	struct ipttrace_set *set;
	struct sk_buff *msg;
	int err;

	err = parse_spec(info, &spec);
	if (err)
		return err;
	err = prepare_change(info, &set, &msg);
	if (err)
		return err;

	mutex_lock(&ipttrace_lock);
	link = ipttrace_link_attach(&spec, set, info->extack);
	if (IS_ERR(link)) {
		mutex_unlock(&ipttrace_lock);
		nlmsg_free(msg);
		ipttrace_set_free(set);
		return PTR_ERR(link);
	}
	ipttrace_notify(link, IPTTRACE_CMD_LINK_ATTACHED, 0);
	err = reply_link(msg, info, link);
	mutex_unlock(&ipttrace_lock);
	return err;
}

static int swap_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct ipttrace_expectation expect;
	struct ipttrace_link *link;
	struct ipttrace_set *set;
	struct sk_buff *msg;
	int err;

	err = parse_expectation(info, &expect);
	if (err)
		return err;
	err = prepare_change(info, &set, &msg);
	if (err)
		return err;

	mutex_lock(&ipttrace_lock);
	link = find_link(info);
	err = IS_ERR(link) ?
		      PTR_ERR(link) :
		      ipttrace_link_swap(link, set, &expect, info->extack);
	if (err) {
		mutex_unlock(&ipttrace_lock);
		nlmsg_free(msg);
		ipttrace_set_free(set);
		return err;
	}
	ipttrace_notify(link, IPTTRACE_CMD_LINK_SWAPPED, 0);
	err = reply_link(msg, info, link);
	mutex_unlock(&ipttrace_lock);
	return err;
}

static int detach_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct ipttrace_expectation expect;
	struct ipttrace_link *link;
	struct sk_buff *msg;
	LIST_HEAD(leaving);
	int err;

	err = parse_expectation(info, &expect);
	if (err)
		return err;
	msg = reply_new();
	if (!msg)
		return -ENOMEM;

	mutex_lock(&ipttrace_lock);
	link = find_link(info);
	err = IS_ERR(link) ? PTR_ERR(link) :
			     ipttrace_link_check(link, &expect, info->extack);
	if (err) {
		mutex_unlock(&ipttrace_lock);
		nlmsg_free(msg);
		return err;
	}
	list_move_tail(&link->list, &leaving);
	ipttrace_links_detach(&leaving);
	ipttrace_notify(link, IPTTRACE_CMD_LINK_DETACHED,
			IPTTRACE_DETACH_REASON_REQUEST);
	err = reply_link(msg, info, link);
	mutex_unlock(&ipttrace_lock);
	ipttrace_link_free(link);
	return err;
}

static int get_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct ipttrace_link *link;
	struct sk_buff *msg;
	int err;

	msg = reply_new();
	if (!msg)
		return -ENOMEM;
	mutex_lock(&ipttrace_lock);
	link = find_link(info);
	if (IS_ERR(link)) {
		err = PTR_ERR(link);
		nlmsg_free(msg);
	} else {
		err = reply_link(msg, info, link);
	}
	mutex_unlock(&ipttrace_lock);
	return err;
}

static int get_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	/* the last id that was dumped */
	unsigned long *last = &cb->args[0];
	struct ipttrace_link *link;

	mutex_lock(&ipttrace_lock);
	cb->seq = ipttrace_links_sequence;
	list_for_each_entry(link, &ipttrace_links, list) {
		if (link->id <= *last)
			continue;
		if (ipttrace_put_link(skb, link, NETLINK_CB(cb->skb).portid,
				      cb->nlh->nlmsg_seq, NLM_F_MULTI,
				      IPTTRACE_CMD_GET, 0))
			break;
		*last = link->id;
	}
	if (skb->len)
		nl_dump_check_consistent(cb, nlmsg_hdr(skb));
	mutex_unlock(&ipttrace_lock);
	return skb->len;
}

static int stats_doit(struct sk_buff *skb, struct genl_info *info)
{
	/* a nest of five numbers each, the widest eight bytes, with headers and padding */
	size_t size = NLMSG_DEFAULT_SIZE + num_possible_cpus() * 128;
	struct sk_buff *msg = genlmsg_new(size, GFP_KERNEL);
	void *header;
	int cpu;

	if (!msg)
		return -ENOMEM;
	/* whoever asks may have just begun to listen */
	ipttrace_events_resume();
	header = genlmsg_put_reply(msg, info, &ipttrace_family, 0,
				   IPTTRACE_CMD_STATS);
	if (!header ||
	    nla_put_u32(msg, IPTTRACE_A_FINGERPRINT, IPTTRACE_FINGERPRINT) ||
	    nla_put_string(msg, IPTTRACE_A_MODULE_VERSION, IPTTRACE_VERSION))
		goto err_free;
	for_each_possible_cpu(cpu)
		if (ipttrace_put_cpu_stats(msg, cpu))
			goto err_free;
	genlmsg_end(msg, header);
	return genlmsg_reply(msg, info);

err_free:
	nlmsg_free(msg);
	return -EMSGSIZE;
}

/* --- the family ---------------------------------------------------------------------------- */

static const struct genl_ops operations[] = {
	{
		.cmd = IPTTRACE_CMD_ATTACH,
		.flags = GENL_ADMIN_PERM,
		.doit = attach_doit,
		.policy = ipttrace_attach_policy,
		.maxattr = ARRAY_SIZE(ipttrace_attach_policy) - 1,
	},
	{
		.cmd = IPTTRACE_CMD_SWAP,
		.flags = GENL_ADMIN_PERM,
		.doit = swap_doit,
		.policy = ipttrace_swap_policy,
		.maxattr = ARRAY_SIZE(ipttrace_swap_policy) - 1,
	},
	{
		.cmd = IPTTRACE_CMD_DETACH,
		.flags = GENL_ADMIN_PERM,
		.doit = detach_doit,
		.policy = ipttrace_detach_policy,
		.maxattr = ARRAY_SIZE(ipttrace_detach_policy) - 1,
	},
	{
		.cmd = IPTTRACE_CMD_GET,
		.flags = GENL_ADMIN_PERM,
		.doit = get_doit,
		.dumpit = get_dumpit,
		.policy = ipttrace_get_policy,
		.maxattr = ARRAY_SIZE(ipttrace_get_policy) - 1,
	},
	{
		.cmd = IPTTRACE_CMD_STATS,
		.flags = GENL_ADMIN_PERM,
		.doit = stats_doit,
		.policy = ipttrace_stats_policy,
		.maxattr = ARRAY_SIZE(ipttrace_stats_policy) - 1,
	},
};

static const struct genl_multicast_group groups[] = {
	[IPTTRACE_EVENTS] = {
		.name = IPTTRACE_GROUP_EVENTS,
		.flags = GENL_MCAST_CAP_NET_ADMIN,
	},
	[IPTTRACE_LINKS] = {
		.name = IPTTRACE_GROUP_LINKS,
		.flags = GENL_MCAST_CAP_NET_ADMIN,
	},
};

struct genl_family ipttrace_family __ro_after_init = {
	.name = IPTTRACE_FAMILY_NAME,
	.version = IPTTRACE_FAMILY_VERSION,
	.module = THIS_MODULE,
	.parallel_ops = true,
	.ops = operations,
	.n_ops = ARRAY_SIZE(operations),
	.resv_start_op = IPTTRACE_CMD_ATTACH,
	.mcgrps = groups,
	.n_mcgrps = ARRAY_SIZE(groups),
};

/* --- owners -------------------------------------------------------------------------------- */

/* A socket was closed: the links that it owned go with it. */
static int socket_released(struct notifier_block *nb, unsigned long event,
			   void *data)
{
	const struct netlink_notify *released = data;
	struct ipttrace_link *link, *next;
	LIST_HEAD(leaving);

	if (event != NETLINK_URELEASE ||
	    released->protocol != NETLINK_GENERIC ||
	    !net_eq(released->net, &init_net))
		return NOTIFY_DONE;

	mutex_lock(&ipttrace_lock);
	list_for_each_entry_safe(link, next, &ipttrace_links, list)
		if (link->owner_portid == released->portid)
			list_move_tail(&link->list, &leaving);
	ipttrace_links_detach(&leaving);
	list_for_each_entry(link, &leaving, list)
		ipttrace_notify(link, IPTTRACE_CMD_LINK_DETACHED,
				IPTTRACE_DETACH_REASON_OWNER);
	mutex_unlock(&ipttrace_lock);
	list_for_each_entry_safe(link, next, &leaving, list)
		ipttrace_link_free(link);
	return NOTIFY_OK;
}

static struct notifier_block socket_notifier = {
	.notifier_call = socket_released,
};

/**
 * ipttrace_netlink_init - register the family; requests may come at once
 *
 * Return: 0 or an errno.
 */
int ipttrace_netlink_init(void)
{
	int err;

	err = netlink_register_notifier(&socket_notifier);
	if (err)
		return err;
	err = genl_register_family(&ipttrace_family);
	if (err)
		netlink_unregister_notifier(&socket_notifier);
	return err;
}

/**
 * ipttrace_netlink_exit - unregister the family; no request is under way afterwards
 */
void ipttrace_netlink_exit(void)
{
	genl_unregister_family(&ipttrace_family);
	netlink_unregister_notifier(&socket_notifier);
}
