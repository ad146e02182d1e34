/* SPDX-License-Identifier: GPL-2.0 */
/* Generated from ipttproto/family.py by `make generate`; do not edit. */
#ifndef _IPTTRACE_NETLINK_POLICY_H
#define _IPTTRACE_NETLINK_POLICY_H

#include <net/netlink.h>

#include "ipttrace_netlink.h"
#include "layout_check.h"

static const struct nla_policy
ipttrace_program_policy[IPTTRACE_A_PROGRAM_NAME + 1] = {
	[IPTTRACE_A_PROGRAM_SLOT] = NLA_POLICY_RANGE(NLA_U32, 1, 3),
	[IPTTRACE_A_PROGRAM_FD] = { .type = NLA_U32 },
	[IPTTRACE_A_PROGRAM_ID] = { .type = NLA_U32 },
	[IPTTRACE_A_PROGRAM_TAG] = { .type = NLA_BINARY, .len = 8 },
	[IPTTRACE_A_PROGRAM_NAME] = { .type = NLA_NUL_STRING, .len = 15 },
};

static const struct nla_policy
ipttrace_program_set_policy[IPTTRACE_A_PROGRAM_SET_FILTER_LENGTH + 1] = {
	[IPTTRACE_A_PROGRAM_SET_PROGRAM] = NLA_POLICY_NESTED(ipttrace_program_policy),
	[IPTTRACE_A_PROGRAM_SET_FILTER] = { .type = NLA_BINARY, .len = 32768 },
	[IPTTRACE_A_PROGRAM_SET_COOKIE] = { .type = NLA_U64 },
	[IPTTRACE_A_PROGRAM_SET_FILTER_LENGTH] = { .type = NLA_U32 },
};

static const struct nla_policy
ipttrace_attach_policy[IPTTRACE_A_PROGRAMS + 1] = {
	[IPTTRACE_A_HOOK] = { .type = NLA_U32 },
	[IPTTRACE_A_FAMILY] = NLA_POLICY_MAX(NLA_U32, 10),
	[IPTTRACE_A_FLAGS] = NLA_POLICY_MAX(NLA_U32, 1),
	[IPTTRACE_A_PROGRAMS] = NLA_POLICY_NESTED(ipttrace_program_set_policy),
};

static const struct nla_policy
ipttrace_swap_policy[IPTTRACE_A_EXPECT_PROGRAM + 1] = {
	[IPTTRACE_A_LINK] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_PROGRAMS] = NLA_POLICY_NESTED(ipttrace_program_set_policy),
	[IPTTRACE_A_EXPECT_GENERATION] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_EXPECT_PROGRAM] = NLA_POLICY_NESTED(ipttrace_program_policy),
};

static const struct nla_policy
ipttrace_detach_policy[IPTTRACE_A_EXPECT_GENERATION + 1] = {
	[IPTTRACE_A_LINK] = NLA_POLICY_MIN(NLA_U32, 1),
	[IPTTRACE_A_EXPECT_GENERATION] = NLA_POLICY_MIN(NLA_U32, 1),
};

static const struct nla_policy
ipttrace_get_policy[IPTTRACE_A_LINK + 1] = {
	[IPTTRACE_A_LINK] = NLA_POLICY_MIN(NLA_U32, 1),
};

static const struct nla_policy
ipttrace_stats_policy[IPTTRACE_A_LINK + 1] = {
};

#endif /* _IPTTRACE_NETLINK_POLICY_H */
