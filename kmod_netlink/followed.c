// SPDX-License-Identifier: GPL-2.0
/*
 * Packets that journeys follow: which of them an sk_buff is. The kernel uses the address of an
 * sk_buff again, so a packet is known by it only until it is freed, which journey_steps.c watches:
 * what is freed is forgotten at once, before anybody else can get the address.
 *
 * Packets are looked up wherever packets are, in handlers of ftrace too. Nothing here sleeps or
 * allocates, but for ipttrace_followed_begin().
 */
#include <linux/atomic.h>
#include <linux/hash.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <net/net_namespace.h>

#include "followed.h"
#include "ipttrace_netlink.h"
#include "link.h"

#define BUCKET_BITS 15

/**
 * struct entry - a packet that is followed, or a free place
 * @next: in its bucket, or among the free ones
 * @skb: its address; NULL in a free place
 * @seen: when it was seen last, jiffies
 * @known: the rest
 */
struct entry {
	struct entry *next;
	const struct sk_buff *skb;
	unsigned long seen;
	struct ipttrace_followed known;
};

/* Packets whose addresses hash to one number. @lock: @first, and the entries behind it. */
struct bucket {
	raw_spinlock_t lock;
	struct entry *first;
};

/**
 * struct table - the packets that are followed
 * @rcu: for its end
 * @free_lock: protects @free; inside the lock of a bucket
 * @free: places that are free
 * @buckets: packets by their addresses
 * @entries: all places
 */
struct table {
	struct rcu_head rcu;
	raw_spinlock_t free_lock;
	struct entry *free;
	struct bucket buckets[1 << BUCKET_BITS];
	struct entry entries[IPTTRACE_MAX_FOLLOWED];
};

/*
 * Journeys that do not leave, a bit each. Written under ipttrace_lock; read with preemption off, so
 * that who has read a journey that leaves is done before it is forgotten.
 */
static u32 live;

/* There while there are journeys; written under ipttrace_lock. */
static struct table __rcu *followed;
/* The last number that a packet got: later than any of before the module was loaded. */
static atomic64_t last_packet;
static atomic64_t count;
static atomic64_t unfollowed;

/**
 * ipttrace_followed_begin - make room for packets, unless there is some
 *
 * Return: 0 or -ENOMEM.
 */
int ipttrace_followed_begin(void)
{
	struct table *table;
	unsigned int i;

	lockdep_assert_held(&ipttrace_lock);
	if (rcu_access_pointer(followed))
		return 0;
	table = kvzalloc(sizeof(*table), GFP_KERNEL_ACCOUNT);
	if (!table)
		return -ENOMEM;
	raw_spin_lock_init(&table->free_lock);
	for (i = 0; i < ARRAY_SIZE(table->buckets); i++)
		raw_spin_lock_init(&table->buckets[i].lock);
	for (i = 0; i < ARRAY_SIZE(table->entries); i++) {
		table->entries[i].next = table->free;
		table->free = &table->entries[i];
	}
	/* no packet of before has such a number: numbers grow by less than one in a nanosecond */
	atomic64_set(&last_packet,
		     max_t(s64, atomic64_read(&last_packet), ktime_get_ns()));
	rcu_assign_pointer(followed, table);
	return 0;
}

/**
 * ipttrace_followed_end - forget all packets; none is followed any more
 */
void ipttrace_followed_end(void)
{
	struct table *table = rcu_replace_pointer(
		followed, NULL, lockdep_is_held(&ipttrace_lock));

	if (table)
		kvfree_rcu(table, rcu);
}

/* The table, for a caller in an RCU read section or with preemption off; or NULL. */
static __always_inline struct table *table_of_packets(void)
{
	return rcu_dereference_check(followed, rcu_read_lock_sched_held());
}

static __always_inline struct bucket *bucket_of(struct table *table,
						const struct sk_buff *skb)
{
	return &table->buckets[hash_ptr(skb, BUCKET_BITS)];
}

/* The place that points to the packet's entry, or to NULL. Under the bucket's lock. */
static struct entry **entry_find(struct bucket *bucket,
				 const struct sk_buff *skb)
{
	struct entry **place = &bucket->first;

	while (*place && (*place)->skb != skb)
		place = &(*place)->next;
	return place;
}

/* Takes the entry that a place in a bucket points to out of it, under the bucket's lock. */
static void entry_free(struct table *table, struct entry **place)
{
	struct entry *entry = *place;

	WRITE_ONCE(*place, entry->next);
	entry->skb = NULL;
	raw_spin_lock(&table->free_lock);
	entry->next = table->free;
	table->free = entry;
	raw_spin_unlock(&table->free_lock);
}

/* Puts a packet into its bucket, under its lock. NULL if there is no place. */
static struct entry *entry_add(struct table *table, struct bucket *bucket,
			       const struct sk_buff *skb)
{
	struct entry *entry;

	raw_spin_lock(&table->free_lock);
	entry = table->free;
	if (entry)
		table->free = entry->next;
	raw_spin_unlock(&table->free_lock);
	if (!entry) {
		atomic64_inc(&unfollowed);
		return NULL;
	}
	entry->skb = skb;
	entry->seen = jiffies;
	memset(&entry->known, 0, sizeof(entry->known));
	entry->next = bucket->first;
	WRITE_ONCE(bucket->first, entry);
	return entry;
}

static void entry_place(struct entry *entry, const struct net *net)
{
	entry->known.netns_cookie = net->net_cookie;
	entry->known.netns = net->ns.inum;
}

/**
 * ipttrace_followed_any - check whether a packet may be followed
 * @skb: the packet
 *
 * False is certain. For the handlers of hooks, before they look closer.
 */
bool notrace ipttrace_followed_any(const struct sk_buff *skb)
{
	struct table *table = table_of_packets();

	return table && READ_ONCE(bucket_of(table, skb)->first);
}

/* What is done with a packet that was found. */
enum sighting { SEEN, SENT, RECEIVED, DROPPED, ARRIVED, REMOVED };

static bool see(const struct sk_buff *skb, const struct net_device *dev,
		enum sighting what, struct ipttrace_followed *found)
{
	struct table *table = table_of_packets();
	struct bucket *bucket;
	struct entry **place;
	unsigned long flags;
	bool known;

	if (!table)
		return false;
	bucket = bucket_of(table, skb);
	/* the packet is the caller's: nobody adds or removes it meanwhile but for its age */
	if (!READ_ONCE(bucket->first))
		return false;
	raw_spin_lock_irqsave(&bucket->lock, flags);
	place = entry_find(bucket, skb);
	known = *place;
	if (known) {
		(*place)->seen = jiffies;
		if (what == SENT || what == RECEIVED) {
			entry_place(*place, dev_net(dev));
			(*place)->known.ifindex =
				what == RECEIVED ? dev->ifindex : 0;
		}
		*found = (*place)->known;
		(*place)->known.dropped |= what == DROPPED;
		(*place)->known.arrived |= what == ARRIVED;
		if (what == REMOVED)
			entry_free(table, place);
	}
	raw_spin_unlock_irqrestore(&bucket->lock, flags);
	return known;
}

/**
 * ipttrace_followed_find - find out what is known of a packet
 * @skb: the packet, which is the caller's
 * @found: filled in if it is followed, or left out
 */
bool ipttrace_followed_find(const struct sk_buff *skb,
			    struct ipttrace_followed *found)
{
	return see(skb, NULL, SEEN, found);
}

/**
 * ipttrace_followed_move - the same for a packet that passes a device
 * @skb: the packet, which is the caller's
 * @dev: the device
 * @in: it comes in by the device, and is not sent
 * @found: filled in if it is followed, or left out
 */
bool ipttrace_followed_move(const struct sk_buff *skb,
			    const struct net_device *dev, bool in,
			    struct ipttrace_followed *found)
{
	return see(skb, dev, in ? RECEIVED : SENT, found);
}

/**
 * ipttrace_followed_drop - note that a packet is being dropped
 * @skb: the packet, which is the caller's
 * @found: filled in if it is followed, or left out, with what was known before
 */
bool ipttrace_followed_drop(const struct sk_buff *skb,
			    struct ipttrace_followed *found)
{
	return see(skb, NULL, DROPPED, found);
}

/**
 * ipttrace_followed_arrive - note that a packet has come to a socket
 * @skb: the packet, which is the caller's
 * @found: filled in if it is followed, or left out
 */
bool ipttrace_followed_arrive(const struct sk_buff *skb,
			      struct ipttrace_followed *found)
{
	return see(skb, NULL, ARRIVED, found);
}

/**
 * ipttrace_followed_remove - forget a packet that is being freed
 * @skb: the packet, which is the caller's
 * @found: filled in if it was followed, or left out
 */
bool ipttrace_followed_remove(const struct sk_buff *skb,
			      struct ipttrace_followed *found)
{
	return see(skb, NULL, REMOVED, found);
}

/**
 * ipttrace_followed_add - follow a packet
 * @skb: the packet, which is the caller's; it may be followed by other journeys already
 * @state: state of the hook that it is at
 * @on: journeys that follow it from now on
 * @off: journeys that leave it out from now on
 *
 * Return: the packet's number; 0 if there is no room, which is counted, or nobody follows it.
 */
u64 ipttrace_followed_add(const struct sk_buff *skb,
			  const struct nf_hook_state *state, u32 on, u32 off)
{
	struct table *table = table_of_packets();
	struct bucket *bucket;
	struct entry *entry;
	unsigned long flags;
	u64 packet = 0;

	if (!table)
		return 0;
	bucket = bucket_of(table, skb);
	raw_spin_lock_irqsave(&bucket->lock, flags);
	entry = *entry_find(bucket, skb);
	if (!entry)
		entry = entry_add(table, bucket, skb);
	if (entry) {
		if (!entry->known.packet) {
			entry->known.packet = atomic64_inc_return(&last_packet);
			entry->known.length =
				skb->len - skb_network_offset(skb);
			entry->known.ifindex = state->in ? state->in->ifindex :
							   0;
		}
		if (on && !entry->known.on)
			atomic64_inc(&count);
		entry_place(entry, state->net);
		entry->known.on |= on;
		entry->known.off |= off;
		packet = entry->known.on ? entry->known.packet : 0;
	}
	raw_spin_unlock_irqrestore(&bucket->lock, flags);
	return packet;
}

/* The length of the segments that a packet is to be cut into. */
static u32 segment_length(const struct sk_buff *skb)
{
	u32 length = skb_network_header_len(skb) + skb_shinfo(skb)->gso_size;
	const struct tcphdr *tcp;
	struct tcphdr buffer;

	if (!skb_is_gso_tcp(skb))
		return length + sizeof(struct udphdr);
	tcp = skb_header_pointer(skb, skb_transport_offset(skb), sizeof(buffer),
				 &buffer);
	return length + (tcp ? tcp->doff * 4 : 0);
}

/*
 * The length of a copy of a packet. The copy is being made, so that it does not show it: if the
 * packet is to be cut into segments, it may be one of these.
 */
static u32 copy_length(const struct ipttrace_followed *known,
		       const struct sk_buff *skb)
{
	if (!skb_is_gso(skb) || !skb_transport_header_was_set(skb) ||
	    skb->encapsulation)
		return known->length;
	return min(known->length, segment_length(skb));
}

/**
 * ipttrace_followed_live - say which journeys there are
 * @journeys: the journeys, a bit each, without those that are leaving
 *
 * Those that leave are to be taken off before the grace period behind which they are forgotten.
 */
void ipttrace_followed_live(u32 journeys)
{
	lockdep_assert_held(&ipttrace_lock);
	WRITE_ONCE(live, journeys);
}

/**
 * ipttrace_followed_copy - follow a copy of a packet
 * @copy: the copy, which is the caller's; stays what it is if it is followed already
 * @skb: the packet
 * @found: filled in with what is known of the copy, if it is new
 *
 * Return: true if the copy is followed from now on.
 */
bool ipttrace_followed_copy(const struct sk_buff *copy,
			    const struct sk_buff *skb,
			    struct ipttrace_followed *found)
{
	struct table *table = table_of_packets();
	struct ipttrace_followed known;
	struct entry *entry = NULL;
	struct bucket *bucket;
	unsigned long flags;
	u32 journeys;

	/*
	 * One of the two locks after the other: meanwhile a journey may be taken off the packets in
	 * the copy's bucket, and another have its bit. The callers keep preemption off.
	 */
	if (!table || !ipttrace_followed_find(skb, &known))
		return false;
	journeys = READ_ONCE(live);
	known.on &= journeys;
	known.off &= journeys;
	if (!(known.on | known.off))
		return false;
	bucket = bucket_of(table, copy);
	raw_spin_lock_irqsave(&bucket->lock, flags);
	if (!*entry_find(bucket, copy))
		entry = entry_add(table, bucket, copy);
	if (entry) {
		entry->known = known;
		entry->known.packet = atomic64_inc_return(&last_packet);
		entry->known.origin = known.packet;
		entry->known.length = copy_length(&known, skb);
		if (known.on)
			atomic64_inc(&count);
		entry->known.dropped = false;
		entry->known.arrived = false;
		*found = entry->known;
	}
	raw_spin_unlock_irqrestore(&bucket->lock, flags);
	return entry;
}

/**
 * ipttrace_followed_expire - forget the next packet that was not seen for a long time
 * @place: where to look on, 0 at first
 * @age: how long, jiffies
 * @found: filled in; its memory may be gone
 *
 * Return: false if there is none left.
 */
bool ipttrace_followed_expire(unsigned int *place, unsigned long age,
			      struct ipttrace_followed *found)
{
	struct table *table = table_of_packets();

	while (table && *place < ARRAY_SIZE(table->entries)) {
		struct entry *entry = &table->entries[(*place)++];
		const struct sk_buff *skb = READ_ONCE(entry->skb);
		struct entry **at;
		struct bucket *bucket;
		unsigned long flags;
		bool old;

		if (!skb)
			continue;
		bucket = bucket_of(table, skb);
		raw_spin_lock_irqsave(&bucket->lock, flags);
		/* it may be another packet's by now */
		at = entry_find(bucket, skb);
		old = *at == entry && time_after(jiffies, entry->seen + age);
		if (old) {
			*found = entry->known;
			entry_free(table, at);
		}
		raw_spin_unlock_irqrestore(&bucket->lock, flags);
		if (old)
			return true;
	}
	return false;
}

/**
 * ipttrace_followed_forget - take journeys that have ended off all packets
 * @journeys: the journeys, a bit each; no packet can meet them any more
 */
void ipttrace_followed_forget(u32 journeys)
{
	struct table *table = rcu_dereference_protected(
		followed, lockdep_is_held(&ipttrace_lock));
	unsigned int i;

	for (i = 0; table && i < ARRAY_SIZE(table->buckets); i++) {
		struct bucket *bucket = &table->buckets[i];
		struct entry **place = &bucket->first;
		unsigned long flags;

		if (!READ_ONCE(bucket->first))
			continue;
		raw_spin_lock_irqsave(&bucket->lock, flags);
		while (*place) {
			(*place)->known.on &= ~journeys;
			(*place)->known.off &= ~journeys;
			if ((*place)->known.on | (*place)->known.off)
				place = &(*place)->next;
			else
				entry_free(table, place);
		}
		raw_spin_unlock_irqrestore(&bucket->lock, flags);
	}
}

/**
 * ipttrace_followed_count - packets so far that were followed, copies included
 */
u64 ipttrace_followed_count(void)
{
	return atomic64_read(&count);
}

/**
 * ipttrace_followed_unfollowed - packets so far that could not be followed, for lack of room
 */
u64 ipttrace_followed_unfollowed(void)
{
	return atomic64_read(&unfollowed);
}
