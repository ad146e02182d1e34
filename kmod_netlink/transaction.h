/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_TRANSACTION_H
#define _IPTTRACE_TRANSACTION_H

#include "link.h"

/**
 * struct ipttrace_change - the swap of one link in a transaction
 * @link: the link; found when the transaction is made
 * @ref: its id or name
 * @programs_attr: attribute to blame when the set does not suit the link
 * @set: the next program set; owned by the link on success, else by the caller
 * @forced: the swap was made against an exclusive owner
 * @labelled: the set has the labels that the request gives; otherwise it gets those of the link
 * @expect: expected state of the link
 */
struct ipttrace_change {
	struct ipttrace_link *link;
	struct ipttrace_link_ref ref;
	const struct nlattr *programs_attr;
	struct ipttrace_set *set;
	bool forced;
	bool labelled;
	struct ipttrace_expectation expect;
};

int ipttrace_transaction_init(void);
void ipttrace_transaction_exit(void);
int ipttrace_links_replace(struct list_head *changing,
			   const struct ipttrace_requester *requester,
			   u32 rollback_after, enum ipttrace_action action);
int ipttrace_links_swap(struct ipttrace_change *changes, unsigned int count,
			const struct ipttrace_requester *requester,
			u32 rollback_after, struct netlink_ext_ack *extack);
int ipttrace_rollback_confirm(struct ipttrace_link *link,
			      const struct nlattr *attr,
			      struct netlink_ext_ack *extack);
void ipttrace_rollback_leave(struct ipttrace_link *link);
u32 ipttrace_rollback_in(const struct ipttrace_link *link);

#endif /* _IPTTRACE_TRANSACTION_H */
