/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Packets that journeys follow, each under a number that no other packet gets.
 */
#ifndef _IPTTRACE_FOLLOWED_H
#define _IPTTRACE_FOLLOWED_H

#include <linux/types.h>

struct net_device;
struct nf_hook_state;
struct sk_buff;

/**
 * struct ipttrace_followed - what is known of a packet
 * @packet: its number; 0 for one that is not followed
 * @origin: number of the packet that it was copied from, or 0
 * @netns_cookie: namespace in which it was seen last, by its cookie
 * @netns: the same by its inode number
 * @length: bytes from its network header on, when it was followed first
 * @ifindex: device in that namespace that it came in by last, or 0
 * @on: journeys that follow it, a bit each
 * @off: journeys that leave it out, a bit each: their limits decided so
 * @dropped: it was dropped, and that was told
 * @arrived: it came to a socket
 */
struct ipttrace_followed {
	u64 packet;
	u64 origin;
	u64 netns_cookie;
	u32 netns;
	u32 length;
	int ifindex;
	u32 on;
	u32 off;
	bool dropped;
	bool arrived;
};

int ipttrace_followed_begin(void);
void ipttrace_followed_end(void);
void ipttrace_followed_live(u32 journeys);
void ipttrace_followed_forget(u32 journeys);
bool ipttrace_followed_any(const struct sk_buff *skb);
bool ipttrace_followed_find(const struct sk_buff *skb,
			    struct ipttrace_followed *found);
u64 ipttrace_followed_add(const struct sk_buff *skb,
			  const struct nf_hook_state *state, u32 on, u32 off);
bool ipttrace_followed_move(const struct sk_buff *skb,
			    const struct net_device *dev, bool in,
			    struct ipttrace_followed *found);
bool ipttrace_followed_drop(const struct sk_buff *skb,
			    struct ipttrace_followed *found);
bool ipttrace_followed_arrive(const struct sk_buff *skb,
			      struct ipttrace_followed *found);
bool ipttrace_followed_copy(const struct sk_buff *copy,
			    const struct sk_buff *skb,
			    struct ipttrace_followed *found);
bool ipttrace_followed_remove(const struct sk_buff *skb,
			      struct ipttrace_followed *found);
bool ipttrace_followed_expire(unsigned int *place, unsigned long age,
			      struct ipttrace_followed *found);
u64 ipttrace_followed_count(void);
u64 ipttrace_followed_unfollowed(void);

#endif /* _IPTTRACE_FOLLOWED_H */
