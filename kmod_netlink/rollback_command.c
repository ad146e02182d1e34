// SPDX-License-Identifier: GPL-2.0
/*
 * The commands about a swap that waits: confirm it, or roll it back at once. They name it by one of
 * its links, or by the number of its transaction.
 */
#include <net/genetlink.h>

#include "message.h"
#include "netlink_gen.h"
#include "parse.h"
#include "rollback.h"

/* The attribute that names the swap of a request. */
static const struct nlattr *swap_attr(const struct genl_info *info)
{
	return info->attrs[IPTTRACE_A_TRANSACTION]  ?:
		       info->attrs[IPTTRACE_A_LINK] ?:
		       info->attrs[IPTTRACE_A_NAME];
}

/* A link whose last swap is of the transaction. */
static struct ipttrace_link *find_transaction(const struct nlattr *attr,
					      struct netlink_ext_ack *extack)
{
	struct ipttrace_link *link;

	list_for_each_entry(link, &ipttrace_links, list)
		if (link->transaction == nla_get_u64(attr))
			return link;
	NL_SET_ERR_MSG_ATTR(
		extack, attr,
		"the transaction is not the last one of any link: the links were swapped again, or are gone");
	return ERR_PTR(-ENOENT);
}

/* One link of the swap that a request is about, valid while ipttrace_lock is held. */
static struct ipttrace_link *find_swap(struct genl_info *info)
{
	const struct nlattr *transaction = info->attrs[IPTTRACE_A_TRANSACTION];
	struct ipttrace_link_ref ref;
	int err;

	if (!transaction) {
		err = ipttrace_parse_link(info, &ref);
		return err ? ERR_PTR(err) :
			     ipttrace_link_find(&ref, info->extack);
	}
	if (info->attrs[IPTTRACE_A_LINK] || info->attrs[IPTTRACE_A_NAME] ||
	    info->attrs[IPTTRACE_A_EXPECT_GENERATION]) {
		NL_SET_ERR_MSG_ATTR(
			info->extack, transaction,
			"a swap is given by its transaction, or by a link with its generation, not by both");
		return ERR_PTR(-EINVAL);
	}
	return find_transaction(transaction, info->extack);
}

/*
 * One link of the swap that a request is about, if that waits. Without an expectation it is
 * whichever swap waits now.
 */
static struct ipttrace_link *find_waiting(struct genl_info *info)
{
	struct ipttrace_expectation expect;
	struct ipttrace_link *link;
	int err;

	err = ipttrace_parse_expectation(info, &expect);
	if (err)
		return ERR_PTR(err);
	link = find_swap(info);
	if (IS_ERR(link))
		return link;
	err = ipttrace_rollback_check(link, &expect, swap_attr(info),
				      info->extack);
	return err ? ERR_PTR(err) : link;
}

/* A message with room for replies about some links. */
static struct sk_buff *reply_new(unsigned int links)
{
	return genlmsg_new(links * ipttrace_link_size(), GFP_KERNEL);
}

static int reply_add(struct sk_buff *msg, const struct genl_info *info,
		     const struct ipttrace_link *link)
{
	int err;

	err = ipttrace_put_link(msg, link, info->snd_portid, info->snd_seq, 0,
				info->genlhdr->cmd, 0, false);
	WARN_ON_ONCE(err);
	return err;
}

/* Sends the replies, or frees them after an error. */
static int reply_send(struct sk_buff *msg, struct genl_info *info, int err)
{
	if (!err)
		return genlmsg_reply(msg, info);
	nlmsg_free(msg);
	return err;
}

int ipttrace_nl_confirm_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct ipttrace_link *link;
	struct sk_buff *msg;
	int err;

	/* before anything changes, so that no change goes unanswered */
	msg = reply_new(1);
	if (!msg)
		return -ENOMEM;
	mutex_lock(&ipttrace_lock);
	link = find_waiting(info);
	err = PTR_ERR_OR_ZERO(link);
	if (!err) {
		ipttrace_rollback_confirm(link);
		err = reply_add(msg, info, link);
	}
	err = reply_send(msg, info, err);
	mutex_unlock(&ipttrace_lock);
	return err;
}

/* Rolls the swap of a link back at once, and replies with all its links. */
static int roll_back(struct genl_info *info, struct ipttrace_link *link)
{
	struct ipttrace_requester requester = ipttrace_parse_requester(info);
	struct ipttrace_link *next;
	struct sk_buff *msg;
	LIST_HEAD(undone);
	int err;

	msg = reply_new(ipttrace_rollback_links(link));
	if (!msg)
		return -ENOMEM;
	err = ipttrace_rollback_now(link, &requester, swap_attr(info), &undone,
				    info->extack);
	list_for_each_entry_safe(link, next, &undone, change) {
		list_del_init(&link->change);
		err = err ?: reply_add(msg, info, link);
	}
	return reply_send(msg, info, err);
}

int ipttrace_nl_rollback_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct ipttrace_link *link;
	int err;

	mutex_lock(&ipttrace_lock);
	link = find_waiting(info);
	err = IS_ERR(link) ? PTR_ERR(link) : roll_back(info, link);
	mutex_unlock(&ipttrace_lock);
	return err;
}
