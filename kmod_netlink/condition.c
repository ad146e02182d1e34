// SPDX-License-Identifier: GPL-2.0
/*
 * Conditions on the counters of a link: parsed from requests, measured over windows of time that
 * end now, put into messages. What depends on them is not known here.
 *
 * Numbers are compared as products of a 64-bit and a 32-bit number, which 96 bits hold: nothing
 * overflows, and nothing is divided by a number that was counted or given.
 */
#include <linux/ktime.h>
#include <linux/slab.h>
#include <net/genetlink.h>

#include "condition.h"
#include "link.h"
#include "message.h"
#include "netlink_gen.h"

/* Bounds of the time between two readings, ms. */
#define SHORTEST_INTERVAL 20
#define LONGEST_INTERVAL 200

/* --- parsing ------------------------------------------------------------------------------- */

static u32 given(const struct nlattr *attr, u32 otherwise)
{
	return attr ? nla_get_u32(attr) : otherwise;
}

static u64 given_u64(const struct nlattr *attr)
{
	return attr ? nla_get_u64(attr) : 0;
}

static int check_required(const struct nlattr *nest, struct nlattr **tb,
			  struct netlink_ext_ack *extack)
{
	static const int types[] = { IPTTRACE_A_CONDITION_COUNTER,
				     IPTTRACE_A_CONDITION_COMPARISON,
				     IPTTRACE_A_CONDITION_THRESHOLD };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(types); i++)
		if (!tb[types[i]]) {
			NL_SET_ERR_ATTR_MISS(extack, nest, types[i]);
			NL_SET_ERR_MSG(
				extack,
				"a condition needs a counter, a comparison and a threshold");
			return -EINVAL;
		}
	return 0;
}

static int check_sense(const struct nlattr *nest,
		       const struct ipttrace_condition *condition,
		       struct netlink_ext_ack *extack)
{
	u32 comparison = condition->comparison;
	bool lower = comparison == IPTTRACE_COMPARISON_ABOVE ||
		     comparison == IPTTRACE_COMPARISON_AT_LEAST;

	if (condition->per_time && condition->per_packets) {
		NL_SET_ERR_MSG_ATTR(
			extack, nest,
			"a condition is on a number in a time or in packets, not in both");
		return -EINVAL;
	}
	if (!condition->threshold &&
	    (comparison == IPTTRACE_COMPARISON_BELOW ||
	     comparison == IPTTRACE_COMPARISON_AT_LEAST)) {
		NL_SET_ERR_MSG_ATTR(
			extack, nest,
			"nothing is below 0: the condition decides nothing");
		return -EINVAL;
	}
	/* in the beginning it would be violated in any case */
	if (lower && !condition->per_packets && !condition->window) {
		NL_SET_ERR_MSG_ATTR(
			extack, nest,
			"a condition that asks for a number or more needs a time or packets in which it has to be reached");
		return -EINVAL;
	}
	return 0;
}

static int parse_condition(struct ipttrace_condition *condition,
			   const struct nlattr *nest,
			   struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_condition_policy)];
	int err;

	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_condition_policy, extack);
	if (!err)
		err = check_required(nest, tb, extack);
	if (err)
		return err;
	condition->counter = nla_get_u32(tb[IPTTRACE_A_CONDITION_COUNTER]);
	condition->comparison =
		nla_get_u32(tb[IPTTRACE_A_CONDITION_COMPARISON]);
	condition->threshold = nla_get_u32(tb[IPTTRACE_A_CONDITION_THRESHOLD]);
	condition->per_time = given(tb[IPTTRACE_A_CONDITION_PER_TIME], 0);
	condition->per_packets = given(tb[IPTTRACE_A_CONDITION_PER_PACKETS], 0);
	condition->window = given(tb[IPTTRACE_A_CONDITION_WINDOW],
				  condition->per_time ?
					  max_t(u32, condition->per_time,
						IPTTRACE_MIN_WINDOW) :
					  0);
	condition->minimum = given(tb[IPTTRACE_A_CONDITION_MINIMUM],
				   condition->per_packets ?: 1);
	return check_sense(nest, condition, extack);
}

/**
 * ipttrace_conditions_parse - parse all conditions in a request
 * @info: the request
 * @type: number of the nest of a condition, which may come several times
 * @most: most conditions that there may be
 *
 * Return: the conditions, which the caller owns and frees with kfree(), NULL if there are none, or
 * ERR_PTR(): -EINVAL, -E2BIG or -ENOMEM.
 */
struct ipttrace_conditions *
ipttrace_conditions_parse(const struct genl_info *info, int type,
			  unsigned int most)
{
	struct ipttrace_conditions *conditions;
	const struct nlattr *attr;
	unsigned int count = 0, i = 0;
	int remaining, err;

	nlmsg_for_each_attr(attr, info->nlhdr, GENL_HDRLEN, remaining)
		if (nla_type(attr) == type)
			count++;
	if (!count)
		return NULL;
	if (count > most) {
		NL_SET_ERR_MSG_ATTR(info->extack, info->attrs[type],
				    "there are more conditions than are taken");
		return ERR_PTR(-E2BIG);
	}
	conditions =
		kzalloc(struct_size(conditions, condition, count), GFP_KERNEL);
	if (!conditions)
		return ERR_PTR(-ENOMEM);
	conditions->count = count;
	nlmsg_for_each_attr(attr, info->nlhdr, GENL_HDRLEN, remaining) {
		if (nla_type(attr) != type)
			continue;
		err = parse_condition(&conditions->condition[i++], attr,
				      info->extack);
		if (err) {
			kfree(conditions);
			return ERR_PTR(err);
		}
	}
	return conditions;
}

/**
 * ipttrace_violation_parse - parse how a condition was violated
 * @violation: the result
 * @nest: the nest, or NULL if there was no violation
 * @extack: extended ACK, set on error
 *
 * Return: 0 or -EINVAL.
 */
int ipttrace_violation_parse(struct ipttrace_violation *violation,
			     const struct nlattr *nest,
			     struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_violation_policy)];
	int err;

	if (!nest)
		return 0;
	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_violation_policy, extack);
	if (err)
		return err;
	if (!tb[IPTTRACE_A_VIOLATION_CONDITION] ||
	    !tb[IPTTRACE_A_VIOLATION_LINK]) {
		NL_SET_ERR_MSG_ATTR(
			extack, nest,
			"a violation needs its condition and its link");
		return -EINVAL;
	}
	violation->link = nla_get_u32(tb[IPTTRACE_A_VIOLATION_LINK]);
	violation->measured = (struct ipttrace_reading){
		.time = given_u64(tb[IPTTRACE_A_VIOLATION_TIME]),
		.packets = given_u64(tb[IPTTRACE_A_VIOLATION_PACKETS]),
		.count = given_u64(tb[IPTTRACE_A_VIOLATION_COUNT]),
	};
	return parse_condition(&violation->condition,
			       tb[IPTTRACE_A_VIOLATION_CONDITION], extack);
}

/* --- measuring ----------------------------------------------------------------------------- */

/**
 * ipttrace_conditions_interval - the time between two readings
 * @conditions: conditions that are measured together
 *
 * Return: ms: a part of the shortest window, if that is not too short or too long.
 */
unsigned int
ipttrace_conditions_interval(const struct ipttrace_conditions *conditions)
{
	u32 interval = LONGEST_INTERVAL;
	unsigned int i;

	for (i = 0; i < conditions->count; i++) {
		u32 window = conditions->condition[i].window;

		if (window)
			interval =
				min(interval, window / IPTTRACE_WINDOW_PARTS);
	}
	return max_t(u32, interval, SHORTEST_INTERVAL);
}

static u64 counter_value(u32 counter, const struct ipttrace_link_stats *stats)
{
	u64 runs = 0;
	unsigned int slot;

	switch (counter) {
	case IPTTRACE_COUNTER_PACKETS:
		return stats->packets;
	case IPTTRACE_COUNTER_SELECTED:
		return stats->selected;
	case IPTTRACE_COUNTER_EVENTS:
		return stats->events;
	case IPTTRACE_COUNTER_NESTED:
		return stats->nested;
	case IPTTRACE_COUNTER_LOST:
		return stats->lost;
	case IPTTRACE_COUNTER_DROPS:
		return stats->drops;
	case IPTTRACE_COUNTER_RUNS:
		for (slot = 0; slot < IPTTRACE_SLOTS; slot++)
			runs += stats->slots[slot].runs;
		return runs;
	case IPTTRACE_COUNTER_AGREEMENTS:
		return stats->shadow.agreed;
	case IPTTRACE_COUNTER_DISAGREEMENTS:
		return stats->shadow.disagreed;
	}
	/* the policy knows no other */
	WARN_ON_ONCE(1);
	return 0;
}

/**
 * ipttrace_condition_of_shadow - check whether a condition is about the shadow of a link
 * @condition: the condition; if it is, its packets are those that were compared
 */
bool ipttrace_condition_of_shadow(const struct ipttrace_condition *condition)
{
	return condition->counter == IPTTRACE_COUNTER_AGREEMENTS ||
	       condition->counter == IPTTRACE_COUNTER_DISAGREEMENTS;
}

/**
 * ipttrace_condition_read - read now what a condition is about
 * @condition: the condition
 * @stats: counters of the link, summed over the CPUs
 */
struct ipttrace_reading
ipttrace_condition_read(const struct ipttrace_condition *condition,
			const struct ipttrace_link_stats *stats)
{
	return (struct ipttrace_reading){
		.time = ktime_to_ms(ktime_get()),
		.packets =
			ipttrace_condition_of_shadow(condition) ?
				stats->shadow.agreed + stats->shadow.disagreed :
				stats->packets,
		.count = counter_value(condition->counter, stats),
	};
}

/**
 * ipttrace_window_begin - begin to measure
 * @window: the window; what is in it is forgotten
 * @now: the first reading
 */
void ipttrace_window_begin(struct ipttrace_window *window,
			   const struct ipttrace_reading *now)
{
	window->first = 0;
	window->count = 1;
	window->reading[0] = *now;
}

static struct ipttrace_reading *reading_at(struct ipttrace_window *window,
					   unsigned int place)
{
	return &window->reading[(window->first + place) %
				ARRAY_SIZE(window->reading)];
}

/* Forgets readings that no window which ends now, or later, begins with; adds the present one. */
static void window_move(struct ipttrace_window *window, u32 length,
			const struct ipttrace_reading *now)
{
	u32 part = DIV_ROUND_UP(length, IPTTRACE_WINDOW_PARTS);
	const struct ipttrace_reading *last;

	while (window->count > 1 &&
	       now->time - reading_at(window, 1)->time >= length) {
		window->first =
			(window->first + 1) % ARRAY_SIZE(window->reading);
		window->count--;
	}
	last = reading_at(window, window->count - 1);
	/* it has room: those younger than the window are a part of it apart */
	if (now->time - last->time >= part &&
	    !WARN_ON_ONCE(window->count == ARRAY_SIZE(window->reading)))
		*reading_at(window, window->count++) = *now;
}

/* A number of 96 bits. */
struct product {
	u64 high;
	u32 low;
};

static struct product product(u64 a, u32 b)
{
	u64 low = (a & U32_MAX) * b;

	return (struct product){
		.high = (a >> 32) * b + (low >> 32),
		.low = lower_32_bits(low),
	};
}

/* Negative, 0 or positive, as strcmp() has it. */
static int product_compare(struct product a, struct product b)
{
	if (a.high != b.high)
		return a.high < b.high ? -1 : 1;
	if (a.low != b.low)
		return a.low < b.low ? -1 : 1;
	return 0;
}

static bool is_met(const struct ipttrace_condition *condition,
		   const struct ipttrace_reading *measured)
{
	/* count / unit, compared with threshold / base */
	u64 base = 1;
	u32 unit = 1;
	int difference;

	if (condition->per_packets) {
		base = measured->packets;
		unit = condition->per_packets;
	} else if (condition->window) {
		/* as measured: a little more than the window, or less if it is not over */
		base = max_t(u64, measured->time, condition->window);
		unit = condition->per_time ?: condition->window;
	}
	difference = product_compare(product(measured->count, unit),
				     product(base, condition->threshold));
	switch (condition->comparison) {
	case IPTTRACE_COMPARISON_BELOW:
		return difference < 0;
	case IPTTRACE_COMPARISON_AT_MOST:
		return difference <= 0;
	case IPTTRACE_COMPARISON_ABOVE:
		return difference > 0;
	default:
		return difference >= 0;
	}
}

/* A count is beyond its bound for the rest of the window; a ratio may return. */
static bool stays_violated(const struct ipttrace_condition *condition)
{
	return !condition->per_packets &&
	       (condition->comparison == IPTTRACE_COMPARISON_BELOW ||
		condition->comparison == IPTTRACE_COMPARISON_AT_MOST);
}

/*
 * The growth of a count. The sum of what processors have counted can be a little less than one read
 * before, as they go on meanwhile, and a packet that turns out not to be a link's is taken back.
 */
static u64 growth(u64 now, u64 before)
{
	return (s64)(now - before) < 0 ? 0 : now - before;
}

/**
 * ipttrace_window_judge - judge a condition by the window that ends now
 * @window: its readings; @now is added to them
 * @condition: the condition
 * @now: the present reading
 * @measured: set to the growth in the window
 *
 * Return: enum ipttrace_verdict.
 */
enum ipttrace_verdict
ipttrace_window_judge(struct ipttrace_window *window,
		      const struct ipttrace_condition *condition,
		      const struct ipttrace_reading *now,
		      struct ipttrace_reading *measured)
{
	const struct ipttrace_reading *first;
	bool whole;

	if (condition->window)
		window_move(window, condition->window, now);
	first = reading_at(window, 0);
	measured->time = now->time - first->time;
	measured->packets = growth(now->packets, first->packets);
	measured->count = growth(now->count, first->count);
	whole = measured->time >= condition->window;
	if (measured->packets < condition->minimum)
		return IPTTRACE_CONDITION_OPEN;
	if (is_met(condition, measured))
		return whole ? IPTTRACE_CONDITION_MET : IPTTRACE_CONDITION_OPEN;
	return whole || stays_violated(condition) ?
		       IPTTRACE_CONDITION_VIOLATED :
		       IPTTRACE_CONDITION_OPEN;
}

/* --- messages ------------------------------------------------------------------------------ */

/**
 * ipttrace_condition_size - space that ipttrace_put_condition() needs in a message
 */
size_t ipttrace_condition_size(void)
{
	return nla_total_size(0) + 7 * nla_total_size(sizeof(u32));
}

/**
 * ipttrace_put_condition - add a condition to a message
 * @msg: the message
 * @type: number of the nest
 * @condition: the condition
 *
 * Return: 0 or -EMSGSIZE.
 */
int ipttrace_put_condition(struct sk_buff *msg, int type,
			   const struct ipttrace_condition *condition)
{
	struct nlattr *nest = nla_nest_start(msg, type);

	if (!nest ||
	    nla_put_u32(msg, IPTTRACE_A_CONDITION_COUNTER,
			condition->counter) ||
	    nla_put_u32(msg, IPTTRACE_A_CONDITION_COMPARISON,
			condition->comparison) ||
	    nla_put_u32(msg, IPTTRACE_A_CONDITION_THRESHOLD,
			condition->threshold) ||
	    (condition->per_time &&
	     nla_put_u32(msg, IPTTRACE_A_CONDITION_PER_TIME,
			 condition->per_time)) ||
	    (condition->per_packets &&
	     nla_put_u32(msg, IPTTRACE_A_CONDITION_PER_PACKETS,
			 condition->per_packets)) ||
	    (condition->window && nla_put_u32(msg, IPTTRACE_A_CONDITION_WINDOW,
					      condition->window)) ||
	    nla_put_u32(msg, IPTTRACE_A_CONDITION_MINIMUM, condition->minimum))
		return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}

/**
 * ipttrace_violation_size - space that ipttrace_put_violation() needs in a message
 */
size_t ipttrace_violation_size(void)
{
	return nla_total_size(0) + ipttrace_condition_size() +
	       nla_total_size(sizeof(u32)) + 3 * nla_total_size(sizeof(u64));
}

/**
 * ipttrace_put_violation - add a violation to a message
 * @msg: the message
 * @type: number of the nest
 * @violation: the violation; one of no link adds nothing
 *
 * Return: 0 or -EMSGSIZE.
 */
int ipttrace_put_violation(struct sk_buff *msg, int type,
			   const struct ipttrace_violation *violation)
{
	const struct ipttrace_reading *measured = &violation->measured;
	struct nlattr *nest;

	if (!violation->link)
		return 0;
	nest = nla_nest_start(msg, type);
	if (!nest ||
	    ipttrace_put_condition(msg, IPTTRACE_A_VIOLATION_CONDITION,
				   &violation->condition) ||
	    nla_put_u32(msg, IPTTRACE_A_VIOLATION_LINK, violation->link) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_VIOLATION_COUNT,
			     measured->count) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_VIOLATION_PACKETS,
			     measured->packets) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_VIOLATION_TIME, measured->time))
		return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}
