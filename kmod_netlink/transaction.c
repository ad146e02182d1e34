// SPDX-License-Identifier: GPL-2.0
/*
 * Swaps: the program sets of one link or of several are replaced, all or none. A swap is for good,
 * or waits to be confirmed or rolled back (rollback.c).
 *
 * Everything that can fail comes before the first pointer is published. Then nothing can fail, and
 * one grace period serves the links at all kinds of hooks.
 */
#include <linux/slab.h>

#include "hook.h"
#include "label.h"
#include "owner.h"
#include "retire.h"
#include "shadow.h"
#include "transaction.h"

/**
 * ipttrace_publication_free - free what was prepared, or what was in force before
 * @publication: the publication; no packet sees its sets any more
 */
void ipttrace_publication_free(struct ipttrace_publication *publication)
{
	unsigned int i;

	for_each_set_bit(i, &publication->hooks, IPTTRACE_HOOKS)
		kfree(publication->sets[i]);
}

/**
 * ipttrace_publication_prepare - make ready to exchange the sets of links
 * @publication: filled in, for ipttrace_links_publish()
 * @changing: the links, by their change
 * @gfp: allocation flags; with __GFP_NOFAIL it cannot fail
 *
 * Return: 0 or -ENOMEM.
 */
int ipttrace_publication_prepare(struct ipttrace_publication *publication,
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
			ipttrace_publication_free(publication);
			return PTR_ERR(sets);
		}
		publication->sets[i] = sets;
	}
	return 0;
}

/**
 * ipttrace_links_publish - swap set and other of links
 * @changing: the links, by their change
 * @publication: what was prepared for them; afterwards, what was in force before
 *
 * When it returns, packets that come are handled by the sets; ipttrace_links_settle() or
 * ipttrace_retire() must follow.
 */
void ipttrace_links_publish(struct list_head *changing,
			    struct ipttrace_publication *publication)
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
	ipttrace_links_sequence++;
}

/**
 * ipttrace_links_settle - wait until no packet is handled by a set that is other now
 * @changing: the links, by their change, which have been published
 * @publication: what was in force before; used up
 * @expedited: interrupt every CPU, so that it takes less time; on real-time kernels it does not
 */
void ipttrace_links_settle(struct list_head *changing,
			   struct ipttrace_publication *publication,
			   bool expedited)
{
	struct ipttrace_link *link;

	if (expedited)
		synchronize_rcu_expedited();
	else
		synchronize_rcu();
	list_for_each_entry(link, changing, change) {
		/* a shadow was of the set before, or is the set now */
		RCU_INIT_POINTER(link->other->shadow, NULL);
		link->ended = link->other->generation;
	}
	ipttrace_publication_free(publication);
}

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
		return -EINPROGRESS;
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
 * @requester: who asks for it; NULL if the module does it by itself
 * @terms: whether it is for good at once; on success the links own the guards
 * @action: what it is in the history of the links
 *
 * Each packet is handled by one of a link's two sets from entry to exit, none by neither. When it
 * returns, no packet is handled by an old set any more, unless the terms are otherwise.
 *
 * Return: 0 or -ENOMEM; on error nothing has changed.
 */
int ipttrace_links_replace(struct list_head *changing,
			   const struct ipttrace_requester *requester,
			   const struct ipttrace_terms *terms,
			   enum ipttrace_action action)
{
	struct ipttrace_retirement *retirement = NULL;
	struct ipttrace_rollback *rollback = NULL;
	struct ipttrace_publication publication;
	struct ipttrace_link *link, *next;
	int err;

	lockdep_assert_held(&ipttrace_lock);
	/* the previous sets of a swap that waits may come back: they do not retire */
	if (terms->rollback_after || terms->guards) {
		rollback = ipttrace_rollback_alloc(terms, changing);
		if (IS_ERR(rollback))
			return PTR_ERR(rollback);
	} else if (terms->ack == IPTTRACE_SWAP_ACK_PUBLISHED) {
		retirement = ipttrace_retirement_alloc(changing);
		if (IS_ERR(retirement))
			return PTR_ERR(retirement);
	}
	err = ipttrace_publication_prepare(&publication, changing, GFP_KERNEL);
	if (err) {
		ipttrace_retirement_free(retirement);
		ipttrace_rollback_cancel(rollback, changing);
		return err;
	}
	ipttrace_links_publish(changing, &publication);
	if (retirement)
		ipttrace_retire(retirement, changing, &publication);
	else
		ipttrace_links_settle(changing, &publication,
				      terms->ack ==
					      IPTTRACE_SWAP_ACK_EXPEDITED);
	list_for_each_entry(link, changing, change) {
		link->transaction = ipttrace_links_sequence;
		link->outcome = rollback ? IPTTRACE_SWAP_OUTCOME_WAITING : 0;
		link->violation.link = 0;
		ipttrace_link_give_reason(link,
					  requester ? requester->reason : NULL);
		ipttrace_history_add(link, action);
	}
	if (rollback)
		ipttrace_rollback_arm(rollback, terms, changing);
	list_for_each_entry_safe(link, next, changing, change) {
		list_del_init(&link->change);
		ipttrace_set_free(link->other);
		link->other = NULL;
	}
	return 0;
}

/**
 * ipttrace_links_swap - replace the program sets of links, all or none
 * @changes: a change for each link; on success the links own the sets
 * @count: number of changes
 * @requester: who asks for it
 * @terms: whether it is for good at once; on success the links own the guards
 * @extack: extended ACK, set on error
 *
 * Return: 0, -ENOENT, -EINVAL, -EINPROGRESS, -EBUSY, -ESTALE, -ENOMEM, or an errno of takes of a
 * kind of hook; on error nothing has changed.
 */
int ipttrace_links_swap(struct ipttrace_change *changes, unsigned int count,
			const struct ipttrace_requester *requester,
			const struct ipttrace_terms *terms,
			struct netlink_ext_ack *extack)
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
	err = ipttrace_links_replace(&changing, requester, terms,
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
