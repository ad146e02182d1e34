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

static_assert(sizeof(struct ipttrace_batch) == 56, "struct ipttrace_batch");
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
static_assert(offsetof(struct ipttrace_batch, event_size) == 48,
	      "batch.event_size");
static_assert(offsetof(struct ipttrace_batch, reserved) == 52,
	      "batch.reserved");
static_assert(sizeof(struct ipttrace_event) == 368, "struct ipttrace_event");
static_assert(offsetof(struct ipttrace_event, time) == 0,
	      "event.time");
static_assert(offsetof(struct ipttrace_event, skb) == 8,
	      "event.skb");
static_assert(offsetof(struct ipttrace_event, cost) == 16,
	      "event.cost");
static_assert(offsetof(struct ipttrace_event, netns_cookie) == 24,
	      "event.netns_cookie");
static_assert(offsetof(struct ipttrace_event, table_handle) == 32,
	      "event.table_handle");
static_assert(offsetof(struct ipttrace_event, chain_handle) == 40,
	      "event.chain_handle");
static_assert(offsetof(struct ipttrace_event, rule_handle) == 48,
	      "event.rule_handle");
static_assert(offsetof(struct ipttrace_event, packet) == 56,
	      "event.packet");
static_assert(offsetof(struct ipttrace_event, link) == 64,
	      "event.link");
static_assert(offsetof(struct ipttrace_event, generation) == 68,
	      "event.generation");
static_assert(offsetof(struct ipttrace_event, traversal) == 72,
	      "event.traversal");
static_assert(offsetof(struct ipttrace_event, netns) == 76,
	      "event.netns");
static_assert(offsetof(struct ipttrace_event, pid) == 80,
	      "event.pid");
static_assert(offsetof(struct ipttrace_event, in_ifindex) == 84,
	      "event.in_ifindex");
static_assert(offsetof(struct ipttrace_event, out_ifindex) == 88,
	      "event.out_ifindex");
static_assert(offsetof(struct ipttrace_event, physin_ifindex) == 92,
	      "event.physin_ifindex");
static_assert(offsetof(struct ipttrace_event, physout_ifindex) == 96,
	      "event.physout_ifindex");
static_assert(offsetof(struct ipttrace_event, mark) == 100,
	      "event.mark");
static_assert(offsetof(struct ipttrace_event, length) == 104,
	      "event.length");
static_assert(offsetof(struct ipttrace_event, ruleset) == 108,
	      "event.ruleset");
static_assert(offsetof(struct ipttrace_event, rulenum) == 112,
	      "event.rulenum");
static_assert(offsetof(struct ipttrace_event, rules) == 116,
	      "event.rules");
static_assert(offsetof(struct ipttrace_event, verdict) == 120,
	      "event.verdict");
static_assert(offsetof(struct ipttrace_event, verdict_data) == 124,
	      "event.verdict_data");
static_assert(offsetof(struct ipttrace_event, priority) == 128,
	      "event.priority");
static_assert(offsetof(struct ipttrace_event, skb_priority) == 132,
	      "event.skb_priority");
static_assert(offsetof(struct ipttrace_event, ct_mark) == 136,
	      "event.ct_mark");
static_assert(offsetof(struct ipttrace_event, sport) == 140,
	      "event.sport");
static_assert(offsetof(struct ipttrace_event, dport) == 142,
	      "event.dport");
static_assert(offsetof(struct ipttrace_event, icmp_id) == 144,
	      "event.icmp_id");
static_assert(offsetof(struct ipttrace_event, ethertype) == 146,
	      "event.ethertype");
static_assert(offsetof(struct ipttrace_event, arp_operation) == 148,
	      "event.arp_operation");
static_assert(offsetof(struct ipttrace_event, flags) == 150,
	      "event.flags");
static_assert(offsetof(struct ipttrace_event, depth) == 152,
	      "event.depth");
static_assert(offsetof(struct ipttrace_event, ct_zone) == 154,
	      "event.ct_zone");
static_assert(offsetof(struct ipttrace_event, ct_state) == 156,
	      "event.ct_state");
static_assert(offsetof(struct ipttrace_event, ttl) == 158,
	      "event.ttl");
static_assert(offsetof(struct ipttrace_event, tos) == 160,
	      "event.tos");
static_assert(offsetof(struct ipttrace_event, kind) == 162,
	      "event.kind");
static_assert(offsetof(struct ipttrace_event, pf) == 163,
	      "event.pf");
static_assert(offsetof(struct ipttrace_event, hook) == 164,
	      "event.hook");
static_assert(offsetof(struct ipttrace_event, family) == 165,
	      "event.family");
static_assert(offsetof(struct ipttrace_event, protocol) == 166,
	      "event.protocol");
static_assert(offsetof(struct ipttrace_event, tcp_flags) == 167,
	      "event.tcp_flags");
static_assert(offsetof(struct ipttrace_event, icmp_type) == 168,
	      "event.icmp_type");
static_assert(offsetof(struct ipttrace_event, icmp_code) == 169,
	      "event.icmp_code");
static_assert(offsetof(struct ipttrace_event, dmac) == 170,
	      "event.dmac");
static_assert(offsetof(struct ipttrace_event, saddr) == 176,
	      "event.saddr");
static_assert(offsetof(struct ipttrace_event, daddr) == 192,
	      "event.daddr");
static_assert(offsetof(struct ipttrace_event, in_name) == 208,
	      "event.in_name");
static_assert(offsetof(struct ipttrace_event, out_name) == 224,
	      "event.out_name");
static_assert(offsetof(struct ipttrace_event, physin_name) == 240,
	      "event.physin_name");
static_assert(offsetof(struct ipttrace_event, physout_name) == 256,
	      "event.physout_name");
static_assert(offsetof(struct ipttrace_event, table) == 272,
	      "event.table");
static_assert(offsetof(struct ipttrace_event, chain) == 304,
	      "event.chain");
static_assert(offsetof(struct ipttrace_event, target) == 336,
	      "event.target");

#endif /* _IPTTRACE_LAYOUT_CHECK_H */
