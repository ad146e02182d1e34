/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Walks of a task, one inside the other, on the same stack: a rule that duplicates, rejects or
 * forwards a packet sends another through chains and along the spine.
 */
#ifndef _IPTTRACE_NESTED_H
#define _IPTTRACE_NESTED_H

#include <linux/list.h>
#include <linux/types.h>

struct task_struct;

/**
 * struct ipttrace_nested - a walk among those of its CPU
 * @node: in the list of its kind of walk. Lists are per CPU, and touched with interrupts off, since
 *	walks in tasks and in softirqs share them
 * @task: the task that it is in, or that the softirq it is in has interrupted
 *
 * Lives on the stack of the walk, and stays on one CPU.
 */
struct ipttrace_nested {
	struct hlist_node node;
	const struct task_struct *task;
};

bool ipttrace_nested_enter(struct ipttrace_nested *walk,
			   struct hlist_head __percpu *walks,
			   unsigned int most);
void ipttrace_nested_leave(struct ipttrace_nested *walk);

#endif /* _IPTTRACE_NESTED_H */
