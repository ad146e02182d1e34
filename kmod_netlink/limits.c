// SPDX-License-Identifier: GPL-2.0
/*
 * Limits of a program set: packets of which it leaves out the events, all or none. A packet is
 * decided over where the set first selects it; the decision is kept for the other tables and chains
 * on its way. Observers are told how many packets a link has left out.
 *
 * On a journey one link decides for all: that which meets the packet first. The others cannot leave
 * out any part of it, but their budgets count: while one is exceeded the journey is silent, and
 * whichever link decides leaves packets out.
 */
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/random.h>
#include <linux/sched/clock.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "events.h"
#include "known.h"
#include "limits.h"
#include "link.h"
#include "netlink_gen.h"

/* A rate may be exceeded by what it lets through in this time, a budget likewise, ns. */
#define RATE_BURST (NSEC_PER_SEC / 10)
#define BUDGET_BURST NSEC_PER_SEC
/* What a budget is exceeded by at most, however much was charged: it is kept again after that. */
#define MOST_EXCESS (60LL * NSEC_PER_SEC)
/* Packets that are left out are told of within this time, in jiffies, and once in it at most. */
#define TELLING HZ
/* A program that took longer did not have its CPU: an interrupt had it, or another guest. ns. */
#define LONGEST_RUN (10 * NSEC_PER_MSEC)
/* One run of a program in so many is timed, and stands for all. */
#define TIMED 8
/* Charges of a CPU are put to the others' once they are as much of a budget's time, ns. */
#define PENDING NSEC_PER_MSEC

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
 * @known: packets that were decided over; NULL for a link whose packets come to one place only
 *
 * Owned by the set. The numbers are constant; the rest is changed by packets on any CPU.
 */
struct ipttrace_limits {
	u32 sample;
	u32 rate;
	u32 budget_events;
	u32 budget_cpu;
	struct pending __percpu *pending;
	struct ipttrace_known *known;
	struct pace rate_pace ____cacheline_aligned_in_smp;
	struct pace events_pace;
	struct pace cpu_pace;
};

/*
 * Until when each journey is silent, by the number of its bit, as paces have their times. Written
 * where a budget of a link on it was exceeded, read for packets that such a link selects.
 */
static atomic64_t silent_until[BITS_PER_TYPE(u32)] __cacheline_aligned_in_smp;

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

/* Uses time of a pace, whatever it is ahead by; returns up to when all is used then. */
static s64 pace_charge(struct pace *pace, s64 now, u64 time)
{
	s64 until = atomic64_read(&pace->until);
	s64 next;

	time = min_t(u64, time, MOST_EXCESS);
	do {
		next = min(max(until, now) + (s64)time, now + MOST_EXCESS);
	} while (!atomic64_try_cmpxchg(&pace->until, &until, next));
	return next;
}

/* --- journeys ------------------------------------------------------------------------------ */

/**
 * ipttrace_limits_begin_journey - forget what a journey of before has used
 * @journey: bit of a journey that no link is on yet
 */
void ipttrace_limits_begin_journey(u32 journey)
{
	atomic64_set(&silent_until[__ffs(journey)], 0);
}

/* Keeps packets off a journey until a time, unless they are for longer already. */
static void journey_silence(u32 journey, s64 until)
{
	atomic64_t *silent = &silent_until[__ffs(journey)];
	s64 so_far = atomic64_read(silent);

	while (so_far < until && !atomic64_try_cmpxchg(silent, &so_far, until))
		;
}

static bool journey_is_silent(u32 journey, s64 now)
{
	return journey && atomic64_read(&silent_until[__ffs(journey)]) > now;
}

/* --- charges ------------------------------------------------------------------------------- */

static void pending_use(u64 __percpu *pending, struct pace *pace, u64 time,
			u32 journey)
{
	s64 now, until;
	u64 used;

	if (this_cpu_add_return(*pending, time) < PENDING)
		return;
	used = this_cpu_xchg(*pending, 0);
	now = ktime_get_coarse_ns();
	until = pace_charge(pace, now, used);
	if (journey && until - now > BUDGET_BURST)
		journey_silence(journey, until - BUDGET_BURST);
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

void ipttrace_limits_use(const struct ipttrace_set *set, u64 begin,
			 unsigned int events)
{
	struct ipttrace_limits *limits = set->limits;
	u32 journey = READ_ONCE(set->link->journey);
	u64 time;

	if (limits->budget_events && events)
		pending_use(&limits->pending->events, &limits->events_pace,
			    div_u64((u64)events * NSEC_PER_SEC,
				    limits->budget_events),
			    journey);
	if (!begin)
		return;
	time = min_t(u64, sched_clock() - begin, LONGEST_RUN);
	pending_use(&limits->pending->cpu, &limits->cpu_pace,
		    div_u64(time * TIMED * 1000, limits->budget_cpu), journey);
}

/* --- decisions ----------------------------------------------------------------------------- */

/*
 * The limit by which a packet that is not known is left out; IPTTRACE_LIMITS if none does. @limits
 * may be NULL.
 */
static enum ipttrace_limit limits_decide(struct ipttrace_limits *limits,
					 u32 journey, u64 now)
{
	if (limits && limits->sample &&
	    reciprocal_scale(get_random_u32(), limits->sample))
		return IPTTRACE_LIMIT_SAMPLE;
	if (journey_is_silent(journey, now))
		return IPTTRACE_LIMIT_GOVERNOR;
	if (!limits)
		return IPTTRACE_LIMITS;
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

/**
 * ipttrace_limits_forget_link - do not tell of packets that were not told of yet
 * @link: a link that no packet meets any more, and that nobody was told of
 *
 * Context: process, may sleep.
 */
void ipttrace_limits_forget_link(struct ipttrace_link *link)
{
	cancel_delayed_work_sync(&link->telling);
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
 * @set: a set with limits, of a link whose packets come to one place only, or one on a journey
 *
 * Decides over the packet, and counts it if it is left out.
 *
 * Context: any that packets are in; it may be preempted.
 * Return: false if the packet is left out.
 */
bool ipttrace_limits_admit_once(const struct ipttrace_set *set)
{
	enum ipttrace_limit cause = limits_decide(set->limits,
						  READ_ONCE(set->link->journey),
						  ktime_get_coarse_ns());

	if (cause != IPTTRACE_LIMITS)
		leave_out(set->link, cause);
	return cause == IPTTRACE_LIMITS;
}

/**
 * ipttrace_limits_admit - check whether the events of a packet are reported
 * @set: a set with limits or on a journey, which has selected the packet at a place
 * @skb: the packet
 * @state: state of the hook that it is at
 * @place: table or base chain there: no packet passes it twice on its way
 *
 * Decides over a packet that is not known, and counts it if it is left out. One that was forgotten,
 * see ipttrace_known_find(), or comes again to where it began, is decided over again.
 *
 * Context: any that packets are in; it may be preempted.
 * Return: false if the packet is left out.
 */
bool ipttrace_limits_admit(const struct ipttrace_set *set,
			   const struct sk_buff *skb,
			   const struct nf_hook_state *state, const void *place)
{
	struct ipttrace_sighting seen;
	bool left_out;

	/* the journey knows its packets */
	if (!set->limits)
		return ipttrace_limits_admit_once(set);
	if (!ipttrace_known_find(set->limits->known, skb, state, place, &seen,
				 &left_out)) {
		left_out = !ipttrace_limits_admit_once(set);
		ipttrace_known_add(&seen, left_out);
	}
	return !left_out;
}

/* --- requests ------------------------------------------------------------------------------ */

static u32 get_limit(const struct nlattr *attr)
{
	return attr ? nla_get_u32(attr) : 0;
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
		limits->known = ipttrace_known_alloc();
	if (!limits->pending || (moving && !limits->known)) {
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
	kvfree(limits->known);
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
