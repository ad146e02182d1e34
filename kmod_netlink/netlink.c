// SPDX-License-Identifier: GPL-2.0
/*
 * The generic-netlink family and its commands. The table of commands and their attributes is
 * generated (netlink_gen.c), parse.c reads requests, message.c writes replies and notifications.
 */
#include <linux/module.h>
#include <linux/rtnetlink.h>
#include <net/net_namespace.h>

#include "compat/genetlink.h"
#include "events.h"
#include "hook.h"
#include "journey.h"
#include "label.h"
#include "link.h"
#include "message.h"
#include "netlink.h"
#include "netlink_gen.h"
#include "owner.h"
#include "parse.h"
#include "restore.h"
#include "transaction.h"
#include "verify.h"

/* --- commands ------------------------------------------------------------------------------ */

/* The link that a request names, valid while ipttrace_lock is held. */
static struct ipttrace_link *find_link(struct genl_info *info)
{
	struct ipttrace_link_ref ref;
	int err;

	err = ipttrace_parse_link(info, &ref);
	if (err)
		return ERR_PTR(err);
	return ipttrace_link_find(&ref, info->extack);
}

/*
 * Allocates a message for replies about some links. That is done before anything changes, so that
 * no change goes unanswered.
 */
static struct sk_buff *reply_new(unsigned int links)
{
	return genlmsg_new(links * ipttrace_link_size(), GFP_KERNEL);
}

/* Adds a reply to a message of reply_new(). That has room enough: an error is a bug. */
static int reply_add(struct sk_buff *msg, struct genl_info *info,
		     const struct ipttrace_link *link)
{
	int err;

	err = ipttrace_put_link(msg, link, info->snd_portid, info->snd_seq, 0,
				info->genlhdr->cmd, 0, false);
	WARN_ON_ONCE(err);
	return err;
}

static int reply_link(struct sk_buff *msg, struct genl_info *info,
		      const struct ipttrace_link *link)
{
	int err;

	err = reply_add(msg, info, link);
	if (err) {
		nlmsg_free(msg);
		return err;
	}
	return genlmsg_reply(msg, info);
}

static int attach(struct genl_info *info, const struct ipttrace_link_spec *spec,
		  struct ipttrace_set *set, struct sk_buff *msg)
{
	const struct ipttrace_hook_ops *hook = ipttrace_hooks[spec->hook];
	struct ipttrace_link *link;
	int err;

	err = hook->begin(spec, info->extack);
	if (err) {
		nlmsg_free(msg);
		ipttrace_set_free(set);
		return err;
	}
	mutex_lock(&ipttrace_lock);
	link = ipttrace_link_attach(spec, set, info->extack);
	if (IS_ERR(link)) {
		err = PTR_ERR(link);
		nlmsg_free(msg);
		ipttrace_set_free(set);
	} else {
		ipttrace_notify(link, IPTTRACE_CMD_LINK_ATTACHED, 0, false);
		err = reply_link(msg, info, link);
	}
	mutex_unlock(&ipttrace_lock);
	hook->end(spec);
	return err;
}

int ipttrace_nl_attach_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct ipttrace_link_spec spec;
	struct ipttrace_set *set;
	struct sk_buff *msg;
	int err;

	err = ipttrace_parse_spec(info, &spec);
	if (err)
		return err;
	err = ipttrace_restore_parse(info, &spec);
	if (err)
		goto out;
	set = ipttrace_parse_set(info);
	err = PTR_ERR_OR_ZERO(set);
	if (err)
		goto out;
	msg = reply_new(1);
	if (!msg) {
		ipttrace_set_free(set);
		err = -ENOMEM;
		goto out;
	}
	err = attach(info, &spec, set, msg);
out:
	ipttrace_spec_release(&spec);
	return err;
}

/* Makes a transaction of changes and frees them, notifies observers and replies. */
static int transact(struct genl_info *info, struct ipttrace_change *changes,
		    unsigned int count)
{
	struct ipttrace_requester requester = ipttrace_parse_requester(info);
	struct ipttrace_terms terms;
	struct sk_buff *msg;
	unsigned int i;
	int err;

	err = ipttrace_parse_terms(info, &terms);
	if (err)
		goto err_changes;
	err = -ENOMEM;
	msg = reply_new(count);
	if (!msg)
		goto err_terms;
	mutex_lock(&ipttrace_lock);
	err = ipttrace_links_swap(changes, count, &requester, &terms,
				  info->extack);
	if (err) {
		mutex_unlock(&ipttrace_lock);
		goto err_msg;
	}
	for (i = 0; i < count; i++) {
		ipttrace_notify(changes[i].link, IPTTRACE_CMD_LINK_SWAPPED, 0,
				changes[i].forced);
		err = err ?: reply_add(msg, info, changes[i].link);
	}
	/* under the lock: a later request finds the state of this reply, or a newer one */
	if (err)
		nlmsg_free(msg);
	else
		err = genlmsg_reply(msg, info);
	mutex_unlock(&ipttrace_lock);
	ipttrace_changes_free(changes, count, true);
	return err;

err_msg:
	nlmsg_free(msg);
err_terms:
	kfree(terms.guards);
err_changes:
	ipttrace_changes_free(changes, count, false);
	return err;
}

int ipttrace_nl_swap_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct ipttrace_change *change = ipttrace_parse_swap(info);

	if (IS_ERR(change))
		return PTR_ERR(change);
	return transact(info, change, 1);
}

int ipttrace_nl_transact_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct ipttrace_change *changes;
	unsigned int count;

	changes = ipttrace_parse_changes(info, &count);
	if (IS_ERR(changes))
		return PTR_ERR(changes);
	return transact(info, changes, count);
}

int ipttrace_nl_detach_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct ipttrace_requester requester = ipttrace_parse_requester(info);
	struct ipttrace_expectation expect;
	struct ipttrace_link *link;
	struct sk_buff *msg;
	LIST_HEAD(leaving);
	bool forced;
	int err;

	err = ipttrace_parse_expectation(info, &expect);
	if (err)
		return err;
	msg = reply_new(1);
	if (!msg)
		return -ENOMEM;

	mutex_lock(&ipttrace_lock);
	link = find_link(info);
	err = PTR_ERR_OR_ZERO(link);
	if (!err)
		err = ipttrace_link_permit(link, &requester, &forced,
					   ipttrace_link_attr(info),
					   info->extack);
	if (!err)
		err = ipttrace_link_check(link, &expect, info->extack);
	if (err) {
		mutex_unlock(&ipttrace_lock);
		nlmsg_free(msg);
		return err;
	}
	ipttrace_link_leave(link, &leaving);
	ipttrace_links_detach(&leaving);
	ipttrace_link_give_reason(link, requester.reason);
	ipttrace_notify(link, IPTTRACE_CMD_LINK_DETACHED,
			IPTTRACE_DETACH_REASON_REQUEST, forced);
	err = reply_link(msg, info, link);
	mutex_unlock(&ipttrace_lock);
	ipttrace_link_free(link);
	return err;
}

/**
 * ipttrace_nl_with_link - change the link that a request names, and reply with it as it is then
 * @info: the request
 * @change: makes the change, with ipttrace_lock held, and notifies of it; returns 0 or an errno
 *
 * Return: 0, -ENOMEM, -EINVAL or -ENOENT, when nothing has changed, or the result of @change.
 */
int ipttrace_nl_with_link(struct genl_info *info,
			  int (*change)(struct ipttrace_link *link,
					struct genl_info *info))
{
	struct ipttrace_link *link;
	struct sk_buff *msg;
	int err;

	msg = reply_new(1);
	if (!msg)
		return -ENOMEM;
	mutex_lock(&ipttrace_lock);
	link = find_link(info);
	err = IS_ERR(link) ? PTR_ERR(link) : change(link, info);
	if (err)
		nlmsg_free(msg);
	else
		err = reply_link(msg, info, link);
	mutex_unlock(&ipttrace_lock);
	return err;
}

int ipttrace_nl_get_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct ipttrace_link *link;
	struct sk_buff *answer;
	size_t size;
	int err;

	mutex_lock(&ipttrace_lock);
	link = find_link(info);
	err = PTR_ERR_OR_ZERO(link);
	if (err)
		goto out;
	err = -ENOMEM;
	size = ipttrace_link_size();
	size += nla_total_size(ipttrace_filter_size(link->set));
	answer = genlmsg_new(size, GFP_KERNEL);
	if (answer)
		err = reply_link(answer, info, link);
out:
	mutex_unlock(&ipttrace_lock);
	return err;
}

static int adopt_link(struct ipttrace_link *link, struct genl_info *info)
{
	struct ipttrace_requester requester = ipttrace_parse_requester(info);
	const struct nlattr *attr = info->attrs[IPTTRACE_A_FLAGS];
	u32 flags = attr ? nla_get_u32(attr) : 0;
	bool forced;
	int err;

	if (flags & ~IPTTRACE_LINK_FLAG_EXCLUSIVE) {
		NL_SET_ERR_MSG_ATTR(info->extack, attr,
				    "a link is adopted exclusively or not");
		return -EINVAL;
	}
	err = ipttrace_link_adopt(link, &requester, flags, &forced,
				  ipttrace_link_attr(info), info->extack);
	if (!err)
		ipttrace_notify(link, IPTTRACE_CMD_LINK_CHANGED, 0, forced);
	return err;
}

int ipttrace_nl_adopt_doit(struct sk_buff *skb, struct genl_info *info)
{
	return ipttrace_nl_with_link(info, adopt_link);
}

static int release_link(struct ipttrace_link *link, struct genl_info *info)
{
	struct ipttrace_requester requester = ipttrace_parse_requester(info);
	bool forced;
	int err;

	err = ipttrace_link_permit(link, &requester, &forced,
				   ipttrace_link_attr(info), info->extack);
	if (!err)
		err = ipttrace_restore_check_release(
			link, ipttrace_link_attr(info), info->extack);
	if (!err)
		err = ipttrace_journey_check_release(
			link, ipttrace_link_attr(info), info->extack);
	if (err)
		return err;
	ipttrace_link_release(link);
	ipttrace_notify(link, IPTTRACE_CMD_LINK_CHANGED, 0, forced);
	return 0;
}

int ipttrace_nl_release_doit(struct sk_buff *skb, struct genl_info *info)
{
	return ipttrace_nl_with_link(info, release_link);
}

static int rename_link(struct ipttrace_link *link, struct genl_info *info)
{
	const struct nlattr *name = info->attrs[IPTTRACE_A_NEW_NAME];
	int err;

	if (!name) {
		NL_SET_ERR_ATTR_MISS(info->extack, NULL, IPTTRACE_A_NEW_NAME);
		NL_SET_ERR_MSG(info->extack, "no new name is given");
		return -EINVAL;
	}
	err = ipttrace_name_check(name, info->extack);
	if (!err)
		err = ipttrace_link_rename(link, name, info->extack);
	if (!err)
		ipttrace_notify(link, IPTTRACE_CMD_LINK_CHANGED, 0, false);
	return err;
}

int ipttrace_nl_rename_doit(struct sk_buff *skb, struct genl_info *info)
{
	return ipttrace_nl_with_link(info, rename_link);
}

int ipttrace_nl_get_start(struct netlink_callback *cb)
{
	const struct nlattr *link =
		nlmsg_find_attr(cb->nlh, GENL_HDRLEN, IPTTRACE_A_LINK) ?:
			nlmsg_find_attr(cb->nlh, GENL_HDRLEN, IPTTRACE_A_NAME);

	/* a part that is too short for its first link would end the dump */
	cb->min_dump_alloc = ipttrace_link_size();
	if (!link)
		return 0;
	NL_SET_ERR_MSG_ATTR(cb->extack, link,
			    "a dump is of all links: ask for one without it");
	return -EINVAL;
}

int ipttrace_nl_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
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
				      IPTTRACE_CMD_GET, 0, false))
			break;
		*last = link->id;
	}
	if (skb->len)
		nl_dump_check_consistent(cb, nlmsg_hdr(skb));
	mutex_unlock(&ipttrace_lock);
	return skb->len;
}

int ipttrace_nl_history_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct ipttrace_link *link;
	struct sk_buff *msg;
	void *header;
	int err;

	msg = genlmsg_new(NLMSG_DEFAULT_SIZE + ipttrace_history_size(),
			  GFP_KERNEL);
	if (!msg)
		return -ENOMEM;
	header = genlmsg_put_reply(msg, info, &ipttrace_family, 0,
				   IPTTRACE_CMD_HISTORY);
	mutex_lock(&ipttrace_lock);
	link = find_link(info);
	if (IS_ERR(link))
		err = PTR_ERR(link);
	else if (!header || nla_put_u32(msg, IPTTRACE_A_LINK, link->id) ||
		 nla_put_u32(msg, IPTTRACE_A_GENERATION, link->set->generation))
		err = -EMSGSIZE;
	else
		err = ipttrace_put_history(msg, &link->history);
	mutex_unlock(&ipttrace_lock);
	if (err) {
		nlmsg_free(msg);
		return err;
	}
	genlmsg_end(msg, header);
	return genlmsg_reply(msg, info);
}

int ipttrace_nl_stats_doit(struct sk_buff *skb, struct genl_info *info)
{
	/* a nest of five numbers each, the widest eight bytes, with headers and padding */
	size_t size = NLMSG_DEFAULT_SIZE + num_possible_cpus() * 128;
	struct sk_buff *msg = genlmsg_new(size, GFP_KERNEL);
	void *header;
	int cpu;

	if (!msg)
		return -ENOMEM;
	/* the sender may have just begun to listen */
	ipttrace_events_resume();
	/* without memory it is not known yet */
	ipttrace_verify_compare();
	header = genlmsg_put_reply(msg, info, &ipttrace_family, 0,
				   IPTTRACE_CMD_STATS);
	if (!header ||
	    nla_put_u32(msg, IPTTRACE_A_FINGERPRINT, IPTTRACE_FINGERPRINT) ||
	    nla_put_string(msg, IPTTRACE_A_MODULE_VERSION, IPTTRACE_VERSION) ||
	    nla_put_u32(msg, IPTTRACE_A_PROTOCOL_MAJOR,
			IPTTRACE_FAMILY_VERSION) ||
	    nla_put_u32(msg, IPTTRACE_A_PROTOCOL_MINOR,
			IPTTRACE_PROTOCOL_MINOR) ||
	    nla_put_u32(msg, IPTTRACE_A_FEATURES, IPTTRACE_FEATURES) ||
	    ipttrace_put_walk(msg) || ipttrace_put_progress(msg))
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

static const struct genl_multicast_group groups[] = {
	[IPTTRACE_EVENTS] = {
		.name = IPTTRACE_GROUP_EVENTS,
		.flags = GENL_MCAST_CAP_NET_ADMIN,
	},
	[IPTTRACE_LINKS] = {
		.name = IPTTRACE_GROUP_LINKS,
		.flags = GENL_MCAST_CAP_NET_ADMIN,
	},
	[IPTTRACE_NAMESPACES] = {
		.name = IPTTRACE_GROUP_NAMESPACES,
		.flags = GENL_MCAST_CAP_NET_ADMIN,
	},
};

struct genl_family ipttrace_family __ro_after_init = {
	.name = IPTTRACE_FAMILY_NAME,
	.version = IPTTRACE_FAMILY_VERSION,
	.module = THIS_MODULE,
	.parallel_ops = true,
	.ops = ipttrace_nl_operations,
	.n_ops = ARRAY_SIZE(ipttrace_nl_operations),
	.resv_start_op = IPTTRACE_CMD_ATTACH,
	.mcgrps = groups,
	.n_mcgrps = ARRAY_SIZE(groups),
};

/* --- owners -------------------------------------------------------------------------------- */

static bool owned_by(const struct ipttrace_link *link, const void *portid)
{
	return link->owner_portid == *(const u32 *)portid;
}

/* Detaches the links that a closed socket owned. */
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
	ipttrace_verify_release(released->portid);
	/* called for every generic netlink socket; a closed one makes no more links */
	if (!ipttrace_links_any(owned_by, &released->portid))
		return NOTIFY_DONE;

	mutex_lock(&ipttrace_lock);
	list_for_each_entry_safe(link, next, &ipttrace_links, list)
		if (link->owner_portid == released->portid)
			ipttrace_link_leave(link, &leaving);
	ipttrace_links_detach(&leaving);
	list_for_each_entry(link, &leaving, list) {
		ipttrace_link_give_reason(link, NULL);
		ipttrace_notify(link, IPTTRACE_CMD_LINK_DETACHED,
				IPTTRACE_DETACH_REASON_OWNER, false);
	}
	mutex_unlock(&ipttrace_lock);
	list_for_each_entry_safe(link, next, &leaving, list)
		ipttrace_link_free(link);
	return NOTIFY_OK;
}

static struct notifier_block socket_notifier = {
	.notifier_call = socket_released,
};

/* --- namespaces ---------------------------------------------------------------------------- */

/*
 * When the module is unloaded, called for namespaces that stay as well: these are still referenced.
 */
static void __net_exit namespace_leaves(struct net *net)
{
	if (!check_net(net))
		ipttrace_notify_namespace(net);
}

static struct pernet_operations namespace_operations = {
	.pre_exit = namespace_leaves,
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
		goto err_notifier;
	/* its group exists by now, and until after it is unregistered in ipttrace_netlink_exit() */
	err = register_pernet_subsys(&namespace_operations);
	if (err)
		goto err_family;
	return 0;

err_family:
	genl_unregister_family(&ipttrace_family);
err_notifier:
	netlink_unregister_notifier(&socket_notifier);
	return err;
}

/**
 * ipttrace_netlink_exit - unregister the family; no request is under way afterwards
 */
void ipttrace_netlink_exit(void)
{
	unregister_pernet_subsys(&namespace_operations);
	genl_unregister_family(&ipttrace_family);
	netlink_unregister_notifier(&socket_notifier);
}
