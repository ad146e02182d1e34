// SPDX-License-Identifier: GPL-2.0
#include <linux/irqflags.h>
#include <linux/percpu.h>
#include <linux/sched.h>

#include "nested.h"

/**
 * ipttrace_nested_enter - list a walk
 * @walk: the walk
 * @walks: walks of its kind
 * @most: how many a task may be in
 *
 * Context: on one CPU until ipttrace_nested_leave().
 * Return: true; false if its task is in so many already: then it is not listed.
 */
bool ipttrace_nested_enter(struct ipttrace_nested *walk,
			   struct hlist_head __percpu *walks, unsigned int most)
{
	const struct ipttrace_nested *other;
	struct hlist_head *list;
	unsigned int nested = 0;
	unsigned long flags;

	walk->task = current;
	local_irq_save(flags);
	list = this_cpu_ptr(walks);
	hlist_for_each_entry(other, list, node)
		nested += other->task == current;
	if (nested < most)
		hlist_add_head(&walk->node, list);
	local_irq_restore(flags);
	return nested < most;
}

/**
 * ipttrace_nested_leave - take a walk from its list
 * @walk: the walk
 */
void ipttrace_nested_leave(struct ipttrace_nested *walk)
{
	unsigned long flags;

	local_irq_save(flags);
	hlist_del(&walk->node);
	local_irq_restore(flags);
}
