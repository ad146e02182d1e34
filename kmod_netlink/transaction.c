// SPDX-License-Identifier: GPL-2.0
/*
 * Swaps: the program sets of one link or of several are replaced, all or none. A swap is for good,
 * or is rolled back unless it is confirmed in time.
 *
 * Everything that can fail comes before the first pointer is published. Then nothing can fail, and
 * one grace period serves the links at all kinds of hooks.
 */
#include <linux/jiffies.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "hook.h"
#include "label.h"
#include "message.h"
#include "owner.h"
#include "shadow.h"
#include "transaction.h"

/**
 * struct ipttrace_rollback - links that go back to their previous sets unless confirmed
 * @links: the links, by their change
 * @work: rolls them back, at @deadline
 * @deadline: end of the time to confirm, in jiffies
 *
 * Under ipttrace_lock. Its links point to it until they are rolled back, confirmed or detached.
 * Freed when the last link is taken away, or by @work if that has begun: it then waits for the lock
 * and finds no link. The queue is drained before the module is unloaded.
 */
struct ipttrace_rollback {
	struct list_head links;
	struct delayed_work work;
	unsigned long deadline;
};

static struct workqueue_struct *rollback_queue;

/**
 * struct publication - means to put the sets of changing links in force
 * @hooks: the kinds of hooks of these links, a bit each
 * @sets: by kind: the prepared sets; once published, those that were in force before
 *
 * On the stack of the function that makes the change.
 */
struct publication {
	unsigned long hooks;
	struct ipttrace_sets *sets[IPTTRACE_HOOKS];
};

static void publication_free(struct publication *publication)
{
	unsigned int i;

	for_each_set_bit(i, &publication->hooks, IPTTRACE_HOOKS)
		kfree(publication->sets[i]);
}

/*
 * Prepares a publication for changing links, which links_exchange() uses up. Returns 0 or -ENOMEM;
 * with __GFP_NOFAIL it cannot fail.
 */
static int publication_prepare(struct publication *publication,
			       const struct list_head *changing, gfp_t gfp)
{
	const struct ipttrace_link *link;
	struct ipttrace_sets *sets;
	unsigned int i;

	memset(publication, 0, sizeof(*publication));
	list_for_each_entry(link, changing, change)
		__set_bit(link->hook, &publication->hooks);
	for_each_set_bit(i, &publication->hooks, IPTTRACE_HOOKS) {
		if (!ipttrace_hooks[i]->prepare)
			continue;
		sets = ipttrace_hooks[i]->prepare(gfp);
		if (IS_ERR(sets)) {
			publication_free(publication);
			return PTR_ERR(sets);
		}
		publication->sets[i] = sets;
	}
	return 0;
}

/*
 * Swaps set and other of each link in @changing. When it returns, no packet is handled by a set
 * that is other now.
 */
static void links_exchange(struct list_head *changing,
			   struct publication *publication)
{
	struct ipttrace_sets **sets = publication->sets;
	struct ipttrace_link *link;
	unsigned int i;

	list_for_each_entry(link, changing, change) {
		link->other->link = link;
		link->other->generation = link->set->generation + 1;
		swap(link->set, link->other);
	}
	/* keep this short: meanwhile one hook is ahead of another */
	for_each_set_bit(i, &publication->hooks, IPTTRACE_HOOKS)
		sets[i] = ipttrace_hooks[i]->publish(sets[i], changing);
	synchronize_rcu();
	/* a shadow was of the set before, or is the set now */
	list_for_each_entry(link, changing, change)
		RCU_INIT_POINTER(link->other->shadow, NULL);
	publication_free(publication);
	ipttrace_links_sequence++;
}

static void other_free(struct ipttrace_link *link)
{
	ipttrace_set_free(link->other);
	link->other = NULL;
}

/* --- roll-back ----------------------------------------------------------------------------- */

static void rollback_work(struct work_struct *work)
{
	struct ipttrace_rollback *rollback = container_of(
		to_delayed_work(work), struct ipttrace_rollback, work);
	struct publication publication;
	struct ipttrace_link *link, *next;

	mutex_lock(&ipttrace_lock);
	if (list_empty(&rollback->links))
		goto out;
	list_for_each_entry(link, &rollback->links, change)
		link->rollback = NULL;
	/* must not fail: there is no request that an error could be returned to */
	publication_prepare(&publication, &rollback->links,
			    GFP_KERNEL | __GFP_NOFAIL);
	links_exchange(&rollback->links, &publication);
	list_for_each_entry_safe(link, next, &rollback->links, change) {
		list_del_init(&link->change);
		other_free(link);
		ipttrace_link_give_reason(link, NULL);
		ipttrace_history_add(link, IPTTRACE_ACTION_ROLLBACK);
		ipttrace_notify(link, IPTTRACE_CMD_LINK_SWAPPED, 0, false);
	}
out:
	mutex_unlock(&ipttrace_lock);
	kfree(rollback);
}

static struct ipttrace_rollback *rollback_alloc(void)
{
	struct ipttrace_rollback *rollback =
		kzalloc(sizeof(*rollback), GFP_KERNEL);

	if (!rollback)
		return NULL;
	INIT_LIST_HEAD(&rollback->links);
	INIT_DELAYED_WORK(&rollback->work, rollback_work);
	return rollback;
}

/* Has the links in @changing, which have been exchanged, wait from now on. */
static void rollback_arm(struct ipttrace_rollback *rollback,
			 struct list_head *changing, u32 milliseconds)
{
	unsigned long delay = msecs_to_jiffies(milliseconds);
	struct ipttrace_link *link;

	list_splice_init(changing, &rollback->links);
	list_for_each_entry(link, &rollback->links, change)
		link->rollback = rollback;
	rollback->deadline = jiffies + delay;
	queue_delayed_work(rollback_queue, &rollback->work, delay);
}

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
	list_del_init(&link->change);
	other_free(link);
	/* work that could not be cancelled has begun: it waits for the lock, and frees itself */
	if (list_empty(&rollback->links) &&
	    cancel_delayed_work(&rollback->work))
		kfree(rollback);
}

/**
 * ipttrace_rollback_confirm - keep the sets of all links that were swapped together
 * @link: one of them
 * @attr: attribute to blame in @extack
 * @extack: extended ACK, set on error
 *
 * Return: 0 or -ENODATA.
 */
int ipttrace_rollback_confirm(struct ipttrace_link *link,
			      const struct nlattr *attr,
			      struct netlink_ext_ack *extack)
{
	struct ipttrace_link *other, *next;
	LIST_HEAD(confirmed);

	lockdep_assert_held(&ipttrace_lock);
	if (!link->rollback) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the link waits for no confirmation: nothing was swapped for a time, or it was confirmed or rolled back");
		return -ENODATA;
	}
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
		ipttrace_notify(other, IPTTRACE_CMD_LINK_CHANGED, 0, false);
	}
	return 0;
}

/**
 * ipttrace_rollback_in - time until a link is rolled back
 * @link: a link that waits for it
 *
 * Return: milliseconds.
 */
u32 ipttrace_rollback_in(const struct ipttrace_link *link)
{
	long left = link->rollback->deadline - jiffies;

	lockdep_assert_held(&ipttrace_lock);
	return left > 0 ? jiffies_to_msecs(left) : 0;
}

/* --- swapping ------------------------------------------------------------------------------ */

static int change_check(struct ipttrace_change *change,
			const struct ipttrace_requester *requester,
			struct netlink_ext_ack *extack)
{
	struct ipttrace_link *link;
	int err;

	link = ipttrace_link_find(&change->ref, extack);
	if (IS_ERR(link))
		return PTR_ERR(link);
	if (ipttrace_link_changing(link)) {
		NL_SET_ERR_MSG_ATTR(extack, change->ref.attr,
				    "the link is in the transaction twice");
		return -EINVAL;
	}
	if (link->rollback) {
		NL_SET_ERR_MSG_ATTR(
			extack, change->ref.attr,
			"the last swap of the link waits to be confirmed or rolled back");
		return -EBUSY;
	}
	if (link->shadow) {
		NL_SET_ERR_MSG_ATTR(
			extack, change->ref.attr,
			"the link has a shadow: promote it or drop it before another swap");
		return -EBUSY;
	}
	err = ipttrace_link_permit(link, requester, &change->forced,
				   change->ref.attr, extack);
	if (!err)
		err = ipttrace_hooks[link->hook]->takes(link->family,
							change->set,
							change->programs_attr,
							extack);
	if (!err)
		err = ipttrace_shadow_check_maps(change->set,
						 change->programs_attr, extack);
	if (!err)
		err = ipttrace_link_check(link, &change->expect, extack);
	if (!err)
		change->link = link;
	return err;
}

/**
 * ipttrace_links_replace - put the other sets of links in force
 * @changing: links by their change, whose other is the next set; empty on success
 * @requester: who asks for it
 * @rollback_after: milliseconds until the previous sets are put back unless confirmed, or 0
 * @action: what it is in the history of the links
 *
 * Each packet is handled by one of a link's two sets from entry to exit, none by neither. When it
 * returns, no packet is handled by an old set any more.
 *
 * Return: 0 or -ENOMEM; on error nothing has changed.
 */
int ipttrace_links_replace(struct list_head *changing,
			   const struct ipttrace_requester *requester,
			   u32 rollback_after, enum ipttrace_action action)
{
	struct ipttrace_rollback *rollback = NULL;
	struct publication publication;
	struct ipttrace_link *link, *next;
	int err;

	lockdep_assert_held(&ipttrace_lock);
	if (rollback_after) {
		rollback = rollback_alloc();
		if (!rollback)
			return -ENOMEM;
	}
	err = publication_prepare(&publication, changing, GFP_KERNEL);
	if (err) {
		kfree(rollback);
		return err;
	}
	links_exchange(changing, &publication);
	list_for_each_entry(link, changing, change) {
		link->transaction = ipttrace_links_sequence;
		ipttrace_link_give_reason(link, requester->reason);
		ipttrace_history_add(link, action);
	}
	if (rollback)
		rollback_arm(rollback, changing, rollback_after);
	list_for_each_entry_safe(link, next, changing, change) {
		list_del_init(&link->change);
		other_free(link);
	}
	return 0;
}

/**
 * ipttrace_links_swap - replace the program sets of links, all or none
 * @changes: a change for each link; on success the links own the sets
 * @count: number of changes
 * @requester: who asks for it
 * @rollback_after: milliseconds until the previous sets are put back unless confirmed, or 0
 * @extack: extended ACK, set on error
 *
 * Return: 0, -ENOENT, -EINVAL, -EBUSY, -ESTALE, -ENOMEM, or an errno of takes of a kind of hook; on
 * error nothing has changed.
 */
int ipttrace_links_swap(struct ipttrace_change *changes, unsigned int count,
			const struct ipttrace_requester *requester,
			u32 rollback_after, struct netlink_ext_ack *extack)
{
	struct ipttrace_link *link, *next;
	LIST_HEAD(changing);
	unsigned int i;
	int err;

	lockdep_assert_held(&ipttrace_lock);
	for (i = 0; i < count; i++) {
		err = change_check(&changes[i], requester, extack);
		if (err)
			goto err_undo;
		link = changes[i].link;
		link->other = changes[i].set;
		if (!changes[i].labelled)
			link->other->labels =
				ipttrace_labels_get(link->set->labels);
		list_add_tail(&link->change, &changing);
	}
	err = ipttrace_links_replace(&changing, requester, rollback_after,
				     IPTTRACE_ACTION_SWAP);
	if (err)
		goto err_undo;
	return 0;

err_undo:
	list_for_each_entry_safe(link, next, &changing, change) {
		list_del_init(&link->change);
		link->other = NULL;
	}
	return err;
}

/**
 * ipttrace_transaction_init - make the queue of roll-backs
 *
 * Return: 0 or -ENOMEM.
 */
int ipttrace_transaction_init(void)
{
	rollback_queue = alloc_workqueue("ipttrace_rollback", WQ_UNBOUND, 0);
	return rollback_queue ? 0 : -ENOMEM;
}

/**
 * ipttrace_transaction_exit - destroy the queue of roll-backs; no link may be left
 */
void ipttrace_transaction_exit(void)
{
	destroy_workqueue(rollback_queue);
}
