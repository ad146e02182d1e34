/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_HISTORY_H
#define _IPTTRACE_HISTORY_H

#include <linux/sched.h>

#include "condition.h"
#include "ipttrace_netlink.h"

struct ipttrace_link;
struct sk_buff;

/* A program as it was then; it may have been unloaded since. */
struct ipttrace_past_program {
	u32 id;
	u8 tag[IPTTRACE_PROG_TAG];
	char name[IPTTRACE_PROG_NAME];
};

/* A generation and its origin; the members are those of the netlink nest. */
struct ipttrace_past {
	u32 generation;
	u32 action;
	u64 time;
	u32 pid;
	u32 uid;
	char comm[TASK_COMM_LEN];
	struct ipttrace_past_program progs[IPTTRACE_SLOTS];
	u64 transaction;
	char reason[IPTTRACE_REASON + 1];
	struct ipttrace_violation violation;
};

/**
 * struct ipttrace_history - the last generations of a link
 * @count: number of generations so far
 * @past: the last of them, in a ring
 *
 * Part of the link, under ipttrace_lock.
 */
struct ipttrace_history {
	unsigned int count;
	struct ipttrace_past past[IPTTRACE_HISTORY_GENERATIONS];
};

void ipttrace_history_add(struct ipttrace_link *link,
			  enum ipttrace_action action);
size_t ipttrace_history_size(void);
int ipttrace_put_history(struct sk_buff *msg,
			 const struct ipttrace_history *history);

#endif /* _IPTTRACE_HISTORY_H */
