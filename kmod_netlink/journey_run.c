// SPDX-License-Identifier: GPL-2.0
/*
 * The programs of journeys, their running at a step of a packet, and the step's event.
 */
#include <linux/hash.h>
#include <linux/jhash.h>
#include <linux/skbuff.h>
#include <net/inet_frag.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "compat/regs.h"
#include "events.h"
#include "followed.h"
#include "journey_run.h"
#include "journey_steps.h"
#include "link.h"
#include "packet.h"
#include "selection.h"

/* The program sets of journeys; written under ipttrace_lock. */
static struct ipttrace_sets __rcu *published;

/* Whether an address is where a tracer has a function return to, instead of its caller. */
static bool is_trampoline(const char *name)
{
	static const char *const names[] = {
		"arch_rethook_trampoline",
		"__kretprobe_trampoline",
		"return_to_handler",
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(name, names[i]))
			return true;
	return strstarts(name, "bpf_trampoline_");
}

/*
 * Puts the function that holds an address into an event, with its module. Nothing where a tracer
 * has replaced the address.
 */
static noinline void tell_function(struct ipttrace_event *event,
				   const void *address)
{
	char name[sizeof(event->chain) + sizeof(event->table)];
	char *module;

	snprintf(name, sizeof(name), "%ps", address);
	if (is_trampoline(name))
		return;
	module = strstr(name, " [");
	if (module) {
		*module = '\0';
		module += 2;
		*strchrnul(module, ']') = '\0';
		strscpy(event->table, module, sizeof(event->table));
	}
	strscpy(event->chain, name, sizeof(event->chain));
}

/* Puts the cause of a drop into an event. */
static void tell_drop(struct ipttrace_event *event,
		      const struct ipttrace_step *step)
{
	tell_function(event, step->object);
	if (step->value == SKB_NOT_DROPPED_YET ||
	    step->value == SKB_DROP_REASON_NOT_SPECIFIED)
		event->flags |= IPTTRACE_EVENT_FLAG_UNSAID;
}

/*
 * The whole that fragments wait for, by a number that no other one gets: the memory of the queue,
 * its end and all that its fragments have in common. Under the lock of the queue.
 */
static u64 whole_of(const struct inet_frag_queue *queue)
{
	u32 key = jhash(&queue->key, sizeof(queue->key), queue->timer.expires);

	return (u64)key << 32 | hash_ptr(queue, 32);
}

static void step_describe(struct ipttrace_event *event,
			  const struct ipttrace_step *step,
			  const struct ipttrace_followed *known)
{
	memset(event, 0, sizeof(*event));
	if (step->state)
		/* at none of the hooks that tell a sender */
		ipttrace_packet_describe(event, step->skb, step->state, false);
	event->skb = (unsigned long)step->skb;
	event->kind = step->kind;
	event->packet = known->packet;
	if (!step->state) {
		event->netns = known->netns;
		event->netns_cookie = known->netns_cookie;
	}
	event->verdict_data = step->value;
	if (step->kind == IPTTRACE_KIND_JOURNEY_COPY ||
	    step->kind == IPTTRACE_KIND_JOURNEY_JOINED)
		event->rule_handle = known->origin;
	else if (step->kind == IPTTRACE_KIND_JOURNEY_WAITS ||
		 step->kind == IPTTRACE_KIND_JOURNEY_WHOLE)
		event->rule_handle = whole_of(step->object);
	else if (step->kind == IPTTRACE_KIND_JOURNEY_DROPPED)
		tell_drop(event, step);
}

/* Puts a socket of IP into an event, by what no other living one has. */
static void tell_socket(struct ipttrace_event *event, const struct sock *sk)
{
	/* freed after a grace period, with its inode */
	const struct socket *socket = READ_ONCE(sk->sk_socket);
	const u8 opening = TCPHDR_SYN | TCPHDR_ACK | TCPHDR_RST;

	event->table_handle = atomic64_read(&sk->sk_cookie);
	if (socket)
		event->rule_handle = SOCK_INODE((struct socket *)socket)->i_ino;
	/* tcp_conn_request() consumes what it can make no connection of */
	if ((event->tcp_flags & opening) == TCPHDR_SYN &&
	    sk->sk_protocol == IPPROTO_TCP &&
	    READ_ONCE(sk->sk_state) == TCP_LISTEN && sk_acceptq_is_full(sk))
		event->flags |= IPTTRACE_EVENT_FLAG_QUEUE_FULL;
}

/**
 * ipttrace_step_show - run the step programs of the journeys that follow a packet
 * @step: the step
 * @known: what is known of the packet
 *
 * Interrupts are off meanwhile: a handler may be called in any of process, softirq and interrupt,
 * and softirqs must not be let in at its end.
 *
 * Context: any but NMI; preemption off, or an RCU read section.
 */
void ipttrace_step_show(const struct ipttrace_step *step,
			const struct ipttrace_followed *known)
{
	const unsigned long sp = ipttrace_entry_sp();
	const unsigned long args[6] = {
		/* clang-format off */ /* it would put two on a line */
		step->kind,
		(unsigned long)step->skb,
		(unsigned long)step->object,
		known->packet,
		known->origin,
		step->value,
		/* clang-format on */
	};
	const struct ipttrace_sets *sets =
		rcu_dereference_check(published, rcu_read_lock_sched_held());
	struct ipttrace_selection selection = { .sets = sets };
	struct ipttrace_event event __uninitialized;
	struct pt_regs regs __uninitialized;
	bool told = ipttrace_events_wanted();
	unsigned long flags;
	unsigned int i;

	for (i = 0; sets && i < sets->count; i++) {
		const struct ipttrace_journey_place *place =
			sets->set[i]->link->place;

		if (known->on & BIT(place->bit))
			ipttrace_selection_put(&selection, i);
	}
	if (!selection.end)
		return;
	if (told) {
		step_describe(&event, step, known);
		if (step->kind == IPTTRACE_KIND_JOURNEY_SOCKET)
			tell_socket(&event, step->object);
	}
	ipttrace_regs(&regs, ipttrace_step_functions[0].site, sp,
		      ipttrace_entry_bp(sp), args);
	local_irq_save(flags);
	rcu_read_lock();
	ipttrace_selection_run(&selection, IPTTRACE_SLOT_STEP,
			       told ? &event : NULL, &regs);
	rcu_read_unlock();
	local_irq_restore(flags);
}

/**
 * ipttrace_journeys_publish - put program sets in force
 * @sets: the sets, ours from now on; NULL if there are none
 *
 * Return: the sets that were in force before, or NULL. A grace period later no packet is handled by
 * them any more, and the caller frees them.
 */
struct ipttrace_sets *ipttrace_journeys_publish(struct ipttrace_sets *sets)
{
	return rcu_replace_pointer(published, sets,
				   lockdep_is_held(&ipttrace_lock));
}
