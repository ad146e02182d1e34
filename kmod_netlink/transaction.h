/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_TRANSACTION_H
#define _IPTTRACE_TRANSACTION_H

#include "hook.h"
#include "link.h"
#include "rollback.h"

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

/**
 * struct ipttrace_publication - means to put the sets of changing links in force
 * @hooks: the kinds of hooks of these links, a bit each
 * @sets: by kind: the prepared sets; once published, those that were in force before
 *
 * On the stack of the function that makes the change, or in a retirement.
 */
struct ipttrace_publication {
	unsigned long hooks;
	struct ipttrace_sets *sets[IPTTRACE_HOOKS];
};

int ipttrace_publication_prepare(struct ipttrace_publication *publication,
				 const struct list_head *changing, gfp_t gfp);
void ipttrace_publication_free(struct ipttrace_publication *publication);
void ipttrace_links_publish(struct list_head *changing,
			    struct ipttrace_publication *publication);
void ipttrace_links_settle(struct list_head *changing,
			   struct ipttrace_publication *publication,
			   bool expedited);
int ipttrace_links_replace(struct list_head *changing,
			   const struct ipttrace_requester *requester,
			   const struct ipttrace_terms *terms,
			   enum ipttrace_action action);
int ipttrace_links_swap(struct ipttrace_change *changes, unsigned int count,
			const struct ipttrace_requester *requester,
			const struct ipttrace_terms *terms,
			struct netlink_ext_ack *extack);

#endif /* _IPTTRACE_TRANSACTION_H */
