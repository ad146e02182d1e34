/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A selected packet at a table, between the parts that handle it: traverse.c opens a frame for it,
 * frame.c handles the rules that the kernel reports.
 */
#ifndef _IPTTRACE_FRAME_H
#define _IPTTRACE_FRAME_H

#include <linux/list.h>
#include <linux/netfilter.h>
#include <linux/skbuff.h>

#include "ipttrace_netlink.h"

struct in6_addr;
struct in_addr;
struct ipttrace_selection;
struct nf_loginfo;
struct xt_table;

/**
 * struct ipttrace_frame - a selected packet on its way through a table
 * @node: in this CPU's frames while it is listed
 * @skb: the packet
 * @table: the table
 * @selection: the program sets that follow it
 * @slots: slots in which any of them has a program
 * @marked: nf_trace is set for us, so that the kernel reports the rules
 * @foreign: somebody else wants the packet traced as well
 * @compared: the generation in @event was compared with that of the rules that the packet meets
 * @told: somebody listened when it came: @event is filled in, and sent
 * @format: the format of a rule's report, once the kernel has used it
 * @chain: where the chain's name in @event was copied from
 * @event: fields that all its events have in common
 *
 * Lives on the stack of a function that runs with softirqs off and so stays on one CPU. Found by
 * its packet while it is listed: a packet is in one table at a time. The lists are touched with
 * preemption off.
 */
struct ipttrace_frame {
	struct hlist_node node;
	struct sk_buff *skb;
	const struct xt_table *table;
	const struct ipttrace_selection *selection;
	unsigned long slots;
	bool marked;
	bool foreign;
	bool compared;
	bool told;
	const char *format;
	const char *chain;
	struct ipttrace_event event;
};

/* The built-in chain at each hook. */
extern const char *const ipttrace_hook_chains[NF_INET_NUMHOOKS];

struct ipttrace_frame *ipttrace_frame_find(const struct sk_buff *skb);
void ipttrace_frame_list(struct ipttrace_frame *frame);
void ipttrace_frame_unlist(struct ipttrace_frame *frame);
void ipttrace_frame_compare(struct ipttrace_frame *frame);
void ipttrace_frame_name(struct ipttrace_frame *frame, const char *chain);
void ipttrace_frame_known(struct ipttrace_frame *frame,
			  const struct xt_table *table,
			  const struct nf_hook_state *state);

__printf(8, 9) void ipttrace_log_replacement(struct net *net, u_int8_t pf,
					     unsigned int hooknum,
					     const struct sk_buff *skb,
					     const struct net_device *in,
					     const struct net_device *out,
					     const struct nf_loginfo *loginfo,
					     const char *fmt, ...);
void ipttrace_dup_ipv4_replacement(struct net *net, struct sk_buff *skb,
				   unsigned int hooknum,
				   const struct in_addr *gateway, int oif);
void ipttrace_dup_ipv6_replacement(struct net *net, struct sk_buff *skb,
				   unsigned int hooknum,
				   const struct in6_addr *gateway, int oif);

#endif /* _IPTTRACE_FRAME_H */
