/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_LIMITS_H
#define _IPTTRACE_LIMITS_H

#include <linux/types.h>

#include "link.h"
#include "program.h"

struct ipttrace_limits;
struct ipttrace_link;
struct nf_hook_state;
struct sk_buff;

int ipttrace_set_add_limits(struct ipttrace_set *set, const struct nlattr *nest,
			    struct netlink_ext_ack *extack);
void ipttrace_limits_free(struct ipttrace_limits *limits);
size_t ipttrace_limits_size(void);
int ipttrace_put_limits(struct sk_buff *msg,
			const struct ipttrace_limits *limits);
bool ipttrace_limits_admit(const struct ipttrace_set *set,
			   const struct sk_buff *skb,
			   const struct nf_hook_state *state,
			   const void *place);
bool ipttrace_limits_admit_once(const struct ipttrace_set *set);
void ipttrace_limits_begin_link(struct ipttrace_link *link);
void ipttrace_limits_end_link(struct ipttrace_link *link);
void ipttrace_limits_forget_link(struct ipttrace_link *link);
u64 ipttrace_limits_clock(const struct ipttrace_limits *limits);
void ipttrace_limits_use(const struct ipttrace_set *set, u64 begin,
			 unsigned int events);
void ipttrace_limits_begin_journey(u32 journey);

/*
 * False if the events of a packet are left out, by limits of the set or of others on its journey:
 * see ipttrace_limits_admit().
 */
static __always_inline bool
ipttrace_set_admits(const struct ipttrace_set *set, const struct sk_buff *skb,
		    const struct nf_hook_state *state, const void *place)
{
	return likely(!set->limits && !READ_ONCE(set->link->journey)) ||
	       ipttrace_limits_admit(set, skb, state, place);
}

/* The time at which a set begins what its budgets are charged for, or 0 if that is not needed. */
static __always_inline u64
ipttrace_limits_begin(const struct ipttrace_limits *limits)
{
	return likely(!limits) ? 0 : ipttrace_limits_clock(limits);
}

/*
 * Charges the budgets of a set for @events, and for the time since ipttrace_limits_begin() returned
 * @begin, on this CPU with softirqs off.
 */
static __always_inline void
ipttrace_limits_charge(const struct ipttrace_set *set, u64 begin,
		       unsigned int events)
{
	if (unlikely(set->limits))
		ipttrace_limits_use(set, begin, events);
}

#endif /* _IPTTRACE_LIMITS_H */
