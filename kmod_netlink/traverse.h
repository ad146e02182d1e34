/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_TRAVERSE_H
#define _IPTTRACE_TRAVERSE_H

#include "function.h"

struct ipttrace_sets;
struct nf_hook_state;
struct sk_buff;

/* Functions of one watch are adjacent. */
enum {
	IPTTRACE_IPT_DO_TABLE,
	IPTTRACE_IP6T_DO_TABLE,
	IPTTRACE_TRACE_TG,
	IPTTRACE_NF_LOG_TRACE,
	IPTTRACE_NF_DUP_IPV4,
	IPTTRACE_NF_DUP_IPV6,
	IPTTRACE_FUNCTIONS
};

/* The functions that are watched or redirected for tables; armed by table.c. */
extern struct ipttrace_function ipttrace_functions[IPTTRACE_FUNCTIONS];

struct ipttrace_sets *ipttrace_traverse_publish(struct ipttrace_sets *sets);
bool ipttrace_traverse_known_wanted(const struct ipttrace_function *fn,
				    const struct sk_buff *skb);
void ipttrace_traverse_known(const struct ipttrace_function *fn, void *table,
			     struct sk_buff *skb,
			     const struct nf_hook_state *state,
			     unsigned long sp, unsigned long bp);

#endif /* _IPTTRACE_TRAVERSE_H */
