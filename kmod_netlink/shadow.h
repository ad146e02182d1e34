/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_SHADOW_H
#define _IPTTRACE_SHADOW_H

#include "link.h"
#include "rollback.h"
#include "transaction.h"

struct ipttrace_promotion;

/**
 * struct ipttrace_shadow - a program set whose verdicts are compared with those of its link
 * @set: the program set, owned
 * @number: ipttrace_links_sequence of the change that gave it to the link
 * @promotion: has it promoted when conditions are met, owned; NULL if nothing does. No packet looks
 *	at it
 *
 * Owned by the link, under ipttrace_lock; packets find it in the link's set through RCU, and read
 * @set and @number, which are constant. Once it is taken from there, it is freed a grace period
 * later, and @set unless it was promoted.
 */
struct ipttrace_shadow {
	struct ipttrace_set *set;
	u64 number;
	struct ipttrace_promotion *promotion;
};

int ipttrace_shadow_check_maps(const struct ipttrace_set *set,
			       const struct nlattr *attr,
			       struct netlink_ext_ack *extack);
int ipttrace_shadow_add(struct ipttrace_change *change,
			const struct ipttrace_requester *requester,
			struct ipttrace_promotion *promotion,
			struct netlink_ext_ack *extack);
int ipttrace_shadow_promote(struct ipttrace_link *link,
			    const struct ipttrace_requester *requester,
			    const struct ipttrace_terms *terms);
void ipttrace_shadow_leave(struct ipttrace_link *link);
void ipttrace_shadow_drop(struct ipttrace_link *link);
void ipttrace_shadow_free(struct ipttrace_link *link);

#endif /* _IPTTRACE_SHADOW_H */
