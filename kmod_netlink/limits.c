// SPDX-License-Identifier: GPL-2.0
/*
 * Limits of a program set: packets of which it leaves out the events, all or none. A packet is
 * decided over where the set first selects it; the decision is kept for the other tables and chains
 * on its way. Observers are told how many packets a link has left out.
 */
#include <linux/bitfield.h>
#include <linux/hash.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/jhash.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/random.h>
#include <linux/sched/clock.h>
#include <linux/spinlock.h>
#include <linux/udp.h>
#include <linux/workqueue.h>
#include <net/ip.h>
#include <net/net_namespace.h>

#include "events.h"
#include "limits.h"
#include "link.h"
#include "netlink_gen.h"

/* A rate may be exceeded by what it lets through in this time, a budget likewise, ns. */
#define RATE_BURST (NSEC_PER_SEC / 10)
#define BUDGET_BURST NSEC_PER_SEC
/* Packets that are left out are told of within this time, in jiffies, and once in it at most. */
#define TELLING HZ
/* A program that took longer did not have its CPU: an interrupt had it, or another guest. ns. */
#define LONGEST_RUN (10 * NSEC_PER_MSEC)
/* One run of a program in so many is timed, and stands for all. */
#define TIMED 8
/* Charges of a CPU are put to the others' once they are as much of a budget's time, ns. */
#define PENDING NSEC_PER_MSEC

/* Packets that are known: buckets of one cache line. */
#define BUCKET_BITS 10
#define WAYS 7

/*
 * A known packet: its address and what it keeps on its way, the place where it began, the
 * namespace, hook and protocol where it was last, and whether it is left out.
 */
#define KNOWN_LEFT_OUT BIT_ULL(0)
#define KNOWN_PF GENMASK_ULL(4, 1)
#define KNOWN_HOOK GENMASK_ULL(7, 5)
#define KNOWN_NET GENMASK_ULL(16, 8)
#define KNOWN_FIRST GENMASK_ULL(28, 17)
#define KNOWN_CONTENT GENMASK_ULL(43, 29)
#define KNOWN_ADDRESS GENMASK_ULL(63, 44)

/* Where it was last. */
#define KNOWN_LAST (KNOWN_NET | KNOWN_HOOK | KNOWN_PF)

/*
 * A limit of so much a time, by virtual scheduling (GCRA, ITU-T I.371): the time up to which
 * everything is used that was charged so far, ns of ktime_get_coarse_ns(). Changed with cmpxchg.
 */
struct pace {
	atomic64_t until;
};

/*
 * Time of the budgets that a CPU has used and not yet charged, ns, and the number by which it
 * chooses runs to time. Changed with this_cpu_*().
 */
struct pending {
	u64 events;
	u64 cpu;
	u32 random;
};

/*
 * Known packets: those decided over last in front. Changed in order by who holds @lock; a packet on
 * its way updates its own without it, by cmpxchg. One that is moved is in two ways for a moment,
 * the later one first, and never in none: readers go from the first to the last.
 */
struct bucket {
	u64 known[WAYS];
	raw_spinlock_t lock;
} ____cacheline_aligned_in_smp;

/**
 * struct ipttrace_limits - limits of a program set
 * @sample: one packet of so many is reported; 0: all
 * @rate: packets reported in a second at most; 0: any number
 * @budget_events: events in a second; 0: any number
 * @budget_cpu: thousandths of a CPU; 0: any
 * @rate_pace: of @rate
 * @events_pace: of @budget_events
 * @cpu_pace: of @budget_cpu
 * @pending: charges to the budgets that a CPU holds back
 * @buckets: packets that are known; NULL for a link whose packets come to one place only
 *
 * Owned by the set. The numbers are constant; the rest is changed by packets on any CPU.
 */
struct ipttrace_limits {
	u32 sample;
	u32 rate;
	u32 budget_events;
	u32 budget_cpu;
	struct pending __percpu *pending;
	struct bucket *buckets;
	struct pace rate_pace ____cacheline_aligned_in_smp;
	struct pace events_pace;
	struct pace cpu_pace;
};

/* --- rates --------------------------------------------------------------------------------- */

static bool pace_exceeded(const struct pace *pace, u64 now, s64 burst)
{
	return atomic64_read(&pace->until) - (s64)now > burst;
}

/* Uses time of a pace, unless it is ahead by more than a burst already: false then. */
static bool pace_use(struct pace *pace, u64 now, u64 time, s64 burst)
{
	s64 until = atomic64_read(&pace->until);

	do {
		if (until - (s64)now > burst)
			return false;
	} while (!atomic64_try_cmpxchg(&pace->until, &until,
				       max(until, (s64)now) + (s64)time));
	return true;
}

static void pending_use(u64 __percpu *pending, struct pace *pace, u64 time)
{
	u64 used;

	if (this_cpu_add_return(*pending, time) < PENDING)
		return;
	used = this_cpu_xchg(*pending, 0);
	pace_use(pace, ktime_get_coarse_ns(), used, S64_MAX);
}

/* Chooses one run in TIMED, whatever order runs have (Numerical Recipes' generator). */
static bool run_is_timed(struct pending __percpu *pending)
{
	u32 random = this_cpu_read(pending->random) * 1664525 + 1013904223;

	this_cpu_write(pending->random, random);
	return !reciprocal_scale(random, TIMED);
}

u64 ipttrace_limits_clock(const struct ipttrace_limits *limits)
{
	return limits->budget_cpu && run_is_timed(limits->pending) ?
		       sched_clock() :
		       0;
}

void ipttrace_limits_use(struct ipttrace_limits *limits, u64 begin,
			 unsigned int events)
{
	u64 time;

	if (limits->budget_events && events)
		pending_use(&limits->pending->events, &limits->events_pace,
			    div_u64((u64)events * NSEC_PER_SEC,
				    limits->budget_events));
	if (!begin)
		return;
	time = min_t(u64, sched_clock() - begin, LONGEST_RUN);
	pending_use(&limits->pending->cpu, &limits->cpu_pace,
		    div_u64(time * TIMED * 1000, limits->budget_cpu));
}

/* --- packets ------------------------------------------------------------------------------- */

/* Numbers in a transport header that NAT keeps, and that tell a packet from the next like it. */
static u32 transport_content(const struct sk_buff *skb, int offset, u8 protocol)
{
	__be32 words[4] = {};

	/* a datagram may be shorter */
	if (skb_copy_bits(skb, offset, words, sizeof(words)) &&
	    skb_copy_bits(skb, offset, words, sizeof(struct udphdr)))
		return 0;
	switch (protocol) {
	case IPPROTO_TCP:
	case IPPROTO_ESP:
		/* sequence numbers; of ESP, its SPI too */
		return jhash2((u32 *)words + (protocol == IPPROTO_TCP), 2, 0);
	case IPPROTO_UDP:
		/* not the checksum; of DNS, RTP, QUIC, what their packets are told apart by */
		words[1] &= htonl(0xffff0000);
		return jhash2((u32 *)words + 1, 3, 0);
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		/* the sequence number of an echo, not its identifier */
		return ntohl(words[1]) & 0xffff;
	case IPPROTO_SCTP:
		return ntohl(words[1]);
	default:
		return 0;
	}
}

static u32 ipv4_content(const struct sk_buff *skb)
{
	int offset = skb_network_offset(skb);
	const struct iphdr *ip;
	struct iphdr header;
	u32 transport = 0;

	ip = skb_header_pointer(skb, offset, sizeof(header), &header);
	if (!ip)
		return 0;
	if (!(ip->frag_off & htons(IP_OFFSET)))
		transport = transport_content(skb, offset + ip->ihl * 4,
					      ip->protocol);
	return jhash_3words(ntohs(ip->id) << 16 | ntohs(ip->tot_len),
			    ntohs(ip->frag_off) & IP_OFFSET, transport,
			    ip->protocol);
}

static u32 ipv6_content(const struct sk_buff *skb)
{
	int offset = skb_network_offset(skb);
	const struct ipv6hdr *ip;
	struct ipv6hdr header;

	ip = skb_header_pointer(skb, offset, sizeof(header), &header);
	if (!ip)
		return 0;
	return jhash_2words(ntohs(ip->payload_len),
			    transport_content(skb, offset + sizeof(header),
					      ip->nexthdr),
			    ip->nexthdr);
}

/* A hash of what a packet keeps on its way, whatever NAT does. */
static u32 packet_content(const struct sk_buff *skb)
{
	switch (skb->protocol) {
	case htons(ETH_P_IP):
		return ipv4_content(skb);
	case htons(ETH_P_IPV6):
		return ipv6_content(skb);
	default:
		return jhash_1word(skb->len, ntohs(skb->protocol));
	}
}

/* A packet at a place, in the form of a known one. */
static u64 packet_here(const struct sk_buff *skb, u32 address,
		       const struct nf_hook_state *state, const void *place)
{
	u32 first = jhash_3words(hash_ptr(place, 32), hash_ptr(state->net, 32),
				 state->hook, state->pf);

	return FIELD_PREP(KNOWN_PF, state->pf) |
	       FIELD_PREP(KNOWN_HOOK, state->hook) |
	       FIELD_PREP(KNOWN_NET, state->net->ns.inum) |
	       FIELD_PREP(KNOWN_FIRST, first >> (32 - 12)) |
	       FIELD_PREP(KNOWN_CONTENT, packet_content(skb) >> (32 - 15)) |
	       FIELD_PREP(KNOWN_ADDRESS, address >> (32 - 20));
}

/* Tells whether a packet at one hook of IP can come to another in the same namespace. */
static bool hook_reaches(unsigned int last, unsigned int hook, bool looped)
{
	if (hook == last)
		return true;
	switch (last) {
	case NF_INET_PRE_ROUTING:
		return hook != NF_INET_LOCAL_OUT;
	case NF_INET_FORWARD:
		return hook == NF_INET_POST_ROUTING;
	case NF_INET_LOCAL_OUT:
	case NF_INET_POST_ROUTING:
		if (looped)
			return hook == NF_INET_PRE_ROUTING ||
			       hook == NF_INET_LOCAL_IN;
		return last == NF_INET_LOCAL_OUT &&
		       hook == NF_INET_POST_ROUTING;
	default:
		return false;
	}
}

/*
 * Tells whether a packet is the known one of its address, on its way. Addresses are used again. The
 * next packet on the same way comes to the place where this one began; another, to a hook where it
 * cannot have gone from its last one.
 */
static bool packet_goes_on(u64 known, u64 here,
			   const struct nf_hook_state *state)
{
	unsigned int last = FIELD_GET(KNOWN_HOOK, known);
	bool looped = state->in && state->in->flags & IFF_LOOPBACK;

	if ((known ^ here) & KNOWN_CONTENT || !((known ^ here) & KNOWN_FIRST))
		return false;
	if (FIELD_GET(KNOWN_PF, known) != state->pf ||
	    (state->pf != NFPROTO_IPV4 && state->pf != NFPROTO_IPV6))
		return true;
	if ((known ^ here) & KNOWN_NET)
		return last != NF_INET_LOCAL_IN &&
		       state->hook != NF_INET_LOCAL_OUT;
	return hook_reaches(last, state->hook, looped);
}

/* Tells whether a known packet has the address of another. */
static bool known_address(u64 known, u64 here)
{
	return !((known ^ here) & KNOWN_ADDRESS);
}

/*
 * The way of a bucket in which an address is known, or the last one if it is not, and what is known
 * there.
 */
static unsigned int bucket_find(const struct bucket *bucket, u64 here,
				u64 *known)
{
	unsigned int way = 0;

	while (true) {
		/* one that has left this way is seen where bucket_insert() has moved it */
		*known = smp_load_acquire(&bucket->known[way]);
		if (known_address(*known, here) || way == WAYS - 1)
			return way;
		way++;
	}
}

/* Makes a packet known, in place of the one of its address, or of the one known for longest. */
static void bucket_insert(struct bucket *bucket, u64 here)
{
	unsigned long flags;
	unsigned int way;
	u64 known;

	raw_spin_lock_irqsave(&bucket->lock, flags);
	way = bucket_find(bucket, here, &known);
	for (; way; way--)
		/* bucket_find() sees it here before it leaves the way that it was in */
		smp_store_release(&bucket->known[way],
				  READ_ONCE(bucket->known[way - 1]));
	/* likewise the one that was in front */
	smp_store_release(&bucket->known[0], here);
	raw_spin_unlock_irqrestore(&bucket->lock, flags);
}

/* --- decisions ----------------------------------------------------------------------------- */

/* The limit by which a packet that is not known is left out; IPTTRACE_LIMITS if none does. */
static enum ipttrace_limit limits_decide(struct ipttrace_limits *limits,
					 u64 now)
{
	if (limits->sample &&
	    reciprocal_scale(get_random_u32(), limits->sample))
		return IPTTRACE_LIMIT_SAMPLE;
	if ((limits->budget_events &&
	     pace_exceeded(&limits->events_pace, now, BUDGET_BURST)) ||
	    (limits->budget_cpu &&
	     pace_exceeded(&limits->cpu_pace, now, BUDGET_BURST)))
		return IPTTRACE_LIMIT_GOVERNOR;
	if (limits->rate &&
	    !pace_use(&limits->rate_pace, now,
		      div_u64(NSEC_PER_SEC, limits->rate), RATE_BURST))
		return IPTTRACE_LIMIT_RATE;
	return IPTTRACE_LIMITS;
}

static void telling_work(struct work_struct *work)
{
	struct ipttrace_link *link = container_of(
		to_delayed_work(work), struct ipttrace_link, telling);
	struct ipttrace_link_stats stats = ipttrace_link_sum(link);
	struct ipttrace_event event = {
		.kind = IPTTRACE_KIND_LEFT_OUT,
		.time = ktime_get_ns(),
		.link = link->id,
		.table_handle = stats.left_out[IPTTRACE_LIMIT_SAMPLE],
		.chain_handle = stats.left_out[IPTTRACE_LIMIT_RATE],
		.rule_handle = stats.left_out[IPTTRACE_LIMIT_GOVERNOR],
	};

	this_cpu_inc(link->stats->events);
	if (ipttrace_events_wanted() && !ipttrace_events_emit(&event, NULL, 0))
		this_cpu_inc(link->stats->lost);
}

/**
 * ipttrace_limits_begin_link - prepare a link to tell of packets that its sets leave out
 * @link: a link that no packet meets yet
 */
void ipttrace_limits_begin_link(struct ipttrace_link *link)
{
	INIT_DELAYED_WORK(&link->telling, telling_work);
}

/**
 * ipttrace_limits_end_link - tell of packets that were not told of yet
 * @link: a link that no packet meets any more
 *
 * Context: process, may sleep.
 */
void ipttrace_limits_end_link(struct ipttrace_link *link)
{
	flush_delayed_work(&link->telling);
}

/* Counts a packet that is left out, and has that told of. */
static void leave_out(struct ipttrace_link *link, enum ipttrace_limit cause)
{
	this_cpu_inc(link->stats->left_out[cause]);
	/* the work is not pending any more before it reads the counters: then it is queued again */
	smp_mb();
	if (!delayed_work_pending(&link->telling))
		queue_delayed_work(system_unbound_wq, &link->telling, TELLING);
}

/**
 * ipttrace_limits_admit_once - check whether the events of a packet are reported
 * @set: a set with limits, of a link whose packets come to one place only
 *
 * Decides over the packet, and counts it if it is left out.
 *
 * Context: any that packets are in; it may be preempted.
 * Return: false if the packet is left out.
 */
bool ipttrace_limits_admit_once(const struct ipttrace_set *set)
{
	enum ipttrace_limit cause =
		limits_decide(set->limits, ktime_get_coarse_ns());

	if (cause != IPTTRACE_LIMITS)
		leave_out(set->link, cause);
	return cause == IPTTRACE_LIMITS;
}

/**
 * ipttrace_limits_admit - check whether the events of a packet are reported
 * @set: a set with limits, which has selected the packet at a place
 * @skb: the packet
 * @state: state of the hook that it is at
 * @place: table or base chain there: no packet passes it twice on its way
 *
 * Decides over a packet that is not known, and counts it if it is left out. A packet is forgotten
 * once seven others that share its bucket have been decided over; if it comes after that, or again
 * to where it began, it is decided over again.
 *
 * Context: any that packets are in; it may be preempted.
 * Return: false if the packet is left out.
 */
bool ipttrace_limits_admit(const struct ipttrace_set *set,
			   const struct sk_buff *skb,
			   const struct nf_hook_state *state, const void *place)
{
	u32 address = hash_ptr(skb, 32);
	struct bucket *bucket =
		&set->limits->buckets[address & ((1 << BUCKET_BITS) - 1)];
	u64 here = packet_here(skb, address * GOLDEN_RATIO_32, state, place);
	u64 known;
	unsigned int way = bucket_find(bucket, here, &known);

	if (known_address(known, here) && packet_goes_on(known, here, state)) {
		/* if it is being moved it stays as it is: its decision does */
		if ((known ^ here) & KNOWN_LAST)
			cmpxchg(&bucket->known[way], known,
				(known & ~KNOWN_LAST) | (here & KNOWN_LAST));
		return !(known & KNOWN_LEFT_OUT);
	}
	if (!ipttrace_limits_admit_once(set))
		here |= KNOWN_LEFT_OUT;
	bucket_insert(bucket, here);
	return !(here & KNOWN_LEFT_OUT);
}

/* --- requests ------------------------------------------------------------------------------ */

static u32 get_limit(const struct nlattr *attr)
{
	return attr ? nla_get_u32(attr) : 0;
}

static struct bucket *buckets_alloc(void)
{
	struct bucket *buckets = kvcalloc(1 << BUCKET_BITS, sizeof(*buckets),
					  GFP_KERNEL_ACCOUNT);
	unsigned int i;

	for (i = 0; buckets && i < 1 << BUCKET_BITS; i++)
		raw_spin_lock_init(&buckets[i].lock);
	return buckets;
}

/* Makes limits; @moving: packets come to several places. */
static struct ipttrace_limits *limits_alloc(bool moving)
{
	struct ipttrace_limits *limits =
		kzalloc(sizeof(*limits), GFP_KERNEL_ACCOUNT);

	if (!limits)
		return NULL;
	limits->pending = alloc_percpu_gfp(struct pending, GFP_KERNEL_ACCOUNT);
	if (moving)
		limits->buckets = buckets_alloc();
	if (!limits->pending || (moving && !limits->buckets)) {
		ipttrace_limits_free(limits);
		return NULL;
	}
	return limits;
}

/**
 * ipttrace_set_add_limits - give a set limits
 * @set: a set that is not published
 * @nest: the limits
 * @extack: extended ACK, set on error
 *
 * Return: 0, -EINVAL, -ERANGE or -ENOMEM. Where all limits are missing it gets none.
 */
int ipttrace_set_add_limits(struct ipttrace_set *set, const struct nlattr *nest,
			    struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_limits_policy)];
	struct ipttrace_limits *limits;
	int err;

	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_limits_policy, extack);
	if (err)
		return err;
	if (!(set->slots & ~BIT(IPTTRACE_SLOT_ENTRY))) {
		NL_SET_ERR_MSG_ATTR(
			extack, nest,
			"the set has no program that asks for events: there is nothing to limit");
		return -EINVAL;
	}
	limits = limits_alloc(set->slots & ~BIT(IPTTRACE_SLOT_PACKET));
	if (!limits)
		return -ENOMEM;
	limits->sample = get_limit(tb[IPTTRACE_A_LIMITS_SAMPLE]);
	limits->rate = get_limit(tb[IPTTRACE_A_LIMITS_RATE]);
	limits->budget_events = get_limit(tb[IPTTRACE_A_LIMITS_BUDGET_EVENTS]);
	limits->budget_cpu = get_limit(tb[IPTTRACE_A_LIMITS_BUDGET_CPU]);
	if (!limits->sample && !limits->rate && !limits->budget_events &&
	    !limits->budget_cpu) {
		ipttrace_limits_free(limits);
		return 0;
	}
	set->limits = limits;
	return 0;
}

/**
 * ipttrace_limits_free - free limits
 * @limits: limits that no packet can see any more; may be NULL
 */
void ipttrace_limits_free(struct ipttrace_limits *limits)
{
	if (!limits)
		return;
	kvfree(limits->buckets);
	free_percpu(limits->pending);
	kfree(limits);
}

/**
 * ipttrace_limits_size - space that ipttrace_put_limits() needs in a message
 */
size_t ipttrace_limits_size(void)
{
	return nla_total_size(0) + 4 * nla_total_size(sizeof(u32));
}

static int put_limit(struct sk_buff *msg, int type, u32 value)
{
	return value ? nla_put_u32(msg, type, value) : 0;
}

/**
 * ipttrace_put_limits - add the limits of a set to the message about it
 * @msg: the message
 * @limits: the limits, or NULL
 *
 * Return: 0 or -EMSGSIZE.
 */
int ipttrace_put_limits(struct sk_buff *msg,
			const struct ipttrace_limits *limits)
{
	struct nlattr *nest;

	if (!limits)
		return 0;
	nest = nla_nest_start(msg, IPTTRACE_A_PROGRAM_SET_LIMITS);
	if (!nest || put_limit(msg, IPTTRACE_A_LIMITS_SAMPLE, limits->sample) ||
	    put_limit(msg, IPTTRACE_A_LIMITS_RATE, limits->rate) ||
	    put_limit(msg, IPTTRACE_A_LIMITS_BUDGET_EVENTS,
		      limits->budget_events) ||
	    put_limit(msg, IPTTRACE_A_LIMITS_BUDGET_CPU, limits->budget_cpu))
		return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}
