/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_ROLLBACK_H
#define _IPTTRACE_ROLLBACK_H

#include "link.h"

struct ipttrace_rollback;

/**
 * struct ipttrace_terms - whether a swap is for good at once, and when its request is answered
 * @rollback_after: milliseconds until the previous sets are put back unless confirmed, or 0
 * @guards: conditions for each link; when one is violated before the swap is confirmed, the
 *	previous sets are put back. NULL if there are none. Owned by the links on success, else by
 *	the caller
 * @ack: enum ipttrace_swap_ack, or 0: once no packet is handled by the previous sets. A swap that
 *	can be rolled back is always answered then
 */
struct ipttrace_terms {
	u32 rollback_after;
	struct ipttrace_conditions *guards;
	u32 ack;
};

int ipttrace_rollback_init(void);
void ipttrace_rollback_exit(void);
struct ipttrace_rollback *
ipttrace_rollback_alloc(const struct ipttrace_terms *terms,
			struct list_head *changing);
void ipttrace_rollback_cancel(struct ipttrace_rollback *rollback,
			      struct list_head *changing);
void ipttrace_rollback_arm(struct ipttrace_rollback *rollback,
			   const struct ipttrace_terms *terms,
			   struct list_head *changing);
void ipttrace_rollback_leave(struct ipttrace_link *link);
int ipttrace_rollback_check(const struct ipttrace_link *link,
			    const struct ipttrace_expectation *expect,
			    const struct nlattr *attr,
			    struct netlink_ext_ack *extack);
void ipttrace_rollback_confirm(struct ipttrace_link *link);
unsigned int ipttrace_rollback_links(const struct ipttrace_link *link);
int ipttrace_rollback_now(struct ipttrace_link *link,
			  const struct ipttrace_requester *requester,
			  const struct nlattr *attr, struct list_head *undone,
			  struct netlink_ext_ack *extack);
size_t ipttrace_rollback_size(void);
int ipttrace_put_rollback(struct sk_buff *msg,
			  const struct ipttrace_link *link);

#endif /* _IPTTRACE_ROLLBACK_H */
