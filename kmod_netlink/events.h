/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_EVENTS_H
#define _IPTTRACE_EVENTS_H

#include <linux/types.h>

#include "ipttrace_netlink.h"

/* The event stream of one CPU, for the stats command. */
struct ipttrace_cpu_stats {
	u64 sequence;
	u64 lost[IPTTRACE_LOSS_NESTED + 1];
};

int ipttrace_events_init(void);
void ipttrace_events_flush(void);
void ipttrace_events_exit(void);
bool ipttrace_events_wanted(void);
void ipttrace_events_resume(void);
bool ipttrace_events_emit(const struct ipttrace_event *event,
			  const void *payload, u32 size);
int ipttrace_events_make_room(void);
void ipttrace_events_count_nested(void);
struct ipttrace_cpu_stats ipttrace_events_stats(int cpu);

#endif /* _IPTTRACE_EVENTS_H */
