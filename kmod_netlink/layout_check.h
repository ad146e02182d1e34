/* SPDX-License-Identifier: GPL-2.0 */
/* Generated from ipttproto/family.py by `make generate`; do not edit. */
#ifndef _IPTTRACE_LAYOUT_CHECK_H
#define _IPTTRACE_LAYOUT_CHECK_H

#ifdef __KERNEL__
#include <linux/build_bug.h>
#include <linux/stddef.h>
#else
#include <assert.h>
#include <stddef.h>
#endif

#include "ipttrace_netlink.h"

static_assert(sizeof(struct ipttrace_batch) == 48, "struct ipttrace_batch");
static_assert(offsetof(struct ipttrace_batch, sequence) == 0,
	      "batch.sequence");
static_assert(offsetof(struct ipttrace_batch, lost) == 8,
	      "batch.lost");
static_assert(offsetof(struct ipttrace_batch, clock_offset) == 32,
	      "batch.clock_offset");
static_assert(offsetof(struct ipttrace_batch, cpu) == 40,
	      "batch.cpu");
static_assert(offsetof(struct ipttrace_batch, count) == 44,
	      "batch.count");
static_assert(sizeof(struct ipttrace_event) == 232, "struct ipttrace_event");
static_assert(offsetof(struct ipttrace_event, time) == 0,
	      "event.time");
static_assert(offsetof(struct ipttrace_event, skb) == 8,
	      "event.skb");
static_assert(offsetof(struct ipttrace_event, cost) == 16,
	      "event.cost");
static_assert(offsetof(struct ipttrace_event, link) == 24,
	      "event.link");
static_assert(offsetof(struct ipttrace_event, generation) == 28,
	      "event.generation");
static_assert(offsetof(struct ipttrace_event, traversal) == 32,
	      "event.traversal");
static_assert(offsetof(struct ipttrace_event, netns) == 36,
	      "event.netns");
static_assert(offsetof(struct ipttrace_event, pid) == 40,
	      "event.pid");
static_assert(offsetof(struct ipttrace_event, in_ifindex) == 44,
	      "event.in_ifindex");
static_assert(offsetof(struct ipttrace_event, out_ifindex) == 48,
	      "event.out_ifindex");
static_assert(offsetof(struct ipttrace_event, mark) == 52,
	      "event.mark");
static_assert(offsetof(struct ipttrace_event, length) == 56,
	      "event.length");
static_assert(offsetof(struct ipttrace_event, rulenum) == 60,
	      "event.rulenum");
static_assert(offsetof(struct ipttrace_event, rules) == 64,
	      "event.rules");
static_assert(offsetof(struct ipttrace_event, verdict) == 68,
	      "event.verdict");
static_assert(offsetof(struct ipttrace_event, verdict_data) == 72,
	      "event.verdict_data");
static_assert(offsetof(struct ipttrace_event, priority) == 76,
	      "event.priority");
static_assert(offsetof(struct ipttrace_event, sport) == 80,
	      "event.sport");
static_assert(offsetof(struct ipttrace_event, dport) == 82,
	      "event.dport");
static_assert(offsetof(struct ipttrace_event, icmp_id) == 84,
	      "event.icmp_id");
static_assert(offsetof(struct ipttrace_event, ethertype) == 86,
	      "event.ethertype");
static_assert(offsetof(struct ipttrace_event, arp_operation) == 88,
	      "event.arp_operation");
static_assert(offsetof(struct ipttrace_event, kind) == 90,
	      "event.kind");
static_assert(offsetof(struct ipttrace_event, pf) == 91,
	      "event.pf");
static_assert(offsetof(struct ipttrace_event, hook) == 92,
	      "event.hook");
static_assert(offsetof(struct ipttrace_event, flags) == 93,
	      "event.flags");
static_assert(offsetof(struct ipttrace_event, protocol) == 94,
	      "event.protocol");
static_assert(offsetof(struct ipttrace_event, tcp_flags) == 95,
	      "event.tcp_flags");
static_assert(offsetof(struct ipttrace_event, icmp_type) == 96,
	      "event.icmp_type");
static_assert(offsetof(struct ipttrace_event, icmp_code) == 97,
	      "event.icmp_code");
static_assert(offsetof(struct ipttrace_event, dmac) == 98,
	      "event.dmac");
static_assert(offsetof(struct ipttrace_event, saddr) == 104,
	      "event.saddr");
static_assert(offsetof(struct ipttrace_event, daddr) == 120,
	      "event.daddr");
static_assert(offsetof(struct ipttrace_event, in_name) == 136,
	      "event.in_name");
static_assert(offsetof(struct ipttrace_event, out_name) == 152,
	      "event.out_name");
static_assert(offsetof(struct ipttrace_event, table) == 168,
	      "event.table");
static_assert(offsetof(struct ipttrace_event, chain) == 200,
	      "event.chain");

#endif /* _IPTTRACE_LAYOUT_CHECK_H */
