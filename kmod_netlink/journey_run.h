/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The programs of journeys, at a step of a packet.
 */
#ifndef _IPTTRACE_JOURNEY_RUN_H
#define _IPTTRACE_JOURNEY_RUN_H

#include <linux/types.h>

#include "ipttrace_netlink.h"

struct ipttrace_followed;
struct ipttrace_sets;
struct nf_hook_state;
struct sk_buff;

/**
 * struct ipttrace_step - a step of a packet
 * @kind: what happened
 * @skb: the packet; NULL if its memory may be gone
 * @state: where it is, as for a hook; NULL if nothing of it is shown
 * @object: what has to do with it: device, socket, the other packet, queue of fragments, or place
 *          of the drop
 * @value: drop reason, or uid
 */
struct ipttrace_step {
	enum ipttrace_kind kind;
	const struct sk_buff *skb;
	const struct nf_hook_state *state;
	const void *object;
	u32 value;
};

void ipttrace_step_show(const struct ipttrace_step *step,
			const struct ipttrace_followed *known);
struct ipttrace_sets *ipttrace_journeys_publish(struct ipttrace_sets *sets);

#endif /* _IPTTRACE_JOURNEY_RUN_H */
