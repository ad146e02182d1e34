// SPDX-License-Identifier: GPL-2.0
/*
 * Packets at the hook of an nf link (nf.c): its set decides, beside its shadow if it has one.
 */
#include <linux/ktime.h>
#include <linux/percpu.h>
#include <linux/local_lock.h> /* behind the others: on PREEMPT_RT it needs a spinlock_t */

#include "events.h"
#include "limits.h"
#include "link.h"
#include "nf_packet.h"
#include "packet.h"
#include "shadow.h"

/**
 * struct nf_course - what has become of a packet at the hook
 * @softirqs: they were on when it came
 * @selected: the filter let the program see it
 * @decided: the set's limits have decided over its events
 * @admitted: they are reported
 */
struct nf_course {
	bool softirqs;
	bool selected;
	bool decided;
	bool admitted;
};

/* Tells whether the set's limits admit the events of a packet: all of them, or none. */
static bool nf_admits(const struct ipttrace_set *set, struct nf_course *course)
{
	if (likely(!set->limits))
		return true;
	if (!course->decided) {
		course->decided = true;
		course->admitted = ipttrace_limits_admit_once(set);
	}
	return course->admitted;
}

static void nf_describe(struct ipttrace_event *event, const struct nf_place *nf,
			const struct sk_buff *skb,
			const struct nf_hook_state *state,
			const struct nf_course *course)
{
	event->time = ktime_get_ns();
	event->priority = nf->ops.priority;
	ipttrace_packet_describe(event, skb, state, course->softirqs);
}

/* noinline: a packet that nobody asks to report does not pay for an event on the stack. */
static noinline void nf_report(const struct nf_place *nf,
			       const struct ipttrace_set *set,
			       const struct sk_buff *skb,
			       const struct nf_hook_state *state,
			       struct nf_course *course, unsigned int verdict)
{
	struct ipttrace_event event = {
		.kind = IPTTRACE_KIND_PACKET,
		.verdict = verdict,
	};
	u64 begin;

	if (!nf_admits(set, course))
		return;
	begin = ipttrace_limits_begin(set->limits);
	this_cpu_inc(set->link->stats->events);
	if (ipttrace_events_wanted()) {
		nf_describe(&event, nf, skb, state, course);
		ipttrace_set_emit(set, IPTTRACE_SLOT_PACKET, &event);
	}
	ipttrace_limits_charge(set, begin, 1);
}

/* Reports that a shadow, whose program ran or did not, would have decided otherwise. */
static noinline void nf_report_disagreement(
	const struct nf_place *nf, const struct ipttrace_set *set,
	const struct ipttrace_shadow *shadow, bool ran,
	const struct sk_buff *skb, const struct nf_hook_state *state,
	struct nf_course *course, unsigned int verdict, unsigned int other)
{
	struct ipttrace_event event = {
		.kind = IPTTRACE_KIND_DISAGREE,
		.verdict = verdict,
		.verdict_data = other,
		.rule_handle = shadow->number,
	};
	u64 begin;

	if (!nf_admits(set, course))
		return;
	begin = ipttrace_limits_begin(set->limits);
	this_cpu_inc(set->link->stats->events);
	if (ipttrace_events_wanted()) {
		nf_describe(&event, nf, skb, state, course);
		ipttrace_set_emit_disagreement(set, ran ? shadow->set : NULL,
					       &event);
	}
	ipttrace_limits_charge(set, begin, 1);
}

/*
 * Serialises the packet programs of a CPU, and the reading of their payloads: they share per-CPU
 * maps with themselves. Softirqs are off as well, as ipt_do_table() has them for xt_bpf. On
 * PREEMPT_RT that does not make these exclude each other (from 6.18 on in no case). There this is a
 * lock that sleeps, since socket filters may use maps with such locks.
 */
static DEFINE_PER_CPU(local_lock_t,
		      packet_programs) = INIT_LOCAL_LOCK(packet_programs);

/* Has the set of a link decide over a packet. */
static __always_inline unsigned int nf_decide(const struct nf_place *nf,
					      const struct ipttrace_set *set,
					      struct sk_buff *skb,
					      const struct nf_hook_state *state,
					      struct nf_course *course)
{
	struct ipttrace_link_stats __percpu *stats = set->link->stats;
	unsigned int verdict = NF_ACCEPT;
	bool report;
	u32 result;

	this_cpu_inc(stats->packets);
	course->selected = ipttrace_set_filter(set, skb);
	if (!course->selected)
		return verdict;
	this_cpu_inc(stats->selected);
	result = ipttrace_set_run_packet(set, skb);
	report = result;
	if (nf->mode == IPTTRACE_NF_MODE_FILTER) {
		report = !result && nf->report_drops;
		if (!result) {
			this_cpu_inc(stats->drops);
			verdict = NF_DROP;
		}
	}
	if (report)
		nf_report(nf, set, skb, state, course, verdict);
	return verdict;
}

/*
 * Has the set decide, and compares its verdict with that of a shadow. The shadow runs first, and
 * changes nothing that the set could see (shadow.c). A packet that both pass over is not compared:
 * no program has decided. noinline: other packets do not pay for this one's registers.
 */
static noinline unsigned int
nf_compare(const struct nf_place *nf, const struct ipttrace_set *set,
	   const struct ipttrace_shadow *shadow, struct sk_buff *skb,
	   const struct nf_hook_state *state, struct nf_course *course)
{
	struct ipttrace_link_stats __percpu *stats = set->link->stats;
	bool ran = ipttrace_set_filter(shadow->set, skb);
	unsigned int verdict, other = NF_ACCEPT;

	if (ran && !ipttrace_set_run_shadow(shadow->set, skb))
		other = NF_DROP;
	verdict = nf_decide(nf, set, skb, state, course);
	if (verdict != other) {
		this_cpu_inc(stats->shadow.disagreed);
		nf_report_disagreement(nf, set, shadow, ran, skb, state, course,
				       verdict, other);
	} else if (ran || course->selected) {
		this_cpu_inc(stats->shadow.agreed);
	}
	return verdict;
}

/**
 * ipttrace_nf_packet - handle a packet at the hook of a link
 * @priv: the place of the link
 * @skb: the packet
 * @state: state of the hook
 *
 * Context: netfilter holds the RCU read lock around all hooks.
 * Return: the verdict.
 */
unsigned int ipttrace_nf_packet(void *priv, struct sk_buff *skb,
				const struct nf_hook_state *state)
{
	const struct nf_place *nf = priv;
	const struct ipttrace_set *set = rcu_dereference(nf->active);
	const struct ipttrace_shadow *shadow = rcu_dereference(set->shadow);
	struct nf_course course = { .softirqs = !in_softirq() };
	unsigned int verdict;

	local_bh_disable();
	local_lock(&packet_programs);
	if (unlikely(shadow))
		verdict = nf_compare(nf, set, shadow, skb, state, &course);
	else
		verdict = nf_decide(nf, set, skb, state, &course);
	local_unlock(&packet_programs);
	local_bh_enable();
	return verdict;
}
