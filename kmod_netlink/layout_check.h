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
static_assert(sizeof(struct ipttrace_event) == 408, "struct ipttrace_event");
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
static_assert(offsetof(struct ipttrace_event, pid_start) == 64,
	      "event.pid_start");
static_assert(offsetof(struct ipttrace_event, cgroup) == 72,
	      "event.cgroup");
static_assert(offsetof(struct ipttrace_event, link) == 80,
	      "event.link");
static_assert(offsetof(struct ipttrace_event, generation) == 84,
	      "event.generation");
static_assert(offsetof(struct ipttrace_event, traversal) == 88,
	      "event.traversal");
static_assert(offsetof(struct ipttrace_event, netns) == 92,
	      "event.netns");
static_assert(offsetof(struct ipttrace_event, pid) == 96,
	      "event.pid");
static_assert(offsetof(struct ipttrace_event, uid) == 100,
	      "event.uid");
static_assert(offsetof(struct ipttrace_event, in_ifindex) == 104,
	      "event.in_ifindex");
static_assert(offsetof(struct ipttrace_event, out_ifindex) == 108,
	      "event.out_ifindex");
static_assert(offsetof(struct ipttrace_event, physin_ifindex) == 112,
	      "event.physin_ifindex");
static_assert(offsetof(struct ipttrace_event, physout_ifindex) == 116,
	      "event.physout_ifindex");
static_assert(offsetof(struct ipttrace_event, mark) == 120,
	      "event.mark");
static_assert(offsetof(struct ipttrace_event, length) == 124,
	      "event.length");
static_assert(offsetof(struct ipttrace_event, ruleset) == 128,
	      "event.ruleset");
static_assert(offsetof(struct ipttrace_event, rulenum) == 132,
	      "event.rulenum");
static_assert(offsetof(struct ipttrace_event, rules) == 136,
	      "event.rules");
static_assert(offsetof(struct ipttrace_event, verdict) == 140,
	      "event.verdict");
static_assert(offsetof(struct ipttrace_event, verdict_data) == 144,
	      "event.verdict_data");
static_assert(offsetof(struct ipttrace_event, priority) == 148,
	      "event.priority");
static_assert(offsetof(struct ipttrace_event, skb_priority) == 152,
	      "event.skb_priority");
static_assert(offsetof(struct ipttrace_event, ct_mark) == 156,
	      "event.ct_mark");
static_assert(offsetof(struct ipttrace_event, ct_id) == 160,
	      "event.ct_id");
static_assert(offsetof(struct ipttrace_event, sport) == 164,
	      "event.sport");
static_assert(offsetof(struct ipttrace_event, dport) == 166,
	      "event.dport");
static_assert(offsetof(struct ipttrace_event, icmp_id) == 168,
	      "event.icmp_id");
static_assert(offsetof(struct ipttrace_event, ethertype) == 170,
	      "event.ethertype");
static_assert(offsetof(struct ipttrace_event, arp_operation) == 172,
	      "event.arp_operation");
static_assert(offsetof(struct ipttrace_event, flags) == 174,
	      "event.flags");
static_assert(offsetof(struct ipttrace_event, depth) == 176,
	      "event.depth");
static_assert(offsetof(struct ipttrace_event, ct_zone) == 178,
	      "event.ct_zone");
static_assert(offsetof(struct ipttrace_event, ct_state) == 180,
	      "event.ct_state");
static_assert(offsetof(struct ipttrace_event, ttl) == 182,
	      "event.ttl");
static_assert(offsetof(struct ipttrace_event, tos) == 184,
	      "event.tos");
static_assert(offsetof(struct ipttrace_event, kind) == 186,
	      "event.kind");
static_assert(offsetof(struct ipttrace_event, pf) == 187,
	      "event.pf");
static_assert(offsetof(struct ipttrace_event, hook) == 188,
	      "event.hook");
static_assert(offsetof(struct ipttrace_event, family) == 189,
	      "event.family");
static_assert(offsetof(struct ipttrace_event, protocol) == 190,
	      "event.protocol");
static_assert(offsetof(struct ipttrace_event, tcp_flags) == 191,
	      "event.tcp_flags");
static_assert(offsetof(struct ipttrace_event, icmp_type) == 192,
	      "event.icmp_type");
static_assert(offsetof(struct ipttrace_event, icmp_code) == 193,
	      "event.icmp_code");
static_assert(offsetof(struct ipttrace_event, dmac) == 194,
	      "event.dmac");
static_assert(offsetof(struct ipttrace_event, saddr) == 200,
	      "event.saddr");
static_assert(offsetof(struct ipttrace_event, daddr) == 216,
	      "event.daddr");
static_assert(offsetof(struct ipttrace_event, comm) == 232,
	      "event.comm");
static_assert(offsetof(struct ipttrace_event, in_name) == 248,
	      "event.in_name");
static_assert(offsetof(struct ipttrace_event, out_name) == 264,
	      "event.out_name");
static_assert(offsetof(struct ipttrace_event, physin_name) == 280,
	      "event.physin_name");
static_assert(offsetof(struct ipttrace_event, physout_name) == 296,
	      "event.physout_name");
static_assert(offsetof(struct ipttrace_event, table) == 312,
	      "event.table");
static_assert(offsetof(struct ipttrace_event, chain) == 344,
	      "event.chain");
static_assert(offsetof(struct ipttrace_event, target) == 376,
	      "event.target");

#endif /* _IPTTRACE_LAYOUT_CHECK_H */
