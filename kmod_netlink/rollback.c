// SPDX-License-Identifier: GPL-2.0
/*
 * Swaps that wait: until they are confirmed they can be undone, and are by themselves after some
 * time, or when a condition on the counters of their links (condition.c), a guard, is violated.
 */
#include <linux/jiffies.h>
#include <linux/slab.h>
#include <linux/workqueue.h>
#include <net/netlink.h>

#include "condition.h"
#include "message.h"
#include "owner.h"
#include "rollback.h"
#include "transaction.h"

/**
 * struct ipttrace_rollback - links that go back to their previous sets unless confirmed
 * @links: the links, by their change
 * @work: rolls them back, at @deadline or when a guard is violated; measures the guards until then
 * @timed: there is a @deadline
 * @deadline: end of the time to confirm, in jiffies
 * @guards: conditions that each link has to meet, owned; or NULL. The readings are in the links
 *
 * Under ipttrace_lock. The links point to it until they are rolled back, confirmed or detached. As
 * long as there are links, @work waits for its time, or has begun and waits for the lock: when it
 * finds links and nothing to do, it queues itself again.
 *
 * The function that takes the last link away (for a confirmation, a roll-back on request, a
 * detachment, the end of an owner) cancels @work and frees everything. If @work has begun, it does
 * that itself, once it has the lock and finds no link. A namespace or a device that goes leaves the
 * links as they are. The queue is drained before the module is unloaded, when there are no links.
 */
struct ipttrace_rollback {
	struct list_head links;
	struct delayed_work work;
	bool timed;
	unsigned long deadline;
	struct ipttrace_conditions *guards;
};

static struct workqueue_struct *rollback_queue;

static void windows_free(struct ipttrace_link *link)
{
	kfree(link->windows);
	link->windows = NULL;
}

/* Frees what a link needs only while its swap waits. */
static void waiting_free(struct ipttrace_link *link)
{
	ipttrace_set_free(link->other);
	link->other = NULL;
	windows_free(link);
}

static void rollback_free(struct ipttrace_rollback *rollback)
{
	kfree(rollback->guards);
	kfree(rollback);
}

/* Frees a roll-back whose last link was taken away, except in its work. */
static void rollback_end(struct ipttrace_rollback *rollback)
{
	/* work that could not be cancelled has begun: it waits for the lock, and frees it */
	if (cancel_delayed_work(&rollback->work))
		rollback_free(rollback);
}

/* --- undoing ------------------------------------------------------------------------------- */

/*
 * Makes ready to put the previous sets of the links back. With __GFP_NOFAIL it cannot fail. Returns
 * 0 or -ENOMEM; then they wait as before.
 */
static int undo_prepare(struct ipttrace_rollback *rollback,
			struct ipttrace_publication *publication, gfp_t gfp)
{
	struct ipttrace_link *link;
	int err;

	/* from here on they are changing */
	list_for_each_entry(link, &rollback->links, change)
		link->rollback = NULL;
	err = ipttrace_publication_prepare(publication, &rollback->links, gfp);
	if (!err)
		return 0;
	list_for_each_entry(link, &rollback->links, change)
		link->rollback = rollback;
	return err;
}

/*
 * Puts the previous sets of the links back; they stay listed in the roll-back. @requester is NULL
 * if nobody asked for it, @violation if no guard is the cause.
 */
static void undo(struct ipttrace_rollback *rollback,
		 struct ipttrace_publication *publication,
		 enum ipttrace_action action,
		 enum ipttrace_swap_outcome outcome,
		 const struct ipttrace_requester *requester,
		 const struct ipttrace_violation *violation)
{
	struct ipttrace_link *link;
	bool forced;

	ipttrace_links_publish(&rollback->links, publication);
	ipttrace_links_settle(&rollback->links, publication, false);
	list_for_each_entry(link, &rollback->links, change) {
		waiting_free(link);
		link->outcome = outcome;
		if (violation)
			link->violation = *violation;
		ipttrace_link_give_reason(link,
					  requester ? requester->reason : NULL);
		ipttrace_history_add(link, action);
		forced = requester && ipttrace_link_forces(link, requester);
		ipttrace_notify(link, IPTTRACE_CMD_LINK_SWAPPED, 0, forced);
	}
}

/* --- time and guards ----------------------------------------------------------------------- */

/* Measures the guards of a link; tells whether one is violated, and how. */
static bool link_violates(struct ipttrace_link *link,
			  const struct ipttrace_conditions *guards,
			  struct ipttrace_violation *violation)
{
	struct ipttrace_link_stats stats = ipttrace_link_sum(link);
	const struct ipttrace_condition *guard;
	struct ipttrace_reading now, measured;
	enum ipttrace_verdict verdict;
	unsigned int i;

	for (i = 0; i < guards->count; i++) {
		guard = &guards->condition[i];
		now = ipttrace_condition_read(guard, &stats);
		verdict = ipttrace_window_judge(&link->windows[i], guard, &now,
						&measured);
		if (verdict != IPTTRACE_CONDITION_VIOLATED)
			continue;
		violation->condition = *guard;
		violation->link = link->id;
		violation->measured = measured;
		return true;
	}
	return false;
}

static bool guards_violated(struct ipttrace_rollback *rollback,
			    struct ipttrace_violation *violation)
{
	struct ipttrace_link *link;

	if (!rollback->guards)
		return false;
	list_for_each_entry(link, &rollback->links, change)
		if (link_violates(link, rollback->guards, violation))
			return true;
	return false;
}

static bool time_is_over(const struct ipttrace_rollback *rollback)
{
	return rollback->timed && time_after_eq(jiffies, rollback->deadline);
}

/* Time until the links of a roll-back go back, in jiffies. */
static unsigned long time_left(const struct ipttrace_rollback *rollback)
{
	long left = rollback->deadline - jiffies;

	return max(left, 0L);
}

/* Queues the work for when there may be something to do. */
static void wait_on(struct ipttrace_rollback *rollback)
{
	unsigned long delay = MAX_JIFFY_OFFSET;
	unsigned int interval;

	if (rollback->timed)
		delay = time_left(rollback);
	if (rollback->guards) {
		interval = ipttrace_conditions_interval(rollback->guards);
		delay = min(delay, msecs_to_jiffies(interval));
	}
	queue_delayed_work(rollback_queue, &rollback->work, delay);
}

static void rollback_work(struct work_struct *work)
{
	struct ipttrace_rollback *rollback = container_of(
		to_delayed_work(work), struct ipttrace_rollback, work);
	struct ipttrace_publication publication;
	struct ipttrace_violation violation;
	struct ipttrace_link *link, *next;
	bool violated;

	mutex_lock(&ipttrace_lock);
	if (list_empty(&rollback->links))
		goto out_free;
	violated = guards_violated(rollback, &violation);
	if (!violated && !time_is_over(rollback)) {
		/* whoever has the lock next may free it */
		wait_on(rollback);
		goto out_unlock;
	}
	/* must not fail: there is no request that an error could be returned to */
	undo_prepare(rollback, &publication, GFP_KERNEL | __GFP_NOFAIL);
	if (violated)
		undo(rollback, &publication, IPTTRACE_ACTION_ROLLBACK_GUARD,
		     IPTTRACE_SWAP_OUTCOME_ROLLBACK_GUARD, NULL, &violation);
	else
		undo(rollback, &publication, IPTTRACE_ACTION_ROLLBACK,
		     IPTTRACE_SWAP_OUTCOME_ROLLBACK, NULL, NULL);
	list_for_each_entry_safe(link, next, &rollback->links, change)
		list_del_init(&link->change);
out_free:
	rollback_free(rollback);
out_unlock:
	mutex_unlock(&ipttrace_lock);
}

static int windows_alloc(struct ipttrace_link *link,
			 const struct ipttrace_conditions *guards)
{
	link->windows =
		kcalloc(guards->count, sizeof(*link->windows), GFP_KERNEL);
	return link->windows ? 0 : -ENOMEM;
}

static void windows_begin(struct ipttrace_link *link,
			  const struct ipttrace_conditions *guards)
{
	struct ipttrace_link_stats stats = ipttrace_link_sum(link);
	struct ipttrace_reading now;
	unsigned int i;

	for (i = 0; i < guards->count; i++) {
		now = ipttrace_condition_read(&guards->condition[i], &stats);
		ipttrace_window_begin(&link->windows[i], &now);
	}
}

/**
 * ipttrace_rollback_alloc - make ready to have a swap wait
 * @terms: what it waits for
 * @changing: its links, by their change
 *
 * Return: the roll-back, for ipttrace_rollback_arm() or ipttrace_rollback_cancel(), or
 * ERR_PTR(-ENOMEM).
 */
struct ipttrace_rollback *
ipttrace_rollback_alloc(const struct ipttrace_terms *terms,
			struct list_head *changing)
{
	struct ipttrace_rollback *rollback;
	struct ipttrace_link *link;

	lockdep_assert_held(&ipttrace_lock);
	rollback = kzalloc(sizeof(*rollback), GFP_KERNEL);
	if (!rollback)
		return ERR_PTR(-ENOMEM);
	INIT_LIST_HEAD(&rollback->links);
	INIT_DELAYED_WORK(&rollback->work, rollback_work);
	if (!terms->guards)
		return rollback;
	list_for_each_entry(link, changing, change)
		if (windows_alloc(link, terms->guards)) {
			ipttrace_rollback_cancel(rollback, changing);
			return ERR_PTR(-ENOMEM);
		}
	return rollback;
}

/**
 * ipttrace_rollback_cancel - free a roll-back of a swap that is not made
 * @rollback: not armed; may be NULL
 * @changing: the links for which it was made
 */
void ipttrace_rollback_cancel(struct ipttrace_rollback *rollback,
			      struct list_head *changing)
{
	struct ipttrace_link *link;

	lockdep_assert_held(&ipttrace_lock);
	list_for_each_entry(link, changing, change)
		windows_free(link);
	kfree(rollback);
}

/**
 * ipttrace_rollback_arm - have links wait from now on
 * @rollback: what was made for them
 * @terms: what they wait for; the guards become those of @rollback
 * @changing: the links, which have been exchanged; moved to @rollback
 */
void ipttrace_rollback_arm(struct ipttrace_rollback *rollback,
			   const struct ipttrace_terms *terms,
			   struct list_head *changing)
{
	struct ipttrace_link *link;

	lockdep_assert_held(&ipttrace_lock);
	list_splice_init(changing, &rollback->links);
	list_for_each_entry(link, &rollback->links, change) {
		link->rollback = rollback;
		if (terms->guards)
			windows_begin(link, terms->guards);
	}
	rollback->guards = terms->guards;
	rollback->timed = terms->rollback_after;
	rollback->deadline = jiffies + msecs_to_jiffies(terms->rollback_after);
	wait_on(rollback);
}

/* --- the end of the wait ------------------------------------------------------------------- */

/**
 * ipttrace_rollback_leave - take a link out of its roll-back
 * @link: the link; need not wait for a roll-back
 *
 * The others that were swapped with it still go back.
 */
void ipttrace_rollback_leave(struct ipttrace_link *link)
{
	struct ipttrace_rollback *rollback = link->rollback;

	lockdep_assert_held(&ipttrace_lock);
	if (!rollback)
		return;
	link->rollback = NULL;
	link->outcome = 0;
	list_del_init(&link->change);
	waiting_free(link);
	if (list_empty(&rollback->links))
		rollback_end(rollback);
}

/* Refuses a request about a swap that does not wait any more, or never did. */
static int refuse_late(const struct ipttrace_link *link,
		       const struct nlattr *attr,
		       struct netlink_ext_ack *extack)
{
	switch (link->outcome) {
	case IPTTRACE_SWAP_OUTCOME_CONFIRMED:
		NL_SET_ERR_MSG_ATTR(extack, attr,
				    "the last swap was confirmed already");
		return -EALREADY;
	case IPTTRACE_SWAP_OUTCOME_ROLLBACK:
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the last swap was rolled back already: it was not confirmed in time");
		return -ECANCELED;
	case IPTTRACE_SWAP_OUTCOME_ROLLBACK_REQUEST:
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the last swap was rolled back already: somebody asked for it");
		return -ECANCELED;
	case IPTTRACE_SWAP_OUTCOME_ROLLBACK_GUARD:
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the last swap was rolled back already: a guard did not hold");
		return -ECANCELED;
	}
	NL_SET_ERR_MSG_ATTR(
		extack, attr,
		"no swap waits: the link was not swapped yet, or for good");
	return -ENODATA;
}

/**
 * ipttrace_rollback_check - check that the swap that a request is about waits
 * @link: one of its links
 * @expect: the state that the request expects of the link
 * @attr: attribute to blame in @extack
 * @extack: extended ACK, set on error
 *
 * A request that comes after the roll-back may expect the generation that was undone.
 *
 * Return: 0; -ESTALE if another swap is meant; -EALREADY if it was confirmed, -ECANCELED if it was
 * rolled back, -ENODATA if there was none that waited.
 */
int ipttrace_rollback_check(const struct ipttrace_link *link,
			    const struct ipttrace_expectation *expect,
			    const struct nlattr *attr,
			    struct netlink_ext_ack *extack)
{
	bool undone = link->outcome >= IPTTRACE_SWAP_OUTCOME_ROLLBACK;
	int err;

	lockdep_assert_held(&ipttrace_lock);
	if (undone && expect->generation + 1 == link->set->generation)
		return refuse_late(link, attr, extack);
	err = ipttrace_link_check(link, expect, extack);
	if (err || link->rollback)
		return err;
	return refuse_late(link, attr, extack);
}

/**
 * ipttrace_rollback_confirm - keep the sets of all links that were swapped together
 * @link: one of them, for which ipttrace_rollback_check() returned 0
 */
void ipttrace_rollback_confirm(struct ipttrace_link *link)
{
	struct ipttrace_link *other, *next;
	LIST_HEAD(confirmed);

	lockdep_assert_held(&ipttrace_lock);
	/* the last one frees the head of the list */
	list_for_each_entry_safe(other, next, &link->rollback->links, change)
		if (other != link) {
			ipttrace_rollback_leave(other);
			list_add_tail(&other->change, &confirmed);
		}
	ipttrace_rollback_leave(link);
	list_add_tail(&link->change, &confirmed);

	ipttrace_links_sequence++;
	list_for_each_entry_safe(other, next, &confirmed, change) {
		list_del_init(&other->change);
		other->outcome = IPTTRACE_SWAP_OUTCOME_CONFIRMED;
		ipttrace_notify(other, IPTTRACE_CMD_LINK_CHANGED, 0, false);
	}
}

/**
 * ipttrace_rollback_links - count the links that wait together
 * @link: one of them
 */
unsigned int ipttrace_rollback_links(const struct ipttrace_link *link)
{
	const struct ipttrace_link *other;
	unsigned int count = 0;

	lockdep_assert_held(&ipttrace_lock);
	list_for_each_entry(other, &link->rollback->links, change)
		count++;
	return count;
}

/**
 * ipttrace_rollback_now - put back the previous sets of all links that were swapped together
 * @link: one of them, for which ipttrace_rollback_check() returned 0
 * @requester: who asks for it
 * @attr: attribute to blame in @extack
 * @undone: list that the links are moved to, by their change
 * @extack: extended ACK, set on error
 *
 * When it returns, no packet is handled by a set that was undone.
 *
 * Return: 0, -EBUSY or -ENOMEM; on error they wait as before.
 */
int ipttrace_rollback_now(struct ipttrace_link *link,
			  const struct ipttrace_requester *requester,
			  const struct nlattr *attr, struct list_head *undone,
			  struct netlink_ext_ack *extack)
{
	struct ipttrace_rollback *rollback = link->rollback;
	struct ipttrace_publication publication;
	bool forced;
	int err;

	lockdep_assert_held(&ipttrace_lock);
	list_for_each_entry(link, &rollback->links, change) {
		err = ipttrace_link_permit(link, requester, &forced, attr,
					   extack);
		if (err)
			return err;
	}
	err = undo_prepare(rollback, &publication, GFP_KERNEL);
	if (err)
		return err;
	undo(rollback, &publication, IPTTRACE_ACTION_ROLLBACK_REQUEST,
	     IPTTRACE_SWAP_OUTCOME_ROLLBACK_REQUEST, requester, NULL);
	list_splice_tail_init(&rollback->links, undone);
	rollback_end(rollback);
	return 0;
}

/* --- messages ------------------------------------------------------------------------------ */

/**
 * ipttrace_rollback_size - space that ipttrace_put_rollback() needs in a message
 */
size_t ipttrace_rollback_size(void)
{
	return 2 * nla_total_size(sizeof(u32)) +
	       IPTTRACE_MAX_GUARDS * ipttrace_condition_size() +
	       ipttrace_violation_size();
}

/**
 * ipttrace_put_rollback - add to a message what becomes of the last swap of a link, or became of it
 * @msg: the message
 * @link: the link
 *
 * Return: 0 or -EMSGSIZE.
 */
int ipttrace_put_rollback(struct sk_buff *msg, const struct ipttrace_link *link)
{
	const struct ipttrace_rollback *rollback = link->rollback;
	const struct ipttrace_conditions *guards = rollback ? rollback->guards :
							      NULL;
	unsigned int i;

	lockdep_assert_held(&ipttrace_lock);
	if (rollback && rollback->timed &&
	    nla_put_u32(msg, IPTTRACE_A_ROLLBACK_IN,
			jiffies_to_msecs(time_left(rollback))))
		return -EMSGSIZE;
	for (i = 0; guards && i < guards->count; i++)
		if (ipttrace_put_condition(msg, IPTTRACE_A_GUARD,
					   &guards->condition[i]))
			return -EMSGSIZE;
	if (link->outcome &&
	    nla_put_u32(msg, IPTTRACE_A_OUTCOME, link->outcome))
		return -EMSGSIZE;
	return ipttrace_put_violation(msg, IPTTRACE_A_VIOLATION,
				      &link->violation);
}

/* --- the queue ----------------------------------------------------------------------------- */

/**
 * ipttrace_rollback_init - make the queue of roll-backs
 *
 * Return: 0 or -ENOMEM.
 */
int ipttrace_rollback_init(void)
{
	rollback_queue = alloc_workqueue("ipttrace_rollback", WQ_UNBOUND, 0);
	return rollback_queue ? 0 : -ENOMEM;
}

/**
 * ipttrace_rollback_exit - destroy the queue of roll-backs; no link may be left
 */
void ipttrace_rollback_exit(void)
{
	destroy_workqueue(rollback_queue);
}
