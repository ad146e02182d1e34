// SPDX-License-Identifier: GPL-2.0
/*
 * Running programs, with everything that the kernel's own runner (trace_call_bpf) sets up.
 */
#include <linux/ktime.h>

#include "active.h"
#include "compat/bpf.h"
#include "events.h"
#include "limits.h"
#include "link.h"
#include "program.h"
#include "selection.h"

/* Programs running on this CPU; touched with preemption off. */
static DEFINE_PER_CPU(int, programs_running);

/*
 * Begins to time a program run, if the kernel times programs too. Our times are of this link; the
 * kernel's are of the program, wherever it runs.
 */
static u64 run_begin(void)
{
	return static_branch_unlikely(&bpf_stats_enabled_key) ? sched_clock() :
								0;
}

/* Counts a program run and its time, on the CPU of run_begin(). */
static void run_end(struct ipttrace_slot_stats __percpu *stats, u64 begin)
{
	this_cpu_inc(stats->runs);
	/* the run may have begun before times were wanted */
	if (static_branch_unlikely(&bpf_stats_enabled_key) && begin)
		this_cpu_add(stats->run_time, sched_clock() - begin);
}

/*
 * Tells whether the program in a slot may run now; run_leave() must follow in any case. Our own
 * programs never run one on top of another. Programs of others count only where ours needs it,
 * since it then misses the packets of every softirq that comes while one of theirs runs.
 */
static bool run_enter(const struct ipttrace_set *set, enum ipttrace_slot slot)
{
	bool alone = !__this_cpu_read(programs_running);

	__this_cpu_inc(programs_running);
	if (unlikely(set->alone & BIT(slot)))
		alone &= ipttrace_active_enter();
	return alone;
}

static void run_leave(const struct ipttrace_set *set, enum ipttrace_slot slot)
{
	if (unlikely(set->alone & BIT(slot)))
		ipttrace_active_leave();
	__this_cpu_dec(programs_running);
}

/*
 * Keep programs on their CPU and apart. Softirqs are off, and preemption with them, unless softirqs
 * are threads: on PREEMPT_RT preemption is switched off.
 */
static __always_inline void programs_begin(void)
{
	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		preempt_disable();
}

static __always_inline void programs_end(void)
{
	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		preempt_enable();
}

/*
 * Runs the program in a slot. Returns what it returns; 0 if one of ours was running on this CPU
 * already, or any tracing program and this one must not run on top of that; both are counted.
 * Between programs_begin() and programs_end().
 */
static __always_inline u32 run(const struct ipttrace_set *set,
			       enum ipttrace_slot slot, struct pt_regs *regs)
{
	struct bpf_trace_run_ctx run_ctx = { .bpf_cookie = set->cookie };
	struct bpf_run_ctx *outer;
	u32 result = 0;
	u64 begin;

	if (likely(run_enter(set, slot))) {
		outer = bpf_set_run_ctx(&run_ctx.run_ctx);
		begin = run_begin();
		result = bpf_prog_run(set->progs[slot], regs);
		run_end(&set->link->stats->slots[slot], begin);
		bpf_reset_run_ctx(outer);
	} else {
		this_cpu_inc(set->link->stats->nested);
		ipttrace_events_count_nested();
	}
	run_leave(set, slot);
	return result;
}

/**
 * ipttrace_set_run - run the program in a slot
 * @set: a set that the caller found through RCU and holds there
 * @slot: a slot that has a program
 * @regs: its context
 *
 * Context: softirqs off, the RCU read lock held, which map helpers check for.
 * Return: the return value of the program; 0 if it could not run, which is counted.
 */
u32 ipttrace_set_run(const struct ipttrace_set *set, enum ipttrace_slot slot,
		     struct pt_regs *regs)
{
	u32 result;

	programs_begin();
	result = run(set, slot, regs);
	programs_end();
	return result;
}

static u32 run_packet(const struct ipttrace_set *set, struct sk_buff *skb,
		      struct ipttrace_slot_stats __percpu *stats)
{
	u64 begin = run_begin();
	u32 result;

	result = bpf_prog_run_save_cb(set->progs[IPTTRACE_SLOT_PACKET], skb);
	run_end(stats, begin);
	return result;
}

/**
 * ipttrace_set_run_packet - run the program in the packet slot, as xt_bpf runs it
 * @set: a set that the caller found through RCU and holds there
 * @skb: the packet; its control block is restored afterwards
 *
 * No guard against recursion: a socket filter has no helper that sends a packet.
 *
 * Context: softirqs off.
 * Return: the return value of the program.
 */
u32 ipttrace_set_run_packet(const struct ipttrace_set *set, struct sk_buff *skb)
{
	return run_packet(set, skb,
			  &set->link->stats->slots[IPTTRACE_SLOT_PACKET]);
}

/**
 * ipttrace_set_run_shadow - run the program of a shadow, likewise
 * @shadow: a shadow that the caller found through RCU and holds there
 * @skb: the packet; its control block is restored afterwards
 *
 * Context: softirqs off.
 * Return: the return value of the program.
 */
u32 ipttrace_set_run_shadow(const struct ipttrace_set *shadow,
			    struct sk_buff *skb)
{
	return run_packet(shadow, skb, &shadow->link->stats->shadow.program);
}

/**
 * ipttrace_selection_run - run programs, and emit the events that they ask for
 * @selection: the program sets that follow the packet
 * @slot: the slot whose programs run
 * @event: the event, filled in but for time, link and generation; NULL if nobody listens
 * @regs: context of the programs
 *
 * Context: softirqs off, the RCU read lock held since the selection was made.
 */
void ipttrace_selection_run(const struct ipttrace_selection *selection,
			    enum ipttrace_slot slot,
			    struct ipttrace_event *event, struct pt_regs *regs)
{
	unsigned int i;
	bool asks;
	u64 begin;

	if (event)
		event->time = ktime_get_ns();
	for (i = ipttrace_selection_next(selection, 0); i < selection->end;
	     i = ipttrace_selection_next(selection, i + 1)) {
		const struct ipttrace_set *set = selection->sets->set[i];

		if (!set->progs[slot])
			continue;
		/* for the event too: an entry program could write into the payload of this one */
		programs_begin();
		begin = ipttrace_limits_begin(set->limits);
		asks = run(set, slot, regs);
		if (asks) {
			this_cpu_inc(set->link->stats->events);
			if (event)
				ipttrace_set_emit(set, slot, event);
		}
		ipttrace_limits_charge(set, begin, asks);
		programs_end();
	}
}

/**
 * ipttrace_selection_count_nested - count a walk that is left out: there are too many around it
 * @selection: the program sets that would follow the packet
 */
void ipttrace_selection_count_nested(const struct ipttrace_selection *selection)
{
	unsigned int i;

	preempt_disable();
	for (i = ipttrace_selection_next(selection, 0); i < selection->end;
	     i = ipttrace_selection_next(selection, i + 1))
		this_cpu_inc(selection->sets->set[i]->link->stats->nested);
	ipttrace_events_count_nested();
	preempt_enable();
}
