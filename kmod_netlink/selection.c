// SPDX-License-Identifier: GPL-2.0
/*
 * The programs of the sets that selected a packet.
 */
#include <linux/ktime.h>

#include "events.h"
#include "selection.h"

/**
 * ipttrace_selection_run - run programs, and emit the events that they ask for
 * @selection: the program sets that follow the packet
 * @slot: the slot whose programs run
 * @event: the event, filled in but for time, link and generation; NULL if nobody listens
 * @regs: context of the programs
 *
 * Context: softirqs off, the RCU read lock held since the selection was made.
 */
void ipttrace_selection_run(const struct ipttrace_selection *selection,
			    enum ipttrace_slot slot,
			    struct ipttrace_event *event, struct pt_regs *regs)
{
	bool wanted = event && ipttrace_events_wanted();
	unsigned int i;

	if (wanted)
		event->time = ktime_get_ns();
	for_each_set_bit(i, selection->selected, selection->sets->count) {
		const struct ipttrace_set *set = selection->sets->set[i];

		if (!set->progs[slot])
			continue;
		/* on PREEMPT_RT an entry program could write into the payload of this one */
		preempt_disable();
		if (ipttrace_set_run(set, slot, regs)) {
			this_cpu_inc(set->link->stats->events);
			if (wanted)
				ipttrace_set_emit(set, slot, event);
		}
		preempt_enable();
	}
}
