/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_CONDITION_H
#define _IPTTRACE_CONDITION_H

#include <linux/skbuff.h>

#include "compat/compiler.h"
#include "ipttrace_netlink.h"

struct genl_info;
struct ipttrace_link_stats;

/**
 * struct ipttrace_condition - what a counter of a link has to be
 * @counter: enum ipttrace_counter
 * @comparison: enum ipttrace_comparison, with @threshold
 * @threshold: the number that the counter is compared with
 * @per_time: @threshold is a number in this time, ms; or 0
 * @per_packets: @threshold is a number in this many packets; or 0
 * @window: time over which is measured, ms; 0 is all time since the beginning
 * @minimum: least number of packets in the window, at least 1
 *
 * Constant. At most one of @per_time and @per_packets is set, and @per_time not without @window.
 */
struct ipttrace_condition {
	u32 counter;
	u32 comparison;
	u32 threshold;
	u32 per_time;
	u32 per_packets;
	u32 window;
	u32 minimum;
};

/**
 * struct ipttrace_conditions - conditions that have to be met together
 * @count: number of conditions, at least one
 * @condition: the conditions
 *
 * Constant; one owner, who frees it with kfree().
 */
struct ipttrace_conditions {
	unsigned int count;
	struct ipttrace_condition condition[] __counted_by(count);
};

/**
 * struct ipttrace_reading - a counter and the packets of a link at a time, or what both grew by
 * @time: ms
 * @packets: packets that reached the hook, or, for a counter of a shadow, that were compared
 * @count: the counter of the condition
 */
struct ipttrace_reading {
	u64 time;
	u64 packets;
	u64 count;
};

/* A window is divided by its readings into this many parts. */
#define IPTTRACE_WINDOW_PARTS 10

/**
 * struct ipttrace_window - readings for one condition at one link
 * @first: index of the oldest reading
 * @count: number of readings, at least one
 * @reading: a ring of them: the last one that is as old as the condition's window, if there is one,
 *	and those after it, each at least a part of the window after the one before
 *
 * Belongs to whoever measures, under the lock of that.
 */
struct ipttrace_window {
	unsigned int first;
	unsigned int count;
	struct ipttrace_reading reading[IPTTRACE_WINDOW_PARTS + 2];
};

/**
 * enum ipttrace_verdict - a condition as it was measured
 * @IPTTRACE_CONDITION_OPEN: the window is not over, or has too few packets
 * @IPTTRACE_CONDITION_MET: met in a whole window
 * @IPTTRACE_CONDITION_VIOLATED: violated in a whole window, or in so much of it that the rest makes
 *	no difference
 */
enum ipttrace_verdict {
	IPTTRACE_CONDITION_OPEN,
	IPTTRACE_CONDITION_MET,
	IPTTRACE_CONDITION_VIOLATED,
};

/**
 * struct ipttrace_violation - how a condition was violated
 * @condition: the condition
 * @link: id of the link; 0 if there was no violation
 * @measured: what packets and counter grew by, and in which time
 */
struct ipttrace_violation {
	struct ipttrace_condition condition;
	u32 link;
	struct ipttrace_reading measured;
};

struct ipttrace_conditions *
ipttrace_conditions_parse(const struct genl_info *info, int type,
			  unsigned int most);
unsigned int
ipttrace_conditions_interval(const struct ipttrace_conditions *conditions);
bool ipttrace_condition_of_shadow(const struct ipttrace_condition *condition);
struct ipttrace_reading
ipttrace_condition_read(const struct ipttrace_condition *condition,
			const struct ipttrace_link_stats *stats);
void ipttrace_window_begin(struct ipttrace_window *window,
			   const struct ipttrace_reading *now);
enum ipttrace_verdict
ipttrace_window_judge(struct ipttrace_window *window,
		      const struct ipttrace_condition *condition,
		      const struct ipttrace_reading *now,
		      struct ipttrace_reading *measured);
size_t ipttrace_condition_size(void);
int ipttrace_put_condition(struct sk_buff *msg, int type,
			   const struct ipttrace_condition *condition);
int ipttrace_violation_parse(struct ipttrace_violation *violation,
			     const struct nlattr *nest,
			     struct netlink_ext_ack *extack);
size_t ipttrace_violation_size(void);
int ipttrace_put_violation(struct sk_buff *msg, int type,
			   const struct ipttrace_violation *violation);

#endif /* _IPTTRACE_CONDITION_H */
