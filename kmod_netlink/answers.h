/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Answers: packets of the other direction of connections whose packets are followed.
 */
#ifndef _IPTTRACE_ANSWERS_H
#define _IPTTRACE_ANSWERS_H

#include <linux/compiler.h>
#include <linux/types.h>

struct nf_hook_state;
struct sk_buff;

/* Journeys that follow answers, a bit each; written under ipttrace_lock. */
extern u32 ipttrace_answers_wanted;

int ipttrace_answers_begin(u32 journey);
void ipttrace_answers_leave(u32 journeys);
void ipttrace_answers_forget(u32 journeys);
u64 ipttrace_answers_displaced(void);

u32 ipttrace_answers_find(const struct sk_buff *skb,
			  const struct nf_hook_state *state, u32 journeys);
void ipttrace_answers_expect(const struct sk_buff *skb,
			     const struct nf_hook_state *state, u32 length,
			     u32 journeys);

/* Whether any packet may be an answer; false is certain. Here, for handlers of ftrace. */
static __always_inline bool ipttrace_answers_any(void)
{
	return unlikely(READ_ONCE(ipttrace_answers_wanted));
}

#endif /* _IPTTRACE_ANSWERS_H */
