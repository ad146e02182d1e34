/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Packets that are known on their way through hooks and network namespaces.
 */
#ifndef _IPTTRACE_KNOWN_H
#define _IPTTRACE_KNOWN_H

#include <linux/types.h>

struct ipttrace_bucket;
struct ipttrace_known;
struct nf_hook_state;
struct sk_buff;

/**
 * struct ipttrace_sighting - a packet at a place, between looking for it and adding it
 * @bucket: where it is known, if it is
 * @here: what it would be known by
 */
struct ipttrace_sighting {
	struct ipttrace_bucket *bucket;
	u64 here;
};

bool ipttrace_known_find(struct ipttrace_known *known,
			 const struct sk_buff *skb,
			 const struct nf_hook_state *state, const void *place,
			 struct ipttrace_sighting *seen, bool *left_out);
void ipttrace_known_add(const struct ipttrace_sighting *seen, bool left_out);
struct ipttrace_known *ipttrace_known_alloc(void);

#endif /* _IPTTRACE_KNOWN_H */
