// SPDX-License-Identifier: GPL-2.0
/*
 * Attributes of a link that is restored: what it was in the module before.
 */
#include <linux/slab.h>
#include <net/genetlink.h>

#include "condition.h"
#include "netlink_gen.h"
#include "restore.h"

static u32 get_u32(const struct nlattr *attr)
{
	return attr ? nla_get_u32(attr) : 0;
}

static u64 get_u64(const struct nlattr *attr)
{
	return attr ? nla_get_u64(attr) : 0;
}

static void get_string(char *text, size_t size, const struct nlattr *attr)
{
	if (attr)
		nla_strscpy(text, attr, size);
}

/* A slot that is missing from @outer is a bad request. */
static int parse_slot(const struct nlattr *slot, const struct nlattr *outer,
		      struct netlink_ext_ack *extack)
{
	if (slot)
		return 0;
	NL_SET_ERR_MSG_ATTR(extack, outer, "no slot is given");
	return -EINVAL;
}

static int parse_slot_stats(struct ipttrace_link_stats *stats,
			    const struct nlattr *nest,
			    struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_slot_stats_policy)];
	struct ipttrace_slot_stats *slot;
	int err;

	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_slot_stats_policy, extack);
	if (!err)
		err = parse_slot(tb[IPTTRACE_A_SLOT_STATS_SLOT], nest, extack);
	if (err)
		return err;
	slot = &stats->slots[nla_get_u32(tb[IPTTRACE_A_SLOT_STATS_SLOT])];
	slot->runs = get_u64(tb[IPTTRACE_A_SLOT_STATS_RUNS]);
	slot->run_time = get_u64(tb[IPTTRACE_A_SLOT_STATS_RUN_TIME]);
	return 0;
}

static int parse_stats(struct ipttrace_link_stats *stats,
		       const struct nlattr *nest,
		       struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_link_stats_policy)];
	const struct nlattr *attr;
	int remaining, err;

	if (!nest)
		return 0;
	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_link_stats_policy, extack);
	if (err)
		return err;
	stats->packets = get_u64(tb[IPTTRACE_A_LINK_STATS_PACKETS]);
	stats->selected = get_u64(tb[IPTTRACE_A_LINK_STATS_SELECTED]);
	stats->events = get_u64(tb[IPTTRACE_A_LINK_STATS_EVENTS]);
	stats->nested = get_u64(tb[IPTTRACE_A_LINK_STATS_NESTED]);
	stats->lost = get_u64(tb[IPTTRACE_A_LINK_STATS_LOST]);
	stats->drops = get_u64(tb[IPTTRACE_A_LINK_STATS_DROPS]);
	stats->left_out[IPTTRACE_LIMIT_SAMPLE] =
		get_u64(tb[IPTTRACE_A_LINK_STATS_LEFT_OUT_SAMPLE]);
	stats->left_out[IPTTRACE_LIMIT_RATE] =
		get_u64(tb[IPTTRACE_A_LINK_STATS_LEFT_OUT_RATE]);
	stats->left_out[IPTTRACE_LIMIT_GOVERNOR] =
		get_u64(tb[IPTTRACE_A_LINK_STATS_LEFT_OUT_GOVERNOR]);
	stats->shadow.agreed = get_u64(tb[IPTTRACE_A_LINK_STATS_AGREED]);
	stats->shadow.disagreed = get_u64(tb[IPTTRACE_A_LINK_STATS_DISAGREED]);
	stats->shadow.program.runs =
		get_u64(tb[IPTTRACE_A_LINK_STATS_SHADOW_RUNS]);
	stats->shadow.program.run_time =
		get_u64(tb[IPTTRACE_A_LINK_STATS_SHADOW_RUN_TIME]);
	nla_for_each_nested(attr, nest, remaining) {
		if (nla_type(attr) != IPTTRACE_A_LINK_STATS_SLOT)
			continue;
		err = parse_slot_stats(stats, attr, extack);
		if (err)
			return err;
	}
	return 0;
}

static int parse_past_program(struct ipttrace_past *past,
			      const struct nlattr *nest,
			      struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_past_program_policy)];
	struct ipttrace_past_program *prog;
	const struct nlattr *tag;
	int err;

	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_past_program_policy, extack);
	if (!err)
		err = parse_slot(tb[IPTTRACE_A_PAST_PROGRAM_SLOT], nest,
				 extack);
	if (err)
		return err;
	prog = &past->progs[nla_get_u32(tb[IPTTRACE_A_PAST_PROGRAM_SLOT])];
	tag = tb[IPTTRACE_A_PAST_PROGRAM_TAG];
	if (!tb[IPTTRACE_A_PAST_PROGRAM_ID] || !tag ||
	    nla_len(tag) != sizeof(prog->tag)) {
		NL_SET_ERR_MSG_ATTR(
			extack, nest,
			"a program of the past needs its id and its tag");
		return -EINVAL;
	}
	prog->id = nla_get_u32(tb[IPTTRACE_A_PAST_PROGRAM_ID]);
	memcpy(prog->tag, nla_data(tag), sizeof(prog->tag));
	get_string(prog->name, sizeof(prog->name),
		   tb[IPTTRACE_A_PAST_PROGRAM_NAME]);
	return 0;
}

static int parse_past(struct ipttrace_past *past, const struct nlattr *nest,
		      struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_past_policy)];
	const struct nlattr *attr;
	int remaining, err;

	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_past_policy, extack);
	if (err)
		return err;
	past->generation = get_u32(tb[IPTTRACE_A_PAST_GENERATION]);
	past->action = get_u32(tb[IPTTRACE_A_PAST_ACTION]);
	past->time = get_u64(tb[IPTTRACE_A_PAST_TIME]);
	past->pid = get_u32(tb[IPTTRACE_A_PAST_PID]);
	past->uid = get_u32(tb[IPTTRACE_A_PAST_UID]);
	past->transaction = get_u64(tb[IPTTRACE_A_PAST_TRANSACTION]);
	get_string(past->comm, sizeof(past->comm), tb[IPTTRACE_A_PAST_COMM]);
	get_string(past->reason, sizeof(past->reason),
		   tb[IPTTRACE_A_PAST_REASON]);
	err = ipttrace_violation_parse(&past->violation,
				       tb[IPTTRACE_A_PAST_VIOLATION], extack);
	if (err)
		return err;
	nla_for_each_nested(attr, nest, remaining) {
		if (nla_type(attr) != IPTTRACE_A_PAST_PROGRAM)
			continue;
		err = parse_past_program(past, attr, extack);
		if (err)
			return err;
	}
	return 0;
}

static int parse_history(struct ipttrace_history *history,
			 const struct nlattr *nest,
			 struct netlink_ext_ack *extack)
{
	const struct nlattr *attr;
	int remaining, err;

	nla_for_each_nested(attr, nest, remaining) {
		if (nla_type(attr) != IPTTRACE_A_RESTORE_PAST)
			continue;
		if (history->count == ARRAY_SIZE(history->past)) {
			NL_SET_ERR_MSG_ATTR(
				extack, attr,
				"there are more generations than a history has");
			return -E2BIG;
		}
		err = parse_past(&history->past[history->count++], attr,
				 extack);
		if (err)
			return err;
	}
	return 0;
}

static int parse_restored(struct ipttrace_restored *restored,
			  const struct nlattr *nest,
			  struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_restore_policy)];
	int err;

	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_restore_policy, extack);
	if (err)
		return err;
	if (!tb[IPTTRACE_A_RESTORE_LINK] ||
	    !tb[IPTTRACE_A_RESTORE_GENERATION]) {
		NL_SET_ERR_MSG_ATTR(
			extack, nest,
			"a link that is restored needs its id and its generation");
		return -EINVAL;
	}
	restored->attr = nest;
	restored->id = nla_get_u32(tb[IPTTRACE_A_RESTORE_LINK]);
	restored->generation = nla_get_u32(tb[IPTTRACE_A_RESTORE_GENERATION]);
	restored->transaction = get_u64(tb[IPTTRACE_A_RESTORE_TRANSACTION]);
	restored->owner_pid = get_u32(tb[IPTTRACE_A_RESTORE_OWNER_PID]);
	get_string(restored->owner_comm, sizeof(restored->owner_comm),
		   tb[IPTTRACE_A_RESTORE_OWNER_COMM]);
	restored->outcome = get_u32(tb[IPTTRACE_A_RESTORE_OUTCOME]);
	err = ipttrace_violation_parse(
		&restored->violation, tb[IPTTRACE_A_RESTORE_VIOLATION], extack);
	if (err)
		return err;
	err = parse_stats(&restored->stats, tb[IPTTRACE_A_RESTORE_STATS],
			  extack);
	return err ?: parse_history(&restored->history, nest, extack);
}

/**
 * ipttrace_restore_parse - parse what a link was before, if an attach request has that
 * @info: the request
 * @spec: the spec, which owns the result
 *
 * Return: 0, -EINVAL, -E2BIG or -ENOMEM.
 */
int ipttrace_restore_parse(struct genl_info *info,
			   struct ipttrace_link_spec *spec)
{
	const struct nlattr *nest = info->attrs[IPTTRACE_A_RESTORE];

	if (!nest)
		return 0;
	spec->restored = kzalloc(sizeof(*spec->restored), GFP_KERNEL);
	if (!spec->restored)
		return -ENOMEM;
	return parse_restored(spec->restored, nest, info->extack);
}
