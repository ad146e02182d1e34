/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Program sets that selected a packet, and the running of their programs: the same at tables and at
 * chains.
 */
#ifndef _IPTTRACE_SELECTION_H
#define _IPTTRACE_SELECTION_H

#include <linux/bottom_half.h>
#include <linux/netfilter.h>
#include <linux/preempt.h>
#include <linux/types.h>

#include "ipttrace_netlink.h"
#include "link.h"
#include "program.h"

/**
 * struct ipttrace_selection - program sets that a packet meets at a table or base chain
 * @sets: the program sets that are in force for it, from entry to exit
 * @selected: those that selected it and have more programs to run, a bit each
 */
struct ipttrace_selection {
	const struct ipttrace_sets *sets;
	DECLARE_BITMAP(selected, IPTTRACE_MAX_LINKS);
};

void ipttrace_selection_run(const struct ipttrace_selection *selection,
			    enum ipttrace_slot slot,
			    struct ipttrace_event *event, struct pt_regs *regs);

/* The slots in which any set of the selection has a program, a bit each. */
static inline unsigned long
ipttrace_selection_slots(const struct ipttrace_selection *selection)
{
	unsigned long slots = 0;
	unsigned int i;

	for_each_set_bit(i, selection->selected, selection->sets->count)
		slots |= selection->sets->set[i]->slots;
	return slots;
}

/*
 * Notes that a set has selected the packet. Returns true if it has more programs than the entry
 * program, for which the packet is followed.
 */
static __always_inline bool
ipttrace_selection_add(struct ipttrace_selection *selection, unsigned int i)
{
	const struct ipttrace_set *set = selection->sets->set[i];

	this_cpu_inc(set->link->stats->selected);
	if (!(set->slots & ~BIT(IPTTRACE_SLOT_ENTRY)))
		return false;
	__set_bit(i, selection->selected);
	return true;
}

/* Stores a verdict in an event of a rule or an exit. */
static inline void ipttrace_event_verdict(struct ipttrace_event *event,
					  unsigned int verdict)
{
	event->verdict = verdict & NF_VERDICT_MASK;
	event->verdict_data = verdict >> NF_VERDICT_QBITS;
	if (event->verdict == NF_QUEUE &&
	    (verdict & NF_VERDICT_FLAG_QUEUE_BYPASS))
		event->flags |= IPTTRACE_EVENT_FLAG_QUEUE_BYPASS;
}

/*
 * Turns softirqs off, and returns true, unless they are off: an incoming packet is in a softirq.
 * Programs run so: they share per-CPU maps with themselves, as networking programs do, and none may
 * run on top of another. On PREEMPT_RT softirqs are threads, and programs run with preemption off.
 */
static inline bool ipttrace_softirqs_off(void)
{
	if (in_softirq())
		return false;
	local_bh_disable();
	return true;
}

#endif /* _IPTTRACE_SELECTION_H */
