// SPDX-License-Identifier: GPL-2.0
/*
 * Promotions that wait: a shadow is promoted as soon as conditions on its counters (condition.c)
 * are met, all at once. No controller needs to live until then.
 */
#include <linux/slab.h>
#include <linux/workqueue.h>
#include <net/genetlink.h>

#include "condition.h"
#include "link.h"
#include "message.h"
#include "promotion.h"
#include "shadow.h"

/**
 * struct ipttrace_promotion - what has a shadow promoted
 * @link: the link of the shadow; NULL before it has one, and once that was promoted or dropped, or
 *	its link detached
 * @work: measures, and promotes the shadow
 * @conditions: what has to be met, owned
 * @windows: the readings for each condition, owned
 *
 * Under ipttrace_lock. As long as there is a @link, @work waits for its time, or has begun and
 * waits for the lock: when it finds a @link and nothing to do, it queues itself again.
 *
 * The function that takes the shadow away cancels @work and frees everything. If @work has begun,
 * it does that itself, once it has the lock and finds no @link. The queue is drained before the
 * module is unloaded, when there are no links.
 */
struct ipttrace_promotion {
	struct ipttrace_link *link;
	struct delayed_work work;
	struct ipttrace_conditions *conditions;
	struct ipttrace_window *windows;
};

static struct workqueue_struct *promotion_queue;

/**
 * ipttrace_promotion_free - free a promotion that has not begun, or has ended
 * @promotion: the promotion; may be NULL
 */
void ipttrace_promotion_free(struct ipttrace_promotion *promotion)
{
	if (!promotion)
		return;
	kfree(promotion->conditions);
	kfree(promotion->windows);
	kfree(promotion);
}

static void wait_on(struct ipttrace_promotion *promotion)
{
	unsigned int interval =
		ipttrace_conditions_interval(promotion->conditions);

	queue_delayed_work(promotion_queue, &promotion->work,
			   msecs_to_jiffies(interval));
}

/* Measures all conditions: each needs its readings. Tells whether all are met. */
static bool all_met(struct ipttrace_promotion *promotion)
{
	struct ipttrace_link_stats stats = ipttrace_link_sum(promotion->link);
	const struct ipttrace_conditions *conditions = promotion->conditions;
	struct ipttrace_reading now, measured;
	bool met = true;
	unsigned int i;

	for (i = 0; i < conditions->count; i++) {
		now = ipttrace_condition_read(&conditions->condition[i],
					      &stats);
		if (ipttrace_window_judge(&promotion->windows[i],
					  &conditions->condition[i], &now,
					  &measured) != IPTTRACE_CONDITION_MET)
			met = false;
	}
	return met;
}

static void promotion_work(struct work_struct *work)
{
	struct ipttrace_promotion *promotion = container_of(
		to_delayed_work(work), struct ipttrace_promotion, work);
	static const struct ipttrace_terms for_good;
	struct ipttrace_link *link;

	mutex_lock(&ipttrace_lock);
	link = promotion->link;
	if (!link)
		goto out_free;
	/* without memory it is tried again */
	if (!all_met(promotion) ||
	    ipttrace_shadow_promote(link, NULL, &for_good)) {
		/* whoever has the lock next may free it */
		wait_on(promotion);
		goto out_unlock;
	}
	ipttrace_notify(link, IPTTRACE_CMD_LINK_SWAPPED, 0, false);
out_free:
	ipttrace_promotion_free(promotion);
out_unlock:
	mutex_unlock(&ipttrace_lock);
}

static int check_counters(const struct ipttrace_conditions *conditions,
			  const struct nlattr *attr,
			  struct netlink_ext_ack *extack)
{
	unsigned int i;

	for (i = 0; i < conditions->count; i++)
		if (!ipttrace_condition_of_shadow(&conditions->condition[i])) {
			NL_SET_ERR_MSG_ATTR(
				extack, attr,
				"a shadow is promoted by its agreements and disagreements only");
			return -EINVAL;
		}
	return 0;
}

/**
 * ipttrace_promotion_parse - parse the conditions on which a request has its shadow promoted
 * @info: the request
 *
 * Return: the promotion, which the caller owns and frees with ipttrace_promotion_free(), NULL if
 * there are no conditions, or ERR_PTR(): -EINVAL, -E2BIG or -ENOMEM.
 */
struct ipttrace_promotion *
ipttrace_promotion_parse(const struct genl_info *info)
{
	struct ipttrace_conditions *conditions = ipttrace_conditions_parse(
		info, IPTTRACE_A_PROMOTE_IF, IPTTRACE_MAX_GUARDS);
	struct ipttrace_promotion *promotion;
	int err;

	if (IS_ERR_OR_NULL(conditions))
		return ERR_CAST(conditions);
	err = check_counters(conditions, info->attrs[IPTTRACE_A_PROMOTE_IF],
			     info->extack);
	if (err) {
		kfree(conditions);
		return ERR_PTR(err);
	}
	promotion = kzalloc(sizeof(*promotion), GFP_KERNEL);
	if (!promotion) {
		kfree(conditions);
		return ERR_PTR(-ENOMEM);
	}
	INIT_DELAYED_WORK(&promotion->work, promotion_work);
	promotion->conditions = conditions;
	promotion->windows = kcalloc(conditions->count,
				     sizeof(*promotion->windows), GFP_KERNEL);
	if (!promotion->windows) {
		ipttrace_promotion_free(promotion);
		return ERR_PTR(-ENOMEM);
	}
	return promotion;
}

/**
 * ipttrace_promotion_begin - have the shadow of a link promoted when the conditions are met
 * @promotion: the promotion, of the link's shadow
 * @link: the link
 */
void ipttrace_promotion_begin(struct ipttrace_promotion *promotion,
			      struct ipttrace_link *link)
{
	struct ipttrace_link_stats stats = ipttrace_link_sum(link);
	struct ipttrace_reading now;
	unsigned int i;

	lockdep_assert_held(&ipttrace_lock);
	promotion->link = link;
	for (i = 0; i < promotion->conditions->count; i++) {
		now = ipttrace_condition_read(
			&promotion->conditions->condition[i], &stats);
		ipttrace_window_begin(&promotion->windows[i], &now);
	}
	wait_on(promotion);
}

/**
 * ipttrace_promotion_end - have the shadow promoted no more
 * @promotion: the promotion, which must not be used afterwards
 */
void ipttrace_promotion_end(struct ipttrace_promotion *promotion)
{
	lockdep_assert_held(&ipttrace_lock);
	promotion->link = NULL;
	/* work that could not be cancelled has begun: it waits for the lock, and frees it */
	if (cancel_delayed_work(&promotion->work))
		ipttrace_promotion_free(promotion);
}

/**
 * ipttrace_promotion_size - space that ipttrace_put_promotion() needs in a message
 */
size_t ipttrace_promotion_size(void)
{
	return IPTTRACE_MAX_GUARDS * ipttrace_condition_size();
}

/**
 * ipttrace_put_promotion - add to the nest of a shadow what has it promoted
 * @msg: the message
 * @promotion: the promotion, or NULL
 *
 * Return: 0 or -EMSGSIZE.
 */
int ipttrace_put_promotion(struct sk_buff *msg,
			   const struct ipttrace_promotion *promotion)
{
	unsigned int i;

	for (i = 0; promotion && i < promotion->conditions->count; i++)
		if (ipttrace_put_condition(msg, IPTTRACE_A_SHADOW_PROMOTE_IF,
					   &promotion->conditions->condition[i]))
			return -EMSGSIZE;
	return 0;
}

/**
 * ipttrace_promotion_init - make the queue of promotions
 *
 * Return: 0 or -ENOMEM.
 */
int ipttrace_promotion_init(void)
{
	promotion_queue = alloc_workqueue("ipttrace_promotion", WQ_UNBOUND, 0);
	return promotion_queue ? 0 : -ENOMEM;
}

/**
 * ipttrace_promotion_exit - destroy the queue of promotions; no link may be left
 */
void ipttrace_promotion_exit(void)
{
	destroy_workqueue(promotion_queue);
}
