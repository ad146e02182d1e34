// SPDX-License-Identifier: GPL-2.0
/*
 * Events: a ring on each CPU, filled where packets are handled, emptied by work that multicasts
 * whole batches. Nothing is lost without being counted.
 */
#include <linux/cpu.h>
#include <linux/ktime.h>
#include <linux/mutex.h>
#include <linux/seqlock.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>
#include <net/genetlink.h>

#include "events.h"
#include "message.h"

#define RING_MASK (IPTTRACE_RING_EVENTS - 1)
/* A batch is sent after this delay, or as soon as half the ring is full. */
#define FLUSH_DELAY msecs_to_jiffies(10)
/*
 * After a batch that nobody took, nobody is assumed to listen for this long: at first, and at most.
 * Full sockets look the same, unless they ask to be told apart (NETLINK_BROADCAST_ERROR).
 */
#define BACK_OFF_FIRST FLUSH_DELAY
#define BACK_OFF_MOST HZ

/* head and tail wrap around together with the ring */
static_assert((IPTTRACE_RING_EVENTS & RING_MASK) == 0);

struct ring_entry {
	u64 sequence;
	u32 payload;
	struct ipttrace_event event;
};

/* The payload of the event in the same place; ring_entry's payload is its size. */
struct ring_payload {
	u8 data[IPTTRACE_MAX_PAYLOAD];
};

/**
 * struct ring - events of one CPU on their way out
 * @entries: the ring; made when the CPU first comes online, then kept; NULL if memory was short
 * @payloads: room for payloads; made for online CPUs when the first link needs it, for others when
 *	they come online; then kept; NULL otherwise, or if memory was short
 * @consistent: guards @sequence and @lost, except LOSS_MEMORY, for readers on other CPUs
 * @sequence: number of the next event; written by its CPU with interrupts off
 * @head: events put in so far; written by the CPU with interrupts off
 * @tail: events taken out so far; written by @flush
 * @lost: by cause; LOSS_MEMORY is written by @flush, the others by the CPU
 * @flush: sends the waiting events; runs on any CPU, never twice at once
 * @cpu: number of the CPU
 */
struct ring {
	struct ring_entry *entries;
	struct ring_payload *payloads;
	seqcount_t consistent;
	u64 sequence;
	unsigned int head;
	unsigned int tail;
	u64 lost[IPTTRACE_LOSS_NESTED + 1];
	struct delayed_work flush;
	int cpu;
};

static DEFINE_PER_CPU(struct ring, rings);
static struct workqueue_struct *flush_queue;
static int hotplug_state;
/* Serialises making room for payloads on CPUs that are on line. */
static DEFINE_MUTEX(room_lock);
/* Whether any link adds payloads, or has added any; written with CPU hotplug excluded. */
static bool room_wanted;
/* End and length of the back-off, in jiffies. Both are hints, hence without a lock. */
static unsigned long silent_until;
static unsigned long back_off;

/**
 * ipttrace_events_wanted - check whether anybody listens
 *
 * The kernel's count of listeners includes sockets of other namespaces, which never get an event.
 * The back-off of ipttrace_events_emit() keeps these cheap.
 */
bool ipttrace_events_wanted(void)
{
	return ipttrace_events_listeners();
}

/**
 * ipttrace_events_resume - end the back-off: somebody may have begun to listen
 */
void ipttrace_events_resume(void)
{
	WRITE_ONCE(silent_until, jiffies);
	WRITE_ONCE(back_off, 0);
}

/*
 * Adapts the back-off to the result of sending a batch. -ENOBUFS means that an observer's socket is
 * full. It may have room again in a millisecond, and the sequence numbers tell the observer what it
 * misses.
 */
static void listen_for(int err)
{
	unsigned long wait = READ_ONCE(back_off);

	if (err != -ESRCH) {
		if (wait)
			WRITE_ONCE(back_off, 0);
		return;
	}
	wait = clamp_t(unsigned long, 2 * wait, BACK_OFF_FIRST, BACK_OFF_MOST);
	WRITE_ONCE(back_off, wait);
	WRITE_ONCE(silent_until, jiffies + wait);
}

/**
 * ipttrace_events_count_nested - count a program run that was left out
 *
 * Context: preemption off.
 */
void ipttrace_events_count_nested(void)
{
	this_cpu_inc(rings.lost[IPTTRACE_LOSS_NESTED]);
}

/*
 * Puts an event and its payload into the ring. A CPU without room for payloads drops the payload.
 */
static void ring_put(struct ring *ring, const struct ipttrace_event *event,
		     const void *payload, u32 size)
{
	unsigned int place = ring->head & RING_MASK;
	struct ring_entry *entry = &ring->entries[place];

	entry->sequence = ring->sequence;
	entry->event = *event;
	entry->payload = 0;
	if (payload && ring->payloads) {
		entry->payload = size;
		entry->event.flags |= IPTTRACE_EVENT_FLAG_PAYLOAD;
		memcpy(ring->payloads[place].data, payload, size);
	}
	/* the flush sees the entry before it sees the new head */
	smp_store_release(&ring->head, ring->head + 1);
}

/**
 * ipttrace_events_emit - queue an event for the observers
 * @event: copied
 * @payload: the program's payload, copied, or NULL
 * @size: size of @payload in bytes, IPTTRACE_MAX_PAYLOAD at most
 *
 * After a batch that found no receiver, events only take their numbers for a while, longer each
 * time, up to a second. Either nobody listens, or the sockets of all observers were full. The
 * numbers tell these observers what they lost.
 *
 * Context: process or softirq.
 * Return: false if the ring was full, which is counted.
 */
bool ipttrace_events_emit(const struct ipttrace_event *event,
			  const void *payload, u32 size)
{
	bool room = true;
	unsigned int used;
	unsigned long flags;
	struct ring *ring;

	local_irq_save(flags);
	ring = this_cpu_ptr(&rings);
	write_seqcount_begin(&ring->consistent);
	/* entries that the flush read before it moved the tail may be overwritten */
	used = ring->head - smp_load_acquire(&ring->tail);
	if (time_before(jiffies, READ_ONCE(silent_until))) {
		/* take the sequence number only */
	} else if (unlikely(!ring->entries || used >= IPTTRACE_RING_EVENTS)) {
		ring->lost[IPTTRACE_LOSS_RING]++;
		room = false;
	} else {
		ring_put(ring, event, payload, size);
		/* the flush reads the head once it is not pending any more */
		smp_mb();
		if (used == IPTTRACE_RING_EVENTS / 2)
			mod_delayed_work(flush_queue, &ring->flush, 0);
		else if (!delayed_work_pending(&ring->flush))
			queue_delayed_work(flush_queue, &ring->flush,
					   FLUSH_DELAY);
	}
	ring->sequence++;
	write_seqcount_end(&ring->consistent);
	local_irq_restore(flags);
	return room;
}

/* An event as an attribute, which needs no padding. */
struct event_attribute {
	struct nlattr header;
	struct ipttrace_event event;
} __packed;

static_assert(IS_ALIGNED(sizeof(struct event_attribute), NLA_ALIGNTO));

/* Adds an event to a message that has room for it: nla_put() costs more than twice as much. */
static void put_event(struct sk_buff *msg, const struct ipttrace_event *event)
{
	struct event_attribute *to = skb_put(msg, sizeof(*to));

	to->header.nla_type = IPTTRACE_A_EVENT;
	to->header.nla_len = sizeof(*to);
	to->event = *event;
}

static int put_payload(struct sk_buff *msg, unsigned int event,
		       const struct ring_payload *payload, u32 size)
{
	struct nlattr *nest = nla_nest_start(msg, IPTTRACE_A_PAYLOAD);

	if (!nest || nla_put_u32(msg, IPTTRACE_A_PAYLOAD_EVENT, event) ||
	    nla_put(msg, IPTTRACE_A_PAYLOAD_DATA, size, payload->data))
		return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}

/* Space that an event takes in a message, payload included. */
static int entry_space(const struct ring_entry *entry)
{
	int space = nla_total_size(sizeof(entry->event));

	if (entry->payload)
		space += nla_total_size(0) + nla_total_size(sizeof(u32)) +
			 nla_total_size(entry->payload);
	return space;
}

/*
 * Puts up to a batch of consecutive events into a message, and their payloads after them. Returns
 * the number of events, or 0. With payloads fewer events fit, since the message does not grow.
 */
static unsigned int batch_fill(struct sk_buff *msg, const struct ring *ring,
			       unsigned int head)
{
	const struct ring_entry *first = &ring->entries[ring->tail & RING_MASK];
	struct ipttrace_batch *batch;
	unsigned int count, cause, i;
	struct nlattr *attr;
	void *header;
	int room;

	header = ipttrace_events_header(msg);
	if (!header)
		return 0;
	attr = nla_reserve(msg, IPTTRACE_A_BATCH, sizeof(*batch));
	if (!attr)
		return 0;
	batch = nla_data(attr);
	room = skb_tailroom(msg);
	for (count = 0;
	     count < IPTTRACE_BATCH_EVENTS && ring->tail + count != head;
	     count++) {
		const struct ring_entry *entry =
			&ring->entries[(ring->tail + count) & RING_MASK];

		room -= entry_space(entry);
		if (entry->sequence != first->sequence + count || room < 0)
			break;
		put_event(msg, &entry->event);
	}
	for (i = 0; i < count; i++) {
		unsigned int place = (ring->tail + i) & RING_MASK;
		u32 size = ring->entries[place].payload;

		/* there is room for it */
		if (size && WARN_ON_ONCE(put_payload(
				    msg, i, &ring->payloads[place], size)))
			return 0;
	}
	batch->sequence = first->sequence;
	for (cause = 0; cause < ARRAY_SIZE(batch->lost); cause++)
		batch->lost[cause] = READ_ONCE(ring->lost[cause]);
	batch->clock_offset = ktime_to_ns(ktime_mono_to_real(0));
	batch->cpu = ring->cpu;
	batch->count = count;
	batch->event_size = sizeof(struct ipttrace_event);
	batch->reserved = 0;
	genlmsg_end(msg, header);
	return count;
}

static void ring_flush(struct work_struct *work)
{
	struct ring *ring =
		container_of(to_delayed_work(work), struct ring, flush);
	struct sk_buff *msg;
	unsigned int head, count;

	/* the entries before the head are complete */
	while (ring->tail != (head = smp_load_acquire(&ring->head))) {
		msg = ipttrace_events_message();
		count = msg ? batch_fill(msg, ring, head) : 0;
		if (unlikely(!count)) {
			nlmsg_free(msg);
			count = min_t(unsigned int, head - ring->tail,
				      IPTTRACE_BATCH_EVENTS);
			WRITE_ONCE(ring->lost[IPTTRACE_LOSS_MEMORY],
				   ring->lost[IPTTRACE_LOSS_MEMORY] + count);
		} else {
			listen_for(ipttrace_events_multicast(msg));
		}
		/* the entries may be overwritten */
		smp_store_release(&ring->tail, ring->tail + count);
		cond_resched();
	}
}

/**
 * ipttrace_events_stats - counters of the event stream of a CPU
 * @cpu: a possible CPU
 */
struct ipttrace_cpu_stats ipttrace_events_stats(int cpu)
{
	const struct ring *ring = per_cpu_ptr(&rings, cpu);
	struct ipttrace_cpu_stats stats;
	unsigned int start;

	do {
		start = read_seqcount_begin(&ring->consistent);
		stats.sequence = ring->sequence;
		memcpy(stats.lost, ring->lost, sizeof(stats.lost));
	} while (read_seqcount_retry(&ring->consistent, start));
	return stats;
}

static void *ring_array(int cpu, size_t size)
{
	return vmalloc_node(array_size(IPTTRACE_RING_EVENTS, size),
			    cpu_to_node(cpu));
}

/*
 * Prepares a CPU that comes online. Without memory it gets no ring, and its events count as lost.
 */
static int ring_prepare(unsigned int cpu)
{
	struct ring *ring = per_cpu_ptr(&rings, cpu);

	if (!ring->entries)
		ring->entries = ring_array(cpu, sizeof(*ring->entries));
	if (room_wanted && !ring->payloads)
		ring->payloads = ring_array(cpu, sizeof(*ring->payloads));
	return 0;
}

/**
 * ipttrace_events_make_room - make room for payloads, which stays until the module is unloaded
 *
 * Context: process, may sleep.
 * Return: 0 or -ENOMEM.
 */
int ipttrace_events_make_room(void)
{
	int err = 0;
	int cpu;

	mutex_lock(&room_lock);
	cpus_read_lock();
	room_wanted = true;
	for_each_online_cpu(cpu) {
		struct ring *ring = per_cpu_ptr(&rings, cpu);

		if (ring->payloads)
			continue;
		/* packets read it once a set with a payload is published */
		ring->payloads = ring_array(cpu, sizeof(*ring->payloads));
		if (!ring->payloads) {
			err = -ENOMEM;
			break;
		}
	}
	cpus_read_unlock();
	mutex_unlock(&room_lock);
	return err;
}

/**
 * ipttrace_events_init - make the rings of the online CPUs
 *
 * Return: 0 or an errno.
 */
int ipttrace_events_init(void)
{
	int cpu, err;

	for_each_possible_cpu(cpu) {
		struct ring *ring = per_cpu_ptr(&rings, cpu);

		ring->cpu = cpu;
		seqcount_init(&ring->consistent);
		INIT_DELAYED_WORK(&ring->flush, ring_flush);
	}
	ipttrace_events_resume();
	flush_queue = alloc_workqueue("ipttrace", WQ_UNBOUND | WQ_HIGHPRI, 0);
	if (!flush_queue)
		return -ENOMEM;
	err = cpuhp_setup_state(CPUHP_BP_PREPARE_DYN, "ipttrace:prepare",
				ring_prepare, NULL);
	if (err < 0) {
		ipttrace_events_exit();
		return err;
	}
	hotplug_state = err;
	return 0;
}

/**
 * ipttrace_events_flush - send the waiting events, and return when they are sent
 */
void ipttrace_events_flush(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		flush_delayed_work(&per_cpu_ptr(&rings, cpu)->flush);
}

/**
 * ipttrace_events_exit - free the rings; no event may be emitted any more
 */
void ipttrace_events_exit(void)
{
	int cpu;

	if (hotplug_state)
		cpuhp_remove_state_nocalls(hotplug_state);
	destroy_workqueue(flush_queue);
	for_each_possible_cpu(cpu) {
		vfree(per_cpu_ptr(&rings, cpu)->entries);
		vfree(per_cpu_ptr(&rings, cpu)->payloads);
	}
}
