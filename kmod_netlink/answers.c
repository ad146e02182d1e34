// SPDX-License-Identifier: GPL-2.0
/*
 * Answers: packets of the other direction of connections whose packets are followed. They are known
 * by the addresses, ports and protocol that they come with. A followed packet shows these: its
 * connection has them, whatever NAT does with both; without a connection they are its own, the
 * other way round.
 *
 * An answer is looked up where it comes to a hook, before anybody has changed it there. A packet
 * that happens to have the same addresses, ports and protocol in the same namespace is of the same
 * connection, or of the next one between the same ends.
 */
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/jhash.h>
#include <linux/jiffies.h>
#include <linux/netfilter.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <net/ip.h>
#if IS_ENABLED(CONFIG_NF_CONNTRACK)
#include <net/netfilter/nf_conntrack.h>
#endif

#include "answers.h"
#include "ipttrace_netlink.h"
#include "link.h"
#include "packet.h"

/* A connection of which nothing was seen for this time is forgotten, in jiffies. */
#define PATIENCE (10 * 60 * HZ)
#define GROUP_BITS 11
#define GROUP_SIZE 8

static_assert(GROUP_SIZE << GROUP_BITS == IPTTRACE_MAX_ANSWERS);

/**
 * struct way - one direction of a connection, as packets of it come to a namespace
 * @netns_cookie: the namespace
 * @source: source address, zeros after IPv4
 * @destination: destination address
 * @source_port: source port, or identifier of an ICMP echo
 * @destination_port: destination port, or type of an ICMP echo
 * @family: NFPROTO_IPV4 or NFPROTO_IPV6
 * @protocol: IPPROTO_*
 *
 * Without holes: compared and hashed as it lies there.
 */
struct way {
	u64 netns_cookie;
	u8 source[16];
	u8 destination[16];
	u16 source_port;
	u16 destination_port;
	u16 family;
	u16 protocol;
};

static_assert(sizeof(struct way) == 48);

/**
 * struct expected - answers that are expected, or a free place
 * @way: how they come
 * @seen: when a packet of the connection was seen last, jiffies
 * @journeys: journeys that follow them, a bit each; 0 in a free place
 */
struct expected {
	struct way way;
	unsigned long seen;
	u32 journeys;
};

/* Answers whose ways hash to one number. @lock: the places. */
struct group {
	raw_spinlock_t lock;
	struct expected places[GROUP_SIZE];
};

/**
 * struct answers - the answers that are expected
 * @rcu: for its end
 * @seed: of the hash, so that nobody outside can aim at one group
 * @groups: answers by their ways
 */
struct answers {
	struct rcu_head rcu;
	u32 seed;
	struct group groups[1 << GROUP_BITS];
};

u32 ipttrace_answers_wanted __read_mostly;
/* There while a journey follows answers; written under ipttrace_lock. */
static struct answers __rcu *answers;
static atomic64_t displaced;

/**
 * ipttrace_answers_begin - follow answers on a journey
 * @journey: its bit
 *
 * Return: 0 or -ENOMEM.
 */
int ipttrace_answers_begin(u32 journey)
{
	struct answers *made;
	unsigned int i;

	lockdep_assert_held(&ipttrace_lock);
	if (!rcu_access_pointer(answers)) {
		made = kvzalloc(sizeof(*made), GFP_KERNEL_ACCOUNT);
		if (!made)
			return -ENOMEM;
		made->seed = get_random_u32();
		for (i = 0; i < ARRAY_SIZE(made->groups); i++)
			raw_spin_lock_init(&made->groups[i].lock);
		rcu_assign_pointer(answers, made);
	}
	WRITE_ONCE(ipttrace_answers_wanted, ipttrace_answers_wanted | journey);
	return 0;
}

static void group_forget(struct group *group, u32 journeys)
{
	unsigned long flags;
	unsigned int i;

	raw_spin_lock_irqsave(&group->lock, flags);
	for (i = 0; i < GROUP_SIZE; i++)
		group->places[i].journeys &= ~journeys;
	raw_spin_unlock_irqrestore(&group->lock, flags);
}

/**
 * ipttrace_answers_leave - do not follow answers on journeys that are leaving
 * @journeys: their bits; a grace period later ipttrace_answers_forget() must follow
 */
void ipttrace_answers_leave(u32 journeys)
{
	lockdep_assert_held(&ipttrace_lock);
	WRITE_ONCE(ipttrace_answers_wanted,
		   ipttrace_answers_wanted & ~journeys);
}

/**
 * ipttrace_answers_forget - forget the answers of journeys that have left
 * @journeys: the journeys, a bit each; no packet can meet them any more
 */
void ipttrace_answers_forget(u32 journeys)
{
	struct answers *all = rcu_dereference_protected(
		answers, lockdep_is_held(&ipttrace_lock));
	unsigned int i;

	if (!all)
		return;
	if (ipttrace_answers_wanted) {
		for (i = 0; i < ARRAY_SIZE(all->groups); i++)
			group_forget(&all->groups[i], journeys);
		return;
	}
	RCU_INIT_POINTER(answers, NULL);
	kvfree_rcu(all, rcu);
}

/**
 * ipttrace_answers_displaced - connections so far whose answers are not followed, for lack of room
 */
u64 ipttrace_answers_displaced(void)
{
	return atomic64_read(&displaced);
}

/* --- ways ---------------------------------------------------------------------------------- */

static bool has_ports(u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
		return true;
	default:
		return false;
	}
}

/* The type of the answer to a type of ICMP or ICMPv6; -1 for those that are no echo. */
static int echo_turned(u8 protocol, u8 type)
{
	static const u8 types[2][2] = {
		{ ICMP_ECHO, ICMP_ECHOREPLY },
		{ ICMPV6_ECHO_REQUEST, ICMPV6_ECHO_REPLY },
	};
	const u8 *echo = types[protocol == IPPROTO_ICMPV6];

	if (type == echo[0])
		return echo[1];
	return type == echo[1] ? echo[0] : -1;
}

static bool is_icmp(u8 protocol)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

/*
 * Tells how a packet has come. False if that cannot be told: a later fragment, an ICMP error.
 * noinline: the description is not on the stack of what comes after.
 */
static noinline bool way_of_packet(struct way *way, const struct sk_buff *skb,
				   const struct nf_hook_state *state)
{
	struct ipttrace_event event = {};

	ipttrace_packet_describe(&event, skb, state, false);
	if (event.flags &
	    (IPTTRACE_EVENT_FLAG_FRAGMENT | IPTTRACE_EVENT_FLAG_TRUNCATED))
		return false;
	switch (event.ethertype) {
	case ETH_P_IP:
		way->family = NFPROTO_IPV4;
		break;
	case ETH_P_IPV6:
		way->family = NFPROTO_IPV6;
		break;
	default:
		return false;
	}
	way->netns_cookie = event.netns_cookie;
	memcpy(way->source, event.saddr, sizeof(way->source));
	memcpy(way->destination, event.daddr, sizeof(way->destination));
	way->protocol = event.protocol;
	way->source_port = event.sport;
	way->destination_port = event.dport;
	if (!is_icmp(event.protocol))
		return true;
	way->source_port = event.icmp_id;
	way->destination_port = event.icmp_type;
	return echo_turned(event.protocol, event.icmp_type) >= 0;
}

static void way_turn(struct way *way)
{
	struct way turned = *way;

	memcpy(turned.source, way->destination, sizeof(turned.source));
	memcpy(turned.destination, way->source, sizeof(turned.destination));
	if (has_ports(way->protocol)) {
		turned.source_port = way->destination_port;
		turned.destination_port = way->source_port;
	} else if (is_icmp(way->protocol)) {
		turned.destination_port =
			echo_turned(way->protocol, way->destination_port);
	}
	*way = turned;
}

#if IS_ENABLED(CONFIG_NF_CONNTRACK)
/*
 * Corrects how answers to a packet come, @way, by its connection if it has one. Without a tracker
 * of its protocol that has no ports.
 */
static void way_correct(struct way *way, const struct sk_buff *skb)
{
	const struct nf_conntrack_tuple *tuple;
	enum ip_conntrack_info info;
	const struct nf_conn *ct = nf_ct_get(skb, &info);

	if (!ct || nf_ct_is_template(ct))
		return;
	tuple = &ct->tuplehash[!CTINFO2DIR(info)].tuple;
	if (tuple->src.l3num != way->family ||
	    tuple->dst.protonum != way->protocol)
		return;
	memcpy(way->source, &tuple->src.u3, sizeof(way->source));
	memcpy(way->destination, &tuple->dst.u3, sizeof(way->destination));
	if (has_ports(way->protocol) &&
	    (tuple->src.u.all || tuple->dst.u.all)) {
		way->source_port = ntohs(tuple->src.u.all);
		way->destination_port = ntohs(tuple->dst.u.all);
	} else if (is_icmp(way->protocol)) {
		way->source_port = ntohs(tuple->src.u.icmp.id);
	}
}
#else
static void way_correct(struct way *way, const struct sk_buff *skb)
{
}
#endif

/* --- packets ------------------------------------------------------------------------------- */

/* The answers, for a caller in an RCU read section or with preemption off; or NULL. */
static struct answers *answers_expected(void)
{
	return rcu_dereference_check(answers, rcu_read_lock_sched_held());
}

static struct group *group_of(struct answers *all, const struct way *way)
{
	u32 hash =
		jhash2((const u32 *)way, sizeof(*way) / sizeof(u32), all->seed);

	return &all->groups[hash & (ARRAY_SIZE(all->groups) - 1)];
}

/* Whether nothing was seen of the connection for a long time. */
static bool is_old(const struct expected *place)
{
	return time_after(jiffies, place->seen + PATIENCE);
}

/* The place of a way in its group, under its lock; NULL if it has none. */
static struct expected *place_find(struct group *group, const struct way *way)
{
	unsigned int i;

	for (i = 0; i < GROUP_SIZE; i++) {
		struct expected *place = &group->places[i];

		if (place->journeys && !memcmp(&place->way, way, sizeof(*way)))
			return place;
	}
	return NULL;
}

/* Makes room in a group, under its lock: in a free place, or in that of what is oldest. */
static struct expected *place_take(struct group *group, const struct way *way)
{
	struct expected *taken = &group->places[0];
	unsigned int i;

	for (i = 0; i < GROUP_SIZE && taken->journeys; i++) {
		struct expected *place = &group->places[i];

		if (!place->journeys || time_before(place->seen, taken->seen))
			taken = place;
	}
	if (taken->journeys && !is_old(taken))
		atomic64_inc(&displaced);
	taken->way = *way;
	taken->journeys = 0;
	return taken;
}

/**
 * ipttrace_answers_find - find out which journeys follow a packet as an answer
 * @skb: the packet, as it has come to a hook
 * @state: state of the hook
 * @journeys: journeys that do not know the packet, a bit each
 *
 * Context: in the RCU read section of the hook.
 * Return: those of the journeys that follow it.
 */
u32 ipttrace_answers_find(const struct sk_buff *skb,
			  const struct nf_hook_state *state, u32 journeys)
{
	struct answers *all = answers_expected();
	struct expected *place;
	struct group *group;
	unsigned long flags;
	struct way way = {};
	u32 found = 0;

	journeys &= READ_ONCE(ipttrace_answers_wanted);
	if (!all || !journeys || !way_of_packet(&way, skb, state))
		return 0;
	group = group_of(all, &way);
	raw_spin_lock_irqsave(&group->lock, flags);
	place = place_find(group, &way);
	if (place && !is_old(place)) {
		place->seen = jiffies;
		found = place->journeys & journeys;
	}
	raw_spin_unlock_irqrestore(&group->lock, flags);
	return found;
}

/* Whether a packet was put together of fragments, as conntrack does it. */
static bool is_joined(const struct sk_buff *skb,
		      const struct nf_hook_state *state)
{
	if (state->pf == NFPROTO_IPV4)
		return IPCB(skb)->frag_max_size;
	return state->pf == NFPROTO_IPV6 && IP6CB(skb)->frag_max_size;
}

/*
 * Whether there is another packet around one that had a length: a tunnel's, whose answers would be
 * all that is in it. NAT's helpers make a packet longer by less than a header.
 */
static bool is_wrapped(const struct sk_buff *skb,
		       const struct nf_hook_state *state, u32 length)
{
	return skb->len - skb_network_offset(skb) >=
		       length + sizeof(struct iphdr) &&
	       !is_joined(skb, state);
}

/**
 * ipttrace_answers_expect - expect answers to a followed packet
 * @skb: the packet
 * @state: state of the hook that it is at
 * @length: its length when it was followed first, see struct ipttrace_followed
 * @journeys: journeys that follow the packet, a bit each
 *
 * Context: in the RCU read section of the hook.
 */
void ipttrace_answers_expect(const struct sk_buff *skb,
			     const struct nf_hook_state *state, u32 length,
			     u32 journeys)
{
	struct answers *all = answers_expected();
	struct expected *place;
	struct group *group;
	unsigned long flags;
	struct way way = {};

	journeys &= READ_ONCE(ipttrace_answers_wanted);
	if (!all || !journeys || is_wrapped(skb, state, length) ||
	    !way_of_packet(&way, skb, state))
		return;
	way_turn(&way);
	way_correct(&way, skb);
	group = group_of(all, &way);
	raw_spin_lock_irqsave(&group->lock, flags);
	place = place_find(group, &way) ?: place_take(group, &way);
	if (is_old(place))
		place->journeys = 0;
	place->seen = jiffies;
	place->journeys |= journeys;
	raw_spin_unlock_irqrestore(&group->lock, flags);
}
