/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_RESTORE_H
#define _IPTTRACE_RESTORE_H

#include "link.h"

struct genl_info;

/**
 * struct ipttrace_restored - what a link was in the module before
 * @attr: attribute to blame in refusals
 * @id: its id
 * @generation: generation of its program set
 * @transaction: number of the change that made the generation
 * @owner_pid: process that made it, or adopted it
 * @owner_comm: its command
 * @stats: its counters
 * @history: its last generations
 * @outcome: enum ipttrace_swap_outcome of its last swap, or 0
 * @violation: of the guard that had it rolled back; of no link otherwise
 *
 * Only the request sees it: there is no lock.
 */
struct ipttrace_restored {
	const struct nlattr *attr;
	u32 id;
	u32 generation;
	u64 transaction;
	u32 owner_pid;
	char owner_comm[TASK_COMM_LEN];
	struct ipttrace_link_stats stats;
	struct ipttrace_history history;
	u32 outcome;
	struct ipttrace_violation violation;
};

int ipttrace_restore_init(void);
void ipttrace_restore_exit(void);
bool ipttrace_restoring(void);
int ipttrace_restore_parse(struct genl_info *info,
			   struct ipttrace_link_spec *spec);
int ipttrace_restore_check(const struct ipttrace_link_spec *spec,
			   struct netlink_ext_ack *extack);
int ipttrace_restore_check_change(const struct ipttrace_link *link,
				  const struct ipttrace_requester *requester,
				  const struct nlattr *attr,
				  struct netlink_ext_ack *extack);
int ipttrace_restore_check_release(const struct ipttrace_link *link,
				   const struct nlattr *attr,
				   struct netlink_ext_ack *extack);
int ipttrace_restore_check_name(const struct nlattr *name,
				struct netlink_ext_ack *extack);
void ipttrace_restore_link(struct ipttrace_link *link,
			   const struct ipttrace_restored *restored);
int ipttrace_links_park(const struct nlattr *sequence,
			const struct ipttrace_requester *requester,
			struct list_head *leaving,
			struct netlink_ext_ack *extack);
int ipttrace_put_progress(struct sk_buff *msg);
int ipttrace_put_parked(struct sk_buff *msg, struct netlink_callback *cb);
int ipttrace_links_restored(struct netlink_ext_ack *extack);

#endif /* _IPTTRACE_RESTORE_H */
