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
static_assert(sizeof(struct ipttrace_event) == 280, "struct ipttrace_event");
static_assert(offsetof(struct ipttrace_event, time) == 0,
	      "event.time");
static_assert(offsetof(struct ipttrace_event, skb) == 8,
	      "event.skb");
static_assert(offsetof(struct ipttrace_event, cost) == 16,
	      "event.cost");
static_assert(offsetof(struct ipttrace_event, netns_cookie) == 24,
	      "event.netns_cookie");
static_assert(offsetof(struct ipttrace_event, link) == 32,
	      "event.link");
static_assert(offsetof(struct ipttrace_event, generation) == 36,
	      "event.generation");
static_assert(offsetof(struct ipttrace_event, traversal) == 40,
	      "event.traversal");
static_assert(offsetof(struct ipttrace_event, netns) == 44,
	      "event.netns");
static_assert(offsetof(struct ipttrace_event, pid) == 48,
	      "event.pid");
static_assert(offsetof(struct ipttrace_event, in_ifindex) == 52,
	      "event.in_ifindex");
static_assert(offsetof(struct ipttrace_event, out_ifindex) == 56,
	      "event.out_ifindex");
static_assert(offsetof(struct ipttrace_event, physin_ifindex) == 60,
	      "event.physin_ifindex");
static_assert(offsetof(struct ipttrace_event, physout_ifindex) == 64,
	      "event.physout_ifindex");
static_assert(offsetof(struct ipttrace_event, mark) == 68,
	      "event.mark");
static_assert(offsetof(struct ipttrace_event, length) == 72,
	      "event.length");
static_assert(offsetof(struct ipttrace_event, rulenum) == 76,
	      "event.rulenum");
static_assert(offsetof(struct ipttrace_event, rules) == 80,
	      "event.rules");
static_assert(offsetof(struct ipttrace_event, verdict) == 84,
	      "event.verdict");
static_assert(offsetof(struct ipttrace_event, verdict_data) == 88,
	      "event.verdict_data");
static_assert(offsetof(struct ipttrace_event, priority) == 92,
	      "event.priority");
static_assert(offsetof(struct ipttrace_event, sport) == 96,
	      "event.sport");
static_assert(offsetof(struct ipttrace_event, dport) == 98,
	      "event.dport");
static_assert(offsetof(struct ipttrace_event, icmp_id) == 100,
	      "event.icmp_id");
static_assert(offsetof(struct ipttrace_event, ethertype) == 102,
	      "event.ethertype");
static_assert(offsetof(struct ipttrace_event, arp_operation) == 104,
	      "event.arp_operation");
static_assert(offsetof(struct ipttrace_event, kind) == 106,
	      "event.kind");
static_assert(offsetof(struct ipttrace_event, pf) == 107,
	      "event.pf");
static_assert(offsetof(struct ipttrace_event, hook) == 108,
	      "event.hook");
static_assert(offsetof(struct ipttrace_event, flags) == 109,
	      "event.flags");
static_assert(offsetof(struct ipttrace_event, protocol) == 110,
	      "event.protocol");
static_assert(offsetof(struct ipttrace_event, tcp_flags) == 111,
	      "event.tcp_flags");
static_assert(offsetof(struct ipttrace_event, icmp_type) == 112,
	      "event.icmp_type");
static_assert(offsetof(struct ipttrace_event, icmp_code) == 113,
	      "event.icmp_code");
static_assert(offsetof(struct ipttrace_event, dmac) == 114,
	      "event.dmac");
static_assert(offsetof(struct ipttrace_event, saddr) == 120,
	      "event.saddr");
static_assert(offsetof(struct ipttrace_event, daddr) == 136,
	      "event.daddr");
static_assert(offsetof(struct ipttrace_event, in_name) == 152,
	      "event.in_name");
static_assert(offsetof(struct ipttrace_event, out_name) == 168,
	      "event.out_name");
static_assert(offsetof(struct ipttrace_event, physin_name) == 184,
	      "event.physin_name");
static_assert(offsetof(struct ipttrace_event, physout_name) == 200,
	      "event.physout_name");
static_assert(offsetof(struct ipttrace_event, table) == 216,
	      "event.table");
static_assert(offsetof(struct ipttrace_event, chain) == 248,
	      "event.chain");

#endif /* _IPTTRACE_LAYOUT_CHECK_H */
