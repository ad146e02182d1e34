/* SPDX-License-Identifier: GPL-2.0 */
/* Generated from ipttproto/family.py by `make generate`; do not edit. */
#ifndef _IPTTRACE_NETLINK_POLICY_H
#define _IPTTRACE_NETLINK_POLICY_H

#include <net/netlink.h>

#include "ipttrace_netlink.h"

extern const struct nla_policy
ipttrace_program_policy[IPTTRACE_A_PROGRAM_NAME + 1];
extern const struct nla_policy
ipttrace_program_set_policy[IPTTRACE_A_PROGRAM_SET_PAYLOAD_SIZE + 1];
extern const struct nla_policy
ipttrace_expected_program_policy[IPTTRACE_A_EXPECTED_PROGRAM_ID + 1];
extern const struct nla_policy
ipttrace_change_policy[IPTTRACE_A_CHANGE_EXPECT_PROGRAM + 1];
extern const struct nla_policy
ipttrace_attach_policy[IPTTRACE_A_MODE + 1];
extern const struct nla_policy
ipttrace_swap_policy[IPTTRACE_A_ROLLBACK_AFTER + 1];
extern const struct nla_policy
ipttrace_detach_policy[IPTTRACE_A_EXPECT_PROGRAM + 1];
extern const struct nla_policy
ipttrace_get_policy[IPTTRACE_A_LINK + 1];
extern const struct nla_policy
ipttrace_stats_policy[IPTTRACE_A_LINK + 1];
extern const struct nla_policy
ipttrace_transact_policy[IPTTRACE_A_CHANGE + 1];
extern const struct nla_policy
ipttrace_confirm_policy[IPTTRACE_A_LINK + 1];
extern const struct nla_policy
ipttrace_history_policy[IPTTRACE_A_LINK + 1];
extern const struct nla_policy
ipttrace_adopt_policy[IPTTRACE_A_LINK + 1];

#endif /* _IPTTRACE_NETLINK_POLICY_H */
