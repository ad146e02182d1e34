/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The steps of packets on a journey, between their hooks.
 */
#ifndef _IPTTRACE_JOURNEY_STEPS_H
#define _IPTTRACE_JOURNEY_STEPS_H

#include <linux/netlink.h>
#include <linux/types.h>

#include "function.h"

/**
 * struct ipttrace_journey_place - private data of a link at the hook journey
 * @bit: number of the journey, below IPTTRACE_MAX_JOURNEYS, while the link is there
 * @ways: directions of a connection that are followed: 1, or 2 with answers
 *
 * Constant while packets can find the link.
 */
struct ipttrace_journey_place {
	unsigned int bit;
	u32 ways;
};

/* Functions of one watch are adjacent. */
enum {
	/* every way on which an sk_buff is freed passes one of these */
	IPTTRACE_STEP_RELEASE_HEAD,
	IPTTRACE_STEP_FREE_MEMORY,
	IPTTRACE_STEP_STOLEN_HEAD,
	/* and every way on which one is copied, one of these */
	IPTTRACE_STEP_COPY_HEADER,
	IPTTRACE_STEP_FRAGMENT,
	IPTTRACE_STEP_FRAGMENT6,
	IPTTRACE_STEP_SOCKET,
	/* GRO merges a packet into another one by one of these */
	IPTTRACE_STEP_MERGE,
	IPTTRACE_STEP_MERGE_LIST,
	/* a packet that a device has passed to another one comes to its protocol by one of these */
	IPTTRACE_STEP_IP,
	IPTTRACE_STEP_IP6,
	IPTTRACE_STEP_ARP,
	/* or in a list of packets */
	IPTTRACE_STEP_IP_LIST,
	IPTTRACE_STEP_IP6_LIST,
	/* a fragment comes to this one before it is put together with others */
	IPTTRACE_STEP_WAITS,
	/* and the whole of them to this one */
	IPTTRACE_STEP_WHOLE,
	IPTTRACE_STEP_FUNCTIONS
};

extern struct ipttrace_function ipttrace_step_functions[IPTTRACE_STEP_FUNCTIONS];

int ipttrace_steps_begin(struct netlink_ext_ack *extack);
void ipttrace_steps_end(void);
u64 ipttrace_steps_lost(void);

#endif /* _IPTTRACE_JOURNEY_STEPS_H */
