/* SPDX-License-Identifier: GPL-2.0 */
/* Generated from ipttproto/family.py by `make generate`; do not edit. */
#ifndef _IPTTRACE_NETLINK_GEN_H
#define _IPTTRACE_NETLINK_GEN_H

#include <net/genetlink.h>

#include "ipttrace_netlink.h"

/* Attributes that the nests of requests may hold. */
extern const struct nla_policy
ipttrace_program_policy[IPTTRACE_A_PROGRAM_NAME + 1];
extern const struct nla_policy
ipttrace_limits_policy[IPTTRACE_A_LIMITS_BUDGET_CPU + 1];
extern const struct nla_policy
ipttrace_program_set_policy[IPTTRACE_A_PROGRAM_SET_LIMITS + 1];
extern const struct nla_policy
ipttrace_label_policy[IPTTRACE_A_LABEL_VALUE + 1];
extern const struct nla_policy
ipttrace_labels_policy[IPTTRACE_A_LABELS_LABEL + 1];
extern const struct nla_policy
ipttrace_slot_stats_policy[IPTTRACE_A_SLOT_STATS_RUN_TIME + 1];
extern const struct nla_policy
ipttrace_link_stats_policy[IPTTRACE_A_LINK_STATS_LEFT_OUT_GOVERNOR + 1];
extern const struct nla_policy
ipttrace_past_program_policy[IPTTRACE_A_PAST_PROGRAM_NAME + 1];
extern const struct nla_policy
ipttrace_condition_policy[IPTTRACE_A_CONDITION_MINIMUM + 1];
extern const struct nla_policy
ipttrace_violation_policy[IPTTRACE_A_VIOLATION_TIME + 1];
extern const struct nla_policy
ipttrace_past_policy[IPTTRACE_A_PAST_VIOLATION + 1];
extern const struct nla_policy
ipttrace_restore_policy[IPTTRACE_A_RESTORE_VIOLATION + 1];
extern const struct nla_policy
ipttrace_expected_program_policy[IPTTRACE_A_EXPECTED_PROGRAM_ID + 1];
extern const struct nla_policy
ipttrace_change_policy[IPTTRACE_A_CHANGE_LABELS + 1];

/* Every request, with what it may hold. */
extern const struct genl_ops ipttrace_nl_operations[19];

/* The handlers of the operations: netlink.c. */

/* make a link: put a program set to a hook */
int ipttrace_nl_attach_doit(struct sk_buff *skb, struct genl_info *info);

/* replace a link's program set in one step; its generation grows by one */
int ipttrace_nl_swap_doit(struct sk_buff *skb, struct genl_info *info);

/* remove a link */
int ipttrace_nl_detach_doit(struct sk_buff *skb, struct genl_info *info);

/* one link, or all of them */
int ipttrace_nl_get_doit(struct sk_buff *skb, struct genl_info *info);
int ipttrace_nl_get_start(struct netlink_callback *cb);
int ipttrace_nl_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb);

/* the module: versions, features, event stream of each CPU */
int ipttrace_nl_stats_doit(struct sk_buff *skb, struct genl_info *info);

/* swap several links in one step, all or none; a reply for each change, in order */
int ipttrace_nl_transact_doit(struct sk_buff *skb, struct genl_info *info);

/* keep a swap that waits, for all its links: the roll-back is off */
int ipttrace_nl_confirm_doit(struct sk_buff *skb, struct genl_info *info);

/* how the last generations of a link came about */
int ipttrace_nl_history_doit(struct sk_buff *skb, struct genl_info *info);

/* own a persistent link from now on: it goes with the sender's socket */
int ipttrace_nl_adopt_doit(struct sk_buff *skb, struct genl_info *info);

/*
 * chain and spine links: take them for a namespace of the sender, who verifies the
 * walks, until its socket is closed (netns-fd); or end the verification (walk,
 * spine-walk)
 */
int ipttrace_nl_verify_doit(struct sk_buff *skb, struct genl_info *info);

/* the generation of the rules of a legacy table in a network namespace */
int ipttrace_nl_ruleset_doit(struct sk_buff *skb, struct genl_info *info);

/* give a link another name, or its first one; its generation stays */
int ipttrace_nl_rename_doit(struct sk_buff *skb, struct genl_info *info);

/* make a link persistent, which then belongs to nobody, and is not exclusive */
int ipttrace_nl_release_doit(struct sk_buff *skb, struct genl_info *info);

/* undo a swap that waits, at once, for all its links; a reply for each of them */
int ipttrace_nl_rollback_doit(struct sk_buff *skb, struct genl_info *info);

/*
 * give a link a shadow: a program set that meets the same packets, and whose verdicts
 * are compared with the link's, and not used
 */
int ipttrace_nl_shadow_doit(struct sk_buff *skb, struct genl_info *info);

/* swap a link's shadow in, for a generation of its own */
int ipttrace_nl_promote_doit(struct sk_buff *skb, struct genl_info *info);

/* take a link's shadow away */
int ipttrace_nl_drop_shadow_doit(struct sk_buff *skb, struct genl_info *info);

/*
 * take all links from their hooks, in one step, to restore them later, here or in the
 * next module: from now on links are being restored. A dump has their last counters
 */
int ipttrace_nl_park_doit(struct sk_buff *skb, struct genl_info *info);
int ipttrace_nl_park_start(struct netlink_callback *cb);
int ipttrace_nl_park_dumpit(struct sk_buff *skb, struct netlink_callback *cb);

/* the links are restored: from now on others may be made */
int ipttrace_nl_restored_doit(struct sk_buff *skb, struct genl_info *info);

#endif /* _IPTTRACE_NETLINK_GEN_H */
