// SPDX-License-Identifier: GPL-2.0
/* The tracepoint kfree_skb tells the receiving socket as well (v6.11, and stable ones). */
#include <trace/events/skb.h>

int probe(struct sk_buff *skb, enum skb_drop_reason reason, struct sock *sk);

int probe(struct sk_buff *skb, enum skb_drop_reason reason, struct sock *sk)
{
	return __traceiter_kfree_skb(NULL, skb, NULL, reason, sk);
}
