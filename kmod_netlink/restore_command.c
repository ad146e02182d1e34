// SPDX-License-Identifier: GPL-2.0
/*
 * The commands of an upgrade, before the module goes and when the next one has its links.
 */
#include <net/genetlink.h>

#include "message.h"
#include "netlink_gen.h"
#include "parse.h"
#include "restore.h"

/**
 * ipttrace_put_progress - add to a message how far the numbers of links have come, and whether
 *	links are being restored
 * @msg: the message
 *
 * Context: process, without ipttrace_lock.
 * Return: 0 or -EMSGSIZE.
 */
int ipttrace_put_progress(struct sk_buff *msg)
{
	bool restoring;
	u64 sequence;
	u32 last;

	mutex_lock(&ipttrace_lock);
	sequence = ipttrace_links_sequence;
	last = ipttrace_last_link;
	restoring = ipttrace_restoring();
	mutex_unlock(&ipttrace_lock);
	if (ipttrace_put_u64(msg, IPTTRACE_A_LINKS_SEQUENCE, sequence) ||
	    nla_put_u32(msg, IPTTRACE_A_LAST_LINK, last) ||
	    nla_put_u32(msg, IPTTRACE_A_RESTORING, restoring))
		return -EMSGSIZE;
	return 0;
}

/* Notifies observers of links that were parked, and frees them. */
static void parked_leave(struct list_head *leaving,
			 const struct ipttrace_requester *requester)
{
	struct ipttrace_link *link, *next;

	lockdep_assert_held(&ipttrace_lock);
	list_for_each_entry_safe(link, next, leaving, list) {
		bool forced = link->owner_portid &&
			      link->owner_portid != requester->portid;

		ipttrace_link_give_reason(link, requester->reason);
		ipttrace_notify(link, IPTTRACE_CMD_LINK_DETACHED,
				IPTTRACE_DETACH_REASON_UPGRADE, forced);
		list_del(&link->list);
		ipttrace_link_free(link);
	}
}

int ipttrace_nl_park_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct ipttrace_requester requester = ipttrace_parse_requester(info);
	const struct nlattr *sequence = info->attrs[IPTTRACE_A_LINKS_SEQUENCE];
	LIST_HEAD(leaving);
	int err;

	if (!sequence) {
		NL_SET_ERR_ATTR_MISS(info->extack, NULL,
				     IPTTRACE_A_LINKS_SEQUENCE);
		NL_SET_ERR_MSG(info->extack,
			       "the number of the last change is missing");
		return -EINVAL;
	}
	mutex_lock(&ipttrace_lock);
	err = ipttrace_links_park(sequence, &requester, &leaving, info->extack);
	if (!err)
		parked_leave(&leaving, &requester);
	mutex_unlock(&ipttrace_lock);
	return err;
}

int ipttrace_nl_park_start(struct netlink_callback *cb)
{
	if (!nlmsg_attrlen(cb->nlh, GENL_HDRLEN))
		return 0;
	NL_SET_ERR_MSG(cb->extack,
		       "a dump is of all links: ask for one without it");
	return -EINVAL;
}

int ipttrace_nl_park_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	int length;

	mutex_lock(&ipttrace_lock);
	length = ipttrace_put_parked(skb, cb);
	mutex_unlock(&ipttrace_lock);
	return length;
}

int ipttrace_nl_restored_doit(struct sk_buff *skb, struct genl_info *info)
{
	int err;

	mutex_lock(&ipttrace_lock);
	err = ipttrace_links_restored(info->extack);
	mutex_unlock(&ipttrace_lock);
	return err;
}
