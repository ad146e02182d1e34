// SPDX-License-Identifier: GPL-2.0
/* Generated from ipttproto/family.py by `make generate`; do not edit. */
#include "layout_check.h"
#include "netlink_gen.h"

#define REPLY_ONLY \
	{ .type = NLA_REJECT, \
	  .reject_message = "the attribute is for replies: a request does not have it" }

static struct netlink_range_validation
sample_range = {
	.min = 2,
	.max = 1000000000,
};

static struct netlink_range_validation
rate_range = {
	.min = 1,
	.max = 1000000000,
};

static struct netlink_range_validation
budget_events_range = {
	.min = 1,
	.max = 1000000000,
};

static struct netlink_range_validation
budget_cpu_range = {
	.min = 1,
	.max = 1000000,
};

static struct netlink_range_validation
per_time_range = {
	.min = 1,
	.max = 86400000,
};

static struct netlink_range_validation
window_range = {
	.min = 100,
	.max = 86400000,
};

static struct netlink_range_validation
rollback_after_range = {
	.min = 1,
	.max = 86400000,
};

const struct nla_policy
ipttrace_program_policy[IPTTRACE_A_PROGRAM_NAME + 1] = {
	[IPTTRACE_A_PROGRAM_SLOT] = NLA_POLICY_RANGE(NLA_U32, 1, 6),
	[IPTTRACE_A_PROGRAM_FD] = { .type = NLA_U32 },
	[IPTTRACE_A_PROGRAM_ID] = REPLY_ONLY,
	[IPTTRACE_A_PROGRAM_TAG] = REPLY_ONLY,
	[IPTTRACE_A_PROGRAM_NAME] = REPLY_ONLY,
};

const struct nla_policy
ipttrace_limits_policy[IPTTRACE_A_LIMITS_BUDGET_CPU + 1] = {
	[IPTTRACE_A_LIMITS_SAMPLE] = NLA_POLICY_FULL_RANGE(NLA_U32, &sample_range),
	[IPTTRACE_A_LIMITS_RATE] = NLA_POLICY_FULL_RANGE(NLA_U32, &rate_range),
	[IPTTRACE_A_LIMITS_BUDGET_EVENTS] = NLA_POLICY_FULL_RANGE(NLA_U32, &budget_events_range),
	[IPTTRACE_A_LIMITS_BUDGET_CPU] = NLA_POLICY_FULL_RANGE(NLA_U32, &budget_cpu_range),
};

const struct nla_policy
ipttrace_program_set_policy[IPTTRACE_A_PROGRAM_SET_LIMITS + 1] = {
	[IPTTRACE_A_PROGRAM_SET_PROGRAM] = NLA_POLICY_NESTED(ipttrace_program_policy),
	[IPTTRACE_A_PROGRAM_SET_FILTER] = { .type = NLA_BINARY, .len = 32768 },
	[IPTTRACE_A_PROGRAM_SET_COOKIE] = { .type = NLA_U64 },
	[IPTTRACE_A_PROGRAM_SET_FILTER_LENGTH] = REPLY_ONLY,
	[IPTTRACE_A_PROGRAM_SET_PAYLOAD_FD] = { .type = NLA_U32 },
	[IPTTRACE_A_PROGRAM_SET_PAYLOAD_MAP] = REPLY_ONLY,
	[IPTTRACE_A_PROGRAM_SET_PAYLOAD_SIZE] = REPLY_ONLY,
	[IPTTRACE_A_PROGRAM_SET_LIMITS] = NLA_POLICY_NESTED(ipttrace_limits_policy),
};

const struct nla_policy
ipttrace_label_policy[IPTTRACE_A_LABEL_VALUE + 1] = {
	[IPTTRACE_A_LABEL_KEY] = { .type = NLA_NUL_STRING, .len = 31 },
	[IPTTRACE_A_LABEL_VALUE] = { .type = NLA_NUL_STRING, .len = 63 },
};

const struct nla_policy
ipttrace_labels_policy[IPTTRACE_A_LABELS_LABEL + 1] = {
	[IPTTRACE_A_LABELS_LABEL] = NLA_POLICY_NESTED(ipttrace_label_policy),
};

const struct nla_policy
ipttrace_slot_stats_policy[IPTTRACE_A_SLOT_STATS_RUN_TIME + 1] = {
	[IPTTRACE_A_SLOT_STATS_SLOT] = NLA_POLICY_RANGE(NLA_U32, 1, 6),
	[IPTTRACE_A_SLOT_STATS_RUNS] = { .type = NLA_U64 },
	[IPTTRACE_A_SLOT_STATS_RUN_TIME] = { .type = NLA_U64 },
};

const struct nla_policy
ipttrace_link_stats_policy[IPTTRACE_A_LINK_STATS_LEFT_OUT_GOVERNOR + 1] = {
	[IPTTRACE_A_LINK_STATS_PACKETS] = { .type = NLA_U64 },
	[IPTTRACE_A_LINK_STATS_SELECTED] = { .type = NLA_U64 },
	[IPTTRACE_A_LINK_STATS_EVENTS] = { .type = NLA_U64 },
	[IPTTRACE_A_LINK_STATS_NESTED] = { .type = NLA_U64 },
	[IPTTRACE_A_LINK_STATS_LOST] = { .type = NLA_U64 },
	[IPTTRACE_A_LINK_STATS_DROPS] = { .type = NLA_U64 },
	[IPTTRACE_A_LINK_STATS_SLOT] = NLA_POLICY_NESTED(ipttrace_slot_stats_policy),
	[IPTTRACE_A_LINK_STATS_AGREED] = { .type = NLA_U64 },
	[IPTTRACE_A_LINK_STATS_DISAGREED] = { .type = NLA_U64 },
	[IPTTRACE_A_LINK_STATS_SHADOW_RUNS] = { .type = NLA_U64 },
	[IPTTRACE_A_LINK_STATS_SHADOW_RUN_TIME] = { .type = NLA_U64 },
	[IPTTRACE_A_LINK_STATS_LEFT_OUT_SAMPLE] = { .type = NLA_U64 },
	[IPTTRACE_A_LINK_STATS_LEFT_OUT_RATE] = { .type = NLA_U64 },
	[IPTTRACE_A_LINK_STATS_LEFT_OUT_GOVERNOR] = { .type = NLA_U64 },
};

const struct nla_policy
ipttrace_past_program_policy[IPTTRACE_A_PAST_PROGRAM_NAME + 1] = {
	[IPTTRACE_A_PAST_PROGRAM_SLOT] = NLA_POLICY_RANGE(NLA_U32, 1, 6),
	[IPTTRACE_A_PAST_PROGRAM_ID] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_PAST_PROGRAM_TAG] = { .type = NLA_BINARY, .len = 8 },
	[IPTTRACE_A_PAST_PROGRAM_NAME] = { .type = NLA_NUL_STRING, .len = 15 },
};

const struct nla_policy
ipttrace_condition_policy[IPTTRACE_A_CONDITION_MINIMUM + 1] = {
	[IPTTRACE_A_CONDITION_COUNTER] = NLA_POLICY_RANGE(NLA_U32, 1, 9),
	[IPTTRACE_A_CONDITION_COMPARISON] = NLA_POLICY_RANGE(NLA_U32, 1, 4),
	[IPTTRACE_A_CONDITION_THRESHOLD] = { .type = NLA_U32 },
	[IPTTRACE_A_CONDITION_PER_TIME] = NLA_POLICY_FULL_RANGE(NLA_U32, &per_time_range),
	[IPTTRACE_A_CONDITION_PER_PACKETS] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_CONDITION_WINDOW] = NLA_POLICY_FULL_RANGE(NLA_U32, &window_range),
	[IPTTRACE_A_CONDITION_MINIMUM] = NLA_POLICY_MIN(NLA_U32, 1),
};

const struct nla_policy
ipttrace_violation_policy[IPTTRACE_A_VIOLATION_TIME + 1] = {
	[IPTTRACE_A_VIOLATION_CONDITION] = NLA_POLICY_NESTED(ipttrace_condition_policy),
	[IPTTRACE_A_VIOLATION_LINK] = { .type = NLA_U32 },
	[IPTTRACE_A_VIOLATION_COUNT] = { .type = NLA_U64 },
	[IPTTRACE_A_VIOLATION_PACKETS] = { .type = NLA_U64 },
	[IPTTRACE_A_VIOLATION_TIME] = { .type = NLA_U64 },
};

const struct nla_policy
ipttrace_past_policy[IPTTRACE_A_PAST_VIOLATION + 1] = {
	[IPTTRACE_A_PAST_GENERATION] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_PAST_ACTION] = { .type = NLA_U32 },
	[IPTTRACE_A_PAST_TIME] = { .type = NLA_U64 },
	[IPTTRACE_A_PAST_PID] = { .type = NLA_U32 },
	[IPTTRACE_A_PAST_UID] = { .type = NLA_U32 },
	[IPTTRACE_A_PAST_COMM] = { .type = NLA_NUL_STRING, .len = 15 },
	[IPTTRACE_A_PAST_PROGRAM] = NLA_POLICY_NESTED(ipttrace_past_program_policy),
	[IPTTRACE_A_PAST_TRANSACTION] = { .type = NLA_U64 },
	[IPTTRACE_A_PAST_REASON] = { .type = NLA_NUL_STRING, .len = 127 },
	[IPTTRACE_A_PAST_VIOLATION] = NLA_POLICY_NESTED(ipttrace_violation_policy),
};

const struct nla_policy
ipttrace_restore_policy[IPTTRACE_A_RESTORE_VIOLATION + 1] = {
	[IPTTRACE_A_RESTORE_LINK] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_RESTORE_GENERATION] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_RESTORE_TRANSACTION] = { .type = NLA_U64 },
	[IPTTRACE_A_RESTORE_OWNER_PID] = { .type = NLA_U32 },
	[IPTTRACE_A_RESTORE_OWNER_COMM] = { .type = NLA_NUL_STRING, .len = 15 },
	[IPTTRACE_A_RESTORE_STATS] = NLA_POLICY_NESTED(ipttrace_link_stats_policy),
	[IPTTRACE_A_RESTORE_PAST] = NLA_POLICY_NESTED(ipttrace_past_policy),
	[IPTTRACE_A_RESTORE_OUTCOME] = NLA_POLICY_RANGE(NLA_U32, 2, 5),
	[IPTTRACE_A_RESTORE_VIOLATION] = NLA_POLICY_NESTED(ipttrace_violation_policy),
};

const struct nla_policy
ipttrace_expected_program_policy[IPTTRACE_A_EXPECTED_PROGRAM_ID + 1] = {
	[IPTTRACE_A_EXPECTED_PROGRAM_SLOT] = NLA_POLICY_RANGE(NLA_U32, 1, 6),
	[IPTTRACE_A_EXPECTED_PROGRAM_ID] = { .type = NLA_U32 },
};

const struct nla_policy
ipttrace_change_policy[IPTTRACE_A_CHANGE_LABELS + 1] = {
	[IPTTRACE_A_CHANGE_LINK] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_CHANGE_PROGRAMS] = NLA_POLICY_NESTED(ipttrace_program_set_policy),
	[IPTTRACE_A_CHANGE_EXPECT_GENERATION] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_CHANGE_EXPECT_PROGRAM] = NLA_POLICY_NESTED(ipttrace_expected_program_policy),
	[IPTTRACE_A_CHANGE_NAME] = { .type = NLA_NUL_STRING, .len = 63 },
	[IPTTRACE_A_CHANGE_LABELS] = NLA_POLICY_NESTED(ipttrace_labels_policy),
};

static const struct nla_policy
ipttrace_attach_policy[IPTTRACE_A_MAX + 1] = {
	[IPTTRACE_A_HOOK] = { .type = NLA_U32 },
	[IPTTRACE_A_FAMILY] = NLA_POLICY_MAX(NLA_U32, 10),
	[IPTTRACE_A_FLAGS] = NLA_POLICY_MAX(NLA_U32, 15),
	[IPTTRACE_A_PROGRAMS] = NLA_POLICY_NESTED(ipttrace_program_set_policy),
	[IPTTRACE_A_HOOKNUM] = { .type = NLA_U32 },
	[IPTTRACE_A_PRIORITY] = { .type = NLA_S32 },
	[IPTTRACE_A_NETNS_FD] = { .type = NLA_U32 },
	[IPTTRACE_A_IFINDEX] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_MODE] = NLA_POLICY_RANGE(NLA_U32, 1, 2),
	[IPTTRACE_A_TABLE] = { .type = NLA_NUL_STRING, .len = 255 },
	[IPTTRACE_A_CHAIN] = { .type = NLA_NUL_STRING, .len = 255 },
	[IPTTRACE_A_NAME] = { .type = NLA_NUL_STRING, .len = 63 },
	[IPTTRACE_A_LABELS] = NLA_POLICY_NESTED(ipttrace_labels_policy),
	[IPTTRACE_A_REASON_TEXT] = { .type = NLA_NUL_STRING, .len = 127 },
	[IPTTRACE_A_RESTORE] = NLA_POLICY_NESTED(ipttrace_restore_policy),
	[IPTTRACE_A_JOURNEY] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_JOURNEY_WAYS] = NLA_POLICY_RANGE(NLA_U32, 1, 2),
};

static const struct nla_policy
ipttrace_swap_policy[IPTTRACE_A_MAX + 1] = {
	[IPTTRACE_A_LINK] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_PROGRAMS] = NLA_POLICY_NESTED(ipttrace_program_set_policy),
	[IPTTRACE_A_EXPECT_GENERATION] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_EXPECT_PROGRAM] = NLA_POLICY_NESTED(ipttrace_expected_program_policy),
	[IPTTRACE_A_ROLLBACK_AFTER] = NLA_POLICY_FULL_RANGE(NLA_U32, &rollback_after_range),
	[IPTTRACE_A_NAME] = { .type = NLA_NUL_STRING, .len = 63 },
	[IPTTRACE_A_LABELS] = NLA_POLICY_NESTED(ipttrace_labels_policy),
	[IPTTRACE_A_REASON_TEXT] = { .type = NLA_NUL_STRING, .len = 127 },
	[IPTTRACE_A_FORCE] = NLA_POLICY_MAX(NLA_U32, 1),
	[IPTTRACE_A_GUARD] = NLA_POLICY_NESTED(ipttrace_condition_policy),
	[IPTTRACE_A_SWAP_ACK] = NLA_POLICY_RANGE(NLA_U32, 1, 2),
};

static const struct nla_policy
ipttrace_detach_policy[IPTTRACE_A_MAX + 1] = {
	[IPTTRACE_A_LINK] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_EXPECT_GENERATION] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_EXPECT_PROGRAM] = NLA_POLICY_NESTED(ipttrace_expected_program_policy),
	[IPTTRACE_A_NAME] = { .type = NLA_NUL_STRING, .len = 63 },
	[IPTTRACE_A_REASON_TEXT] = { .type = NLA_NUL_STRING, .len = 127 },
	[IPTTRACE_A_FORCE] = NLA_POLICY_MAX(NLA_U32, 1),
};

static const struct nla_policy
ipttrace_get_policy[IPTTRACE_A_MAX + 1] = {
	[IPTTRACE_A_LINK] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_NAME] = { .type = NLA_NUL_STRING, .len = 63 },
};

static const struct nla_policy
ipttrace_stats_policy[IPTTRACE_A_MAX + 1] = {
};

static const struct nla_policy
ipttrace_transact_policy[IPTTRACE_A_MAX + 1] = {
	[IPTTRACE_A_ROLLBACK_AFTER] = NLA_POLICY_FULL_RANGE(NLA_U32, &rollback_after_range),
	[IPTTRACE_A_CHANGE] = NLA_POLICY_NESTED(ipttrace_change_policy),
	[IPTTRACE_A_REASON_TEXT] = { .type = NLA_NUL_STRING, .len = 127 },
	[IPTTRACE_A_FORCE] = NLA_POLICY_MAX(NLA_U32, 1),
	[IPTTRACE_A_GUARD] = NLA_POLICY_NESTED(ipttrace_condition_policy),
	[IPTTRACE_A_SWAP_ACK] = NLA_POLICY_RANGE(NLA_U32, 1, 2),
};

static const struct nla_policy
ipttrace_confirm_policy[IPTTRACE_A_MAX + 1] = {
	[IPTTRACE_A_LINK] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_EXPECT_GENERATION] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_NAME] = { .type = NLA_NUL_STRING, .len = 63 },
	[IPTTRACE_A_TRANSACTION] = { .type = NLA_U64 },
};

static const struct nla_policy
ipttrace_history_policy[IPTTRACE_A_MAX + 1] = {
	[IPTTRACE_A_LINK] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_NAME] = { .type = NLA_NUL_STRING, .len = 63 },
};

static const struct nla_policy
ipttrace_adopt_policy[IPTTRACE_A_MAX + 1] = {
	[IPTTRACE_A_LINK] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_FLAGS] = NLA_POLICY_MAX(NLA_U32, 15),
	[IPTTRACE_A_NAME] = { .type = NLA_NUL_STRING, .len = 63 },
	[IPTTRACE_A_FORCE] = NLA_POLICY_MAX(NLA_U32, 1),
};

static const struct nla_policy
ipttrace_verify_policy[IPTTRACE_A_MAX + 1] = {
	[IPTTRACE_A_NETNS_FD] = { .type = NLA_U32 },
	[IPTTRACE_A_WALK] = NLA_POLICY_RANGE(NLA_U32, 1, 3),
	[IPTTRACE_A_WALK_COMPARED] = NLA_POLICY_MAX(NLA_U32, 1),
	[IPTTRACE_A_SPINE_WALK] = NLA_POLICY_RANGE(NLA_U32, 1, 3),
};

static const struct nla_policy
ipttrace_ruleset_policy[IPTTRACE_A_MAX + 1] = {
	[IPTTRACE_A_FAMILY] = NLA_POLICY_MAX(NLA_U32, 10),
	[IPTTRACE_A_NETNS_FD] = { .type = NLA_U32 },
	[IPTTRACE_A_TABLE] = { .type = NLA_NUL_STRING, .len = 255 },
};

static const struct nla_policy
ipttrace_rename_policy[IPTTRACE_A_MAX + 1] = {
	[IPTTRACE_A_LINK] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_NAME] = { .type = NLA_NUL_STRING, .len = 63 },
	[IPTTRACE_A_NEW_NAME] = { .type = NLA_NUL_STRING, .len = 63 },
};

static const struct nla_policy
ipttrace_release_policy[IPTTRACE_A_MAX + 1] = {
	[IPTTRACE_A_LINK] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_NAME] = { .type = NLA_NUL_STRING, .len = 63 },
	[IPTTRACE_A_FORCE] = NLA_POLICY_MAX(NLA_U32, 1),
};

static const struct nla_policy
ipttrace_rollback_policy[IPTTRACE_A_MAX + 1] = {
	[IPTTRACE_A_LINK] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_EXPECT_GENERATION] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_NAME] = { .type = NLA_NUL_STRING, .len = 63 },
	[IPTTRACE_A_REASON_TEXT] = { .type = NLA_NUL_STRING, .len = 127 },
	[IPTTRACE_A_TRANSACTION] = { .type = NLA_U64 },
	[IPTTRACE_A_FORCE] = NLA_POLICY_MAX(NLA_U32, 1),
};

static const struct nla_policy
ipttrace_shadow_policy[IPTTRACE_A_MAX + 1] = {
	[IPTTRACE_A_LINK] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_PROGRAMS] = NLA_POLICY_NESTED(ipttrace_program_set_policy),
	[IPTTRACE_A_EXPECT_GENERATION] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_EXPECT_PROGRAM] = NLA_POLICY_NESTED(ipttrace_expected_program_policy),
	[IPTTRACE_A_NAME] = { .type = NLA_NUL_STRING, .len = 63 },
	[IPTTRACE_A_LABELS] = NLA_POLICY_NESTED(ipttrace_labels_policy),
	[IPTTRACE_A_FORCE] = NLA_POLICY_MAX(NLA_U32, 1),
	[IPTTRACE_A_PROMOTE_IF] = NLA_POLICY_NESTED(ipttrace_condition_policy),
};

static const struct nla_policy
ipttrace_promote_policy[IPTTRACE_A_MAX + 1] = {
	[IPTTRACE_A_LINK] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_EXPECT_GENERATION] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_ROLLBACK_AFTER] = NLA_POLICY_FULL_RANGE(NLA_U32, &rollback_after_range),
	[IPTTRACE_A_NAME] = { .type = NLA_NUL_STRING, .len = 63 },
	[IPTTRACE_A_REASON_TEXT] = { .type = NLA_NUL_STRING, .len = 127 },
	[IPTTRACE_A_FORCE] = NLA_POLICY_MAX(NLA_U32, 1),
	[IPTTRACE_A_GUARD] = NLA_POLICY_NESTED(ipttrace_condition_policy),
	[IPTTRACE_A_EXPECT_SHADOW] = { .type = NLA_U64 },
};

static const struct nla_policy
ipttrace_drop_shadow_policy[IPTTRACE_A_MAX + 1] = {
	[IPTTRACE_A_LINK] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_EXPECT_GENERATION] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_NAME] = { .type = NLA_NUL_STRING, .len = 63 },
	[IPTTRACE_A_FORCE] = NLA_POLICY_MAX(NLA_U32, 1),
	[IPTTRACE_A_EXPECT_SHADOW] = { .type = NLA_U64 },
};

static const struct nla_policy
ipttrace_park_policy[IPTTRACE_A_MAX + 1] = {
	[IPTTRACE_A_LINKS_SEQUENCE] = { .type = NLA_U64 },
	[IPTTRACE_A_REASON_TEXT] = { .type = NLA_NUL_STRING, .len = 127 },
	[IPTTRACE_A_FORCE] = NLA_POLICY_MAX(NLA_U32, 1),
};

static const struct nla_policy
ipttrace_restored_policy[IPTTRACE_A_MAX + 1] = {
};

const struct genl_ops ipttrace_nl_operations[19] = {
	{
		.cmd = IPTTRACE_CMD_ATTACH,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_attach_doit,
		.policy = ipttrace_attach_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_SWAP,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_swap_doit,
		.policy = ipttrace_swap_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_DETACH,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_detach_doit,
		.policy = ipttrace_detach_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_GET,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_get_doit,
		.start = ipttrace_nl_get_start,
		.dumpit = ipttrace_nl_get_dumpit,
		.policy = ipttrace_get_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_STATS,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_stats_doit,
		.policy = ipttrace_stats_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_TRANSACT,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_transact_doit,
		.policy = ipttrace_transact_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_CONFIRM,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_confirm_doit,
		.policy = ipttrace_confirm_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_HISTORY,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_history_doit,
		.policy = ipttrace_history_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_ADOPT,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_adopt_doit,
		.policy = ipttrace_adopt_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_VERIFY,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_verify_doit,
		.policy = ipttrace_verify_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_RULESET,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_ruleset_doit,
		.policy = ipttrace_ruleset_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_RENAME,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_rename_doit,
		.policy = ipttrace_rename_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_RELEASE,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_release_doit,
		.policy = ipttrace_release_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_ROLLBACK,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_rollback_doit,
		.policy = ipttrace_rollback_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_SHADOW,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_shadow_doit,
		.policy = ipttrace_shadow_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_PROMOTE,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_promote_doit,
		.policy = ipttrace_promote_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_DROP_SHADOW,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_drop_shadow_doit,
		.policy = ipttrace_drop_shadow_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_PARK,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_park_doit,
		.start = ipttrace_nl_park_start,
		.dumpit = ipttrace_nl_park_dumpit,
		.policy = ipttrace_park_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
	{
		.cmd = IPTTRACE_CMD_RESTORED,
		.flags = GENL_ADMIN_PERM,
		.doit = ipttrace_nl_restored_doit,
		.policy = ipttrace_restored_policy,
		.maxattr = IPTTRACE_A_MAX,
	},
};
