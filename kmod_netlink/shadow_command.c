// SPDX-License-Identifier: GPL-2.0
/*
 * The commands that give a link a shadow, promote it or drop it (shadow.c).
 */
#include <linux/slab.h>
#include <net/genetlink.h>

#include "message.h"
#include "netlink.h"
#include "netlink_gen.h"
#include "owner.h"
#include "parse.h"
#include "promotion.h"
#include "shadow.h"

static int add_shadow(struct ipttrace_link *link, struct genl_info *info)
{
	struct ipttrace_requester requester = ipttrace_parse_requester(info);
	struct ipttrace_change *change = info->user_ptr[0];
	int err;

	change->link = link;
	err = ipttrace_shadow_add(change, &requester, info->user_ptr[1],
				  info->extack);
	if (err)
		return err;
	/* they are the link's now */
	change->set = NULL;
	info->user_ptr[1] = NULL;
	ipttrace_notify(link, IPTTRACE_CMD_LINK_CHANGED, 0, change->forced);
	return 0;
}

int ipttrace_nl_shadow_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct ipttrace_promotion *promotion = ipttrace_promotion_parse(info);
	struct ipttrace_change *change;
	int err;

	if (IS_ERR(promotion))
		return PTR_ERR(promotion);
	change = ipttrace_parse_swap(info);
	if (IS_ERR(change)) {
		ipttrace_promotion_free(promotion);
		return PTR_ERR(change);
	}
	info->user_ptr[0] = change;
	info->user_ptr[1] = promotion;
	err = ipttrace_nl_with_link(info, add_shadow);
	ipttrace_promotion_free(info->user_ptr[1]);
	ipttrace_changes_free(change, 1, false);
	return err;
}

/* Checks that a link has the shadow that a request is about, and that its sender may change it. */
static int check_shadow(const struct ipttrace_link *link,
			struct genl_info *info,
			const struct ipttrace_requester *requester,
			bool *forced)
{
	const struct nlattr *number = info->attrs[IPTTRACE_A_EXPECT_SHADOW];
	struct ipttrace_expectation expect;
	int err;

	if (!link->shadow) {
		NL_SET_ERR_MSG_ATTR(
			info->extack, ipttrace_link_attr(info),
			"the link has no shadow: none was given to it, or it was promoted or dropped");
		return -ENODATA;
	}
	err = ipttrace_link_permit(link, requester, forced,
				   ipttrace_link_attr(info), info->extack);
	if (!err)
		err = ipttrace_parse_expectation(info, &expect);
	if (!err)
		err = ipttrace_link_check(link, &expect, info->extack);
	if (err)
		return err;
	if (number && nla_get_u64(number) != link->shadow->number) {
		NL_SET_ERR_MSG_ATTR(
			info->extack, number,
			"the link has another shadow than expected");
		return -ESTALE;
	}
	return 0;
}

static int promote(struct ipttrace_link *link, struct genl_info *info)
{
	struct ipttrace_requester requester = ipttrace_parse_requester(info);
	struct ipttrace_terms terms;
	bool forced;
	int err;

	err = check_shadow(link, info, &requester, &forced);
	if (!err)
		err = ipttrace_parse_terms(info, &terms);
	if (err)
		return err;
	err = ipttrace_shadow_promote(link, &requester, &terms);
	if (err) {
		kfree(terms.guards);
		return err;
	}
	ipttrace_notify(link, IPTTRACE_CMD_LINK_SWAPPED, 0, forced);
	return 0;
}

int ipttrace_nl_promote_doit(struct sk_buff *skb, struct genl_info *info)
{
	return ipttrace_nl_with_link(info, promote);
}

static int drop_shadow(struct ipttrace_link *link, struct genl_info *info)
{
	struct ipttrace_requester requester = ipttrace_parse_requester(info);
	bool forced;
	int err;

	err = check_shadow(link, info, &requester, &forced);
	if (err)
		return err;
	ipttrace_shadow_drop(link);
	ipttrace_notify(link, IPTTRACE_CMD_LINK_CHANGED, 0, forced);
	return 0;
}

int ipttrace_nl_drop_shadow_doit(struct sk_buff *skb, struct genl_info *info)
{
	return ipttrace_nl_with_link(info, drop_shadow);
}
