/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_COMPAT_BEHIND_H
#define _IPTTRACE_COMPAT_BEHIND_H

#include <linux/ftrace.h>
#include <linux/netfilter.h>

struct in_addr;
struct in6_addr;
struct nf_loginfo;
struct xt_table;
struct xt_table_info;

/* Length of the instruction at the patch site of a function, which is continued behind it. */
#define IPTTRACE_PATCH_SIZE MCOUNT_INSN_SIZE

/*
 * IPTTRACE_BEHIND(type, name, arguments) declares ipttrace_behind_NAME(), see behind.S, and the
 * address at which it continues, which is set before the function is redirected for the first time.
 */
#define IPTTRACE_BEHIND(type, name, ...)                       \
	extern unsigned long ipttrace_behind_##name##_address; \
	asmlinkage type ipttrace_behind_##name(__VA_ARGS__)

IPTTRACE_BEHIND(unsigned int, ipt_do_table, void *table, struct sk_buff *skb,
		const struct nf_hook_state *state);
IPTTRACE_BEHIND(unsigned int, ip6t_do_table, void *table, struct sk_buff *skb,
		const struct nf_hook_state *state);
IPTTRACE_BEHIND(void, nf_log_trace, struct net *net, u_int8_t pf,
		unsigned int hooknum, const struct sk_buff *skb,
		const struct net_device *in, const struct net_device *out,
		const struct nf_loginfo *loginfo, const char *fmt, ...);
IPTTRACE_BEHIND(void, nf_dup_ipv4, struct net *net, struct sk_buff *skb,
		unsigned int hooknum, const struct in_addr *gateway, int oif);
IPTTRACE_BEHIND(void, nf_dup_ipv6, struct net *net, struct sk_buff *skb,
		unsigned int hooknum, const struct in6_addr *gateway, int oif);
IPTTRACE_BEHIND(struct xt_table_info *, xt_replace_table,
		struct xt_table *table, unsigned int num_counters,
		struct xt_table_info *newinfo, int *error);

IPTTRACE_BEHIND(int, nf_hook_slow, struct sk_buff *skb,
		struct nf_hook_state *state,
		const struct nf_hook_entries *entries, unsigned int i);
IPTTRACE_BEHIND(unsigned long, kallsyms_lookup_name, const char *name);
IPTTRACE_BEHIND(void, __consume_stateless_skb, struct sk_buff *skb);

#endif /* _IPTTRACE_COMPAT_BEHIND_H */
