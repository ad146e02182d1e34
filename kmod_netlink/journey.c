// SPDX-License-Identifier: GPL-2.0
/*
 * The journey hook: links whose packets are followed from hook to hook. Which packets these are is
 * decided by links at other hooks, which are on the journey: what one of them selects, all of them
 * get, wherever it comes by, and the journey's own programs see its steps in between
 * (journey_steps.c).
 */
#include <net/netlink.h>

#include "answers.h"
#include "arming.h"
#include "followed.h"
#include "journey.h"
#include "journey_run.h"
#include "journey_steps.h"
#include "limits.h"
#include "link.h"
#include "message.h"
#include "steps_check.h"

/* Probes of tracepoints are there as long as all functions are watched. */
static void journey_watched(bool all)
{
	if (!all)
		ipttrace_steps_end();
}

static struct ipttrace_arming arming = {
	.lock = __MUTEX_INITIALIZER(arming.lock),
	.hooks = BIT(IPTTRACE_HOOK_JOURNEY),
	.functions = ipttrace_step_functions,
	.count = IPTTRACE_STEP_FUNCTIONS,
	.watched = journey_watched,
};

/* Journeys that are there or whose packets are not forgotten, a bit each; under ipttrace_lock. */
static u32 journeys;
/* Those of them that are leaving, until a grace period later. */
static u32 leaving_journeys;

static u32 journey_bit(const struct ipttrace_link *link)
{
	const struct ipttrace_journey_place *place = link->place;

	return BIT(place->bit);
}

/* --- requests ------------------------------------------------------------------------------ */

static int journey_parse(struct ipttrace_link_spec *spec, struct nlattr **attrs,
			 struct netlink_ext_ack *extack)
{
	const struct nlattr *foreign =
		ipttrace_hook_foreign(&ipttrace_journey_hook, attrs);
	struct ipttrace_journey_place *place;

	if (!foreign && spec->family != NFPROTO_UNSPEC)
		foreign = attrs[IPTTRACE_A_FAMILY];
	if (foreign) {
		NL_SET_ERR_MSG_ATTR(
			extack, foreign,
			"a journey has no family, place or mode, and is on no other: links at other hooks are on it");
		return -EINVAL;
	}
	if (spec->flags & (IPTTRACE_LINK_FLAG_REPORT_DROPS |
			   IPTTRACE_LINK_FLAG_COUNT_RULES)) {
		NL_SET_ERR_MSG_ATTR(
			extack, attrs[IPTTRACE_A_FLAGS],
			"a journey drops no packets, and meets no rules");
		return -EINVAL;
	}
	if (spec->flags & IPTTRACE_LINK_FLAG_PERSISTENT) {
		NL_SET_ERR_MSG_ATTR(
			extack, attrs[IPTTRACE_A_FLAGS],
			"a journey is never persistent: it ends with its socket");
		return -EOPNOTSUPP;
	}
	place = kzalloc(sizeof(*place), GFP_KERNEL);
	if (!place)
		return -ENOMEM;
	if (attrs[IPTTRACE_A_JOURNEY_WAYS])
		place->ways = nla_get_u32(attrs[IPTTRACE_A_JOURNEY_WAYS]);
	else
		place->ways = 1;
	spec->place = place;
	return 0;
}

static void journey_spec_release(struct ipttrace_link_spec *spec)
{
	kfree(spec->place);
}

static int journey_takes(u32 family, const struct ipttrace_set *set,
			 const struct nlattr *attr,
			 struct netlink_ext_ack *extack)
{
	if (set->slots != BIT(IPTTRACE_SLOT_STEP)) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"a journey has the slot step, and no other");
		return -EINVAL;
	}
	if (set->filter || set->limits) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"links at other hooks choose the packets of a journey: filter and limits are theirs");
		return -EINVAL;
	}
	return 0;
}

static int journey_begin(const struct ipttrace_link_spec *spec,
			 struct netlink_ext_ack *extack)
{
	int err = ipttrace_arming_begin(&arming, extack);

	if (err == -ENOENT) {
		NL_SET_ERR_MSG(
			extack,
			"this kernel copies or frees packets in functions that are not known");
		return -EOPNOTSUPP;
	}
	if (err)
		return err;
	err = ipttrace_steps_begin(extack);
	if (err)
		ipttrace_arming_end(&arming);
	return err;
}

static void journey_end(const struct ipttrace_link_spec *spec)
{
	ipttrace_arming_end(&arming);
}

/* --- links --------------------------------------------------------------------------------- */

static struct ipttrace_sets *journey_prepare(gfp_t gfp)
{
	return ipttrace_links_sets(IPTTRACE_HOOK_JOURNEY, gfp);
}

static struct ipttrace_sets *journey_publish(struct ipttrace_sets *prepared,
					     const struct list_head *changing)
{
	return ipttrace_journeys_publish(prepared);
}

static int journey_attach(struct ipttrace_link *link,
			  const struct ipttrace_link_spec *spec,
			  struct netlink_ext_ack *extack)
{
	struct ipttrace_journey_place *place = NULL;
	struct ipttrace_sets *sets;
	int err;

	if (journeys == U32_MAX) {
		NL_SET_ERR_MSG(extack, "there are as many journeys as can be");
		return -ENOSPC;
	}
	err = ipttrace_followed_begin();
	if (err)
		return err;
	err = journeys ? 0 : ipttrace_steps_check(extack);
	if (err)
		goto forget;
	place = kmemdup(spec->place, sizeof(*place), GFP_KERNEL_ACCOUNT);
	sets = place ? journey_prepare(GFP_KERNEL) : ERR_PTR(-ENOMEM);
	if (IS_ERR(sets)) {
		err = PTR_ERR(sets);
		goto forget;
	}
	place->bit = ffz(journeys);
	err = place->ways == 2 ? ipttrace_answers_begin(BIT(place->bit)) : 0;
	if (err) {
		kfree(sets);
		goto forget;
	}
	ipttrace_limits_begin_journey(BIT(place->bit));
	journeys |= BIT(place->bit);
	ipttrace_followed_live(journeys & ~leaving_journeys);
	link->place = place;
	sets = ipttrace_journeys_publish(sets);
	synchronize_rcu();
	kfree(sets);
	return 0;

forget:
	kfree(place);
	if (!journeys)
		ipttrace_followed_end();
	return err;
}

/* Takes links off journeys that are leaving. */
static void leave_journeys(const struct list_head *links)
{
	struct ipttrace_link *link;

	list_for_each_entry(link, links, list)
		WRITE_ONCE(link->journey, link->journey & ~leaving_journeys);
}

static struct ipttrace_sets *journey_detach(const struct list_head *leaving)
{
	const struct ipttrace_link *link;

	list_for_each_entry(link, leaving, list)
		if (link->hook == IPTTRACE_HOOK_JOURNEY)
			leaving_journeys |= journey_bit(link);
	ipttrace_followed_live(journeys & ~leaving_journeys);
	ipttrace_answers_leave(leaving_journeys);
	leave_journeys(leaving);
	leave_journeys(&ipttrace_links);
	return ipttrace_journeys_publish(
		journey_prepare(GFP_KERNEL | __GFP_NOFAIL));
}

static void journey_release(void)
{
	ipttrace_followed_forget(leaving_journeys);
	ipttrace_answers_forget(leaving_journeys);
	journeys &= ~leaving_journeys;
	leaving_journeys = 0;
	if (!journeys)
		ipttrace_followed_end();
	ipttrace_arming_release(&arming);
}

static u32 journey_armed(const struct ipttrace_link *link)
{
	return ipttrace_function_armed(&ipttrace_step_functions[0]) ?
		       IPTTRACE_ARMED_JOURNEY :
		       0;
}

static size_t journey_put_size(void)
{
	return nla_total_size(sizeof(u32)) + 4 * nla_total_size(sizeof(u64));
}

static int journey_put(struct sk_buff *msg, const struct ipttrace_link *link)
{
	const struct ipttrace_journey_place *place = link->place;

	if (nla_put_u32(msg, IPTTRACE_A_JOURNEY_WAYS, place->ways) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_JOURNEY_FOLLOWED,
			     ipttrace_followed_count()) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_JOURNEY_UNFOLLOWED,
			     ipttrace_followed_unfollowed()) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_JOURNEY_LOST,
			     ipttrace_steps_lost()) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_JOURNEY_DISPLACED,
			     ipttrace_answers_displaced()))
		return -EMSGSIZE;
	return 0;
}

static int journey_init(void)
{
	return ipttrace_arming_init(&arming);
}

static void journey_exit(void)
{
	ipttrace_arming_exit(&arming);
}

static const int journey_attributes[] = {
	IPTTRACE_A_JOURNEY_WAYS,
};

/* the operations are described in hook.h */
const struct ipttrace_hook_ops ipttrace_journey_hook = {
	.attributes = journey_attributes,
	.attribute_count = ARRAY_SIZE(journey_attributes),
	.init = journey_init,
	.exit = journey_exit,
	.parse = journey_parse,
	.spec_release = journey_spec_release,
	.takes = journey_takes,
	.begin = journey_begin,
	.end = journey_end,
	.attach = journey_attach,
	.prepare = journey_prepare,
	.publish = journey_publish,
	.detach = journey_detach,
	.release = journey_release,
	.armed = journey_armed,
	.put_size = journey_put_size,
	.put = journey_put,
};

/* --- links on journeys --------------------------------------------------------------------- */

/**
 * ipttrace_journey_join - put a link on a journey
 * @link: a link that no packet meets yet
 * @attr: id of the link at the hook journey
 * @extack: extended ACK, set on error
 *
 * Return: 0, -ENOENT or -EINVAL.
 */
int ipttrace_journey_join(struct ipttrace_link *link, const struct nlattr *attr,
			  struct netlink_ext_ack *extack)
{
	const struct ipttrace_link_ref ref = { .attr = attr };
	const struct ipttrace_link *journey;

	journey = ipttrace_link_find(&ref, extack);
	if (IS_ERR(journey))
		return PTR_ERR(journey);
	if (journey->hook != IPTTRACE_HOOK_JOURNEY) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"that link is at another hook than journey");
		return -EINVAL;
	}
	link->journey_id = journey->id;
	link->journey = journey_bit(journey);
	return 0;
}

/**
 * ipttrace_journey_check_release - check that a link may become persistent
 * @link: the link
 * @attr: attribute to blame in @extack
 * @extack: extended ACK, set on error
 *
 * A journey could not be restored as it was: its packets would have gone on meanwhile.
 *
 * Return: 0, or -EOPNOTSUPP if the link is a journey, or is on one.
 */
int ipttrace_journey_check_release(const struct ipttrace_link *link,
				   const struct nlattr *attr,
				   struct netlink_ext_ack *extack)
{
	lockdep_assert_held(&ipttrace_lock);
	if (link->hook == IPTTRACE_HOOK_JOURNEY) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"a journey is never persistent: it ends with its socket");
		return -EOPNOTSUPP;
	}
	if (link->journey) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"a link on a journey is never persistent: the journey ends with its socket");
		return -EOPNOTSUPP;
	}
	return 0;
}

/**
 * ipttrace_journey_joined_size - space that ipttrace_journey_put_joined() needs in a message
 */
size_t ipttrace_journey_joined_size(void)
{
	return nla_total_size(sizeof(u32));
}

/**
 * ipttrace_journey_put_joined - add the journey that a link is on to a message
 * @msg: the message
 * @link: the link
 *
 * Return: 0 or -EMSGSIZE.
 */
int ipttrace_journey_put_joined(struct sk_buff *msg,
				const struct ipttrace_link *link)
{
	return link->journey ?
		       nla_put_u32(msg, IPTTRACE_A_JOURNEY, link->journey_id) :
		       0;
}
