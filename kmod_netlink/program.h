/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_PROGRAM_H
#define _IPTTRACE_PROGRAM_H

#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/ptrace.h>

#include "ipttrace_netlink.h"

struct ipttrace_labels;
struct ipttrace_limits;
struct ipttrace_link;
struct ipttrace_shadow;

/**
 * struct ipttrace_set - the program set of a link in one generation
 * @link: the link; it outlives its sets
 * @generation: number of the generation
 * @slots: the slots that have a program, a bit each
 * @cookie: return value of bpf_get_attach_cookie()
 * @alone: the slots whose programs must be the only tracing program on their CPU, a bit each
 * @progs: a reference to the program in each slot, or NULL
 * @filter: classic-BPF filter of our own, or NULL
 * @filter_code: its instructions as they were given to us, owned, or NULL
 * @filter_len: number of its instructions
 * @filter_draws: the filter draws random numbers: run twice, it may give two answers
 * @payload: a reference to the map whose first element goes with events, or NULL
 * @payload_slots: the slots whose programs use it, a bit each
 * @limits: limits of its events, owned, or NULL
 * @labels: a use of the link's labels in this generation, or NULL; no packet looks at them
 * @shadow: the shadow whose verdicts are compared with those of this set, or NULL; written under
 *	ipttrace_lock
 *
 * Constant while published (transaction.c), except for @shadow, when packets find it through RCU.
 * Packets find @shadow in it likewise, so that both are of one moment. Owned by the link,
 * freed with ipttrace_set_free() a grace period after it was taken away. A set that is kept for a
 * roll-back may then be given another generation and be published again.
 */
struct ipttrace_set {
	struct ipttrace_link *link;
	u32 generation;
	unsigned long slots;
	u64 cookie;
	unsigned long alone;
	struct bpf_prog *progs[IPTTRACE_SLOTS];
	struct bpf_prog *filter;
	struct sock_filter *filter_code;
	u32 filter_len;
	bool filter_draws;
	struct bpf_map *payload;
	unsigned long payload_slots;
	struct ipttrace_limits *limits;
	struct ipttrace_labels *labels;
	struct ipttrace_shadow __rcu *shadow;
};

const struct bpf_map *ipttrace_program_map(const struct bpf_prog *prog,
					   u32 place);
bool ipttrace_program_uses(const struct bpf_prog *prog,
			   const struct bpf_map *map);
bool ipttrace_program_hides_maps(const struct bpf_prog *prog);

struct ipttrace_set *ipttrace_set_alloc(void);
void ipttrace_set_free(struct ipttrace_set *set);
int ipttrace_set_add_program(struct ipttrace_set *set,
			     const struct nlattr *slot_attr,
			     const struct nlattr *fd_attr,
			     struct netlink_ext_ack *extack);
int ipttrace_set_add_filter(struct ipttrace_set *set, const struct nlattr *attr,
			    struct netlink_ext_ack *extack);

u32 ipttrace_set_run(const struct ipttrace_set *set, enum ipttrace_slot slot,
		     struct pt_regs *regs);
u32 ipttrace_set_run_packet(const struct ipttrace_set *set,
			    struct sk_buff *skb);
u32 ipttrace_set_run_shadow(const struct ipttrace_set *shadow,
			    struct sk_buff *skb);
void ipttrace_set_emit(const struct ipttrace_set *set, enum ipttrace_slot slot,
		       struct ipttrace_event *event);
void ipttrace_set_emit_disagreement(const struct ipttrace_set *set,
				    const struct ipttrace_set *shadow,
				    struct ipttrace_event *event);

/* Bytes of the set's filter, as it was given to us. */
static inline size_t ipttrace_filter_size(const struct ipttrace_set *set)
{
	return set->filter_len * sizeof(struct sock_filter);
}

/*
 * Runs a classic filter as bpf_prog_run() does, but for statistics of its runs: nobody could ask
 * for them, since it has no id.
 */
static __always_inline bool ipttrace_filter_run(const struct bpf_prog *filter,
						const struct sk_buff *skb)
{
	return bpf_dispatcher_nop_func(skb, filter->insnsi, filter->bpf_func);
}

/* True if the set's filter lets @skb through, whose data must start at the network header. */
static inline bool ipttrace_set_filter(const struct ipttrace_set *set,
				       const struct sk_buff *skb)
{
	return !set->filter || ipttrace_filter_run(set->filter, skb);
}

/* False if the filter rejects @skb, and would do so again. */
static inline bool ipttrace_set_may_want(const struct ipttrace_set *set,
					 const struct sk_buff *skb)
{
	return set->filter_draws || ipttrace_set_filter(set, skb);
}

#endif /* _IPTTRACE_PROGRAM_H */
