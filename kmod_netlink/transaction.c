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
#include "shadow.h"
#include "transaction.h"

static void publication_free(struct ipttrace_publication *publication)
{
	unsigned int i;

	for_each_set_bit(i, &publication->hooks, IPTTRACE_HOOKS)
		kfree(publication->sets[i]);
}

/**
 * ipttrace_publication_prepare - make ready to exchange the sets of links
 * @publication: filled in, for ipttrace_links_exchange()
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
			publication_free(publication);
			return PTR_ERR(sets);
		}
		publication->sets[i] = sets;
	}
	return 0;
}

/**
 * ipttrace_links_exchange - swap set and other of links
 * @changing: the links, by their change
 * @publication: what was prepared for them; used up
 *
 * When it returns, no packet is handled by a set that is other now.
 */
void ipttrace_links_exchange(struct list_head *changing,
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
	synchronize_rcu();
	/* a shadow was of the set before, or is the set now */
	list_for_each_entry(link, changing, change)
		RCU_INIT_POINTER(link->other->shadow, NULL);
	publication_free(publication);
	ipttrace_links_sequence++;
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
 * returns, no packet is handled by an old set any more.
 *
 * Return: 0 or -ENOMEM; on error nothing has changed.
 */
int ipttrace_links_replace(struct list_head *changing,
			   const struct ipttrace_requester *requester,
			   const struct ipttrace_terms *terms,
			   enum ipttrace_action action)
{
	struct ipttrace_rollback *rollback = NULL;
	struct ipttrace_publication publication;
	struct ipttrace_link *link, *next;
	int err;

	lockdep_assert_held(&ipttrace_lock);
	if (terms->rollback_after || terms->guards) {
		rollback = ipttrace_rollback_alloc(terms, changing);
		if (IS_ERR(rollback))
			return PTR_ERR(rollback);
	}
	err = ipttrace_publication_prepare(&publication, changing, GFP_KERNEL);
	if (err) {
		ipttrace_rollback_cancel(rollback, changing);
		return err;
	}
	ipttrace_links_exchange(changing, &publication);
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
