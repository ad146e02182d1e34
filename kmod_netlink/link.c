// SPDX-License-Identifier: GPL-2.0
/*
 * Links: made, swapped and removed under one mutex, published to packets as one RCU pointer.
 */
#include <linux/module.h>
#include <linux/slab.h>

#include "link.h"
#include "table.h"
#include "traverse.h"

/* what it serialises: link.h */
DEFINE_MUTEX(ipttrace_lock);
LIST_HEAD(ipttrace_links);
unsigned int ipttrace_links_sequence;

static u32 last_id;

/**
 * ipttrace_link_find - the link of an id
 * @id: the id
 *
 * Return: the link, valid while ipttrace_lock is held, or NULL.
 */
struct ipttrace_link *ipttrace_link_find(u32 id)
{
	struct ipttrace_link *link;

	lockdep_assert_held(&ipttrace_lock);
	list_for_each_entry(link, &ipttrace_links, list)
		if (link->id == id)
			return link;
	return NULL;
}

/*
 * Publishes the links as they are now and waits until no packet is handled as they were before.
 * Fails only with -ENOMEM, and never if @gfp says so.
 */
static int links_publish(gfp_t gfp)
{
	struct ipttrace_sets *sets = NULL;
	struct ipttrace_link *link;
	unsigned int count = 0;

	lockdep_assert_held(&ipttrace_lock);
	list_for_each_entry(link, &ipttrace_links, list)
		count++;
	if (count) {
		sets = kmalloc(struct_size(sets, set, count), gfp);
		if (!sets)
			return -ENOMEM;
		sets->count = count;
		count = 0;
		list_for_each_entry(link, &ipttrace_links, list)
			sets->set[count++] = link->set;
	}
	ipttrace_traverse_publish(sets);
	ipttrace_links_sequence++;
	return 0;
}

/**
 * ipttrace_link_attach - make a link
 * @spec: what was asked for
 * @set: its program set; becomes the link's on success
 * @extack: told why not
 *
 * When it returns, every packet that reaches the hook is handled by the set, as far as the table
 * code is loaded.
 *
 * Return: the link, valid while ipttrace_lock is held, or an ERR_PTR(): -ENOSPC, -ENOMEM, -ENODEV,
 * or what ipttrace_table_arm() returns.
 */
struct ipttrace_link *
ipttrace_link_attach(const struct ipttrace_link_spec *spec,
		     struct ipttrace_set *set, struct netlink_ext_ack *extack)
{
	struct ipttrace_link *link;
	int err;

	lockdep_assert_held(&ipttrace_lock);
	if (list_count_nodes(&ipttrace_links) >= IPTTRACE_MAX_LINKS) {
		NL_SET_ERR_MSG(extack,
			       "there are as many links as one hook takes");
		return ERR_PTR(-ENOSPC);
	}
	link = kzalloc(sizeof(*link), GFP_KERNEL);
	if (!link)
		return ERR_PTR(-ENOMEM);
	link->stats = alloc_percpu(struct ipttrace_link_stats);
	if (!link->stats) {
		err = -ENOMEM;
		goto err_free;
	}
	/* the family is still registered when the module has begun to go */
	if (!try_module_get(THIS_MODULE)) {
		NL_SET_ERR_MSG(extack, "the module is being unloaded");
		err = -ENODEV;
		goto err_free;
	}
	link->hook = spec->hook;
	link->family = spec->family;
	link->flags = spec->flags;
	link->owner_portid =
		spec->flags & IPTTRACE_LINK_FLAG_PERSISTENT ? 0 : spec->portid;
	link->owner_pid = task_tgid_nr(current);
	get_task_comm(link->owner_comm, current);

	err = ipttrace_table_arm(extack);
	if (err)
		goto err_put;

	link->id = last_id + 1;
	link->set = set;
	set->link = link;
	set->generation = 1;
	list_add_tail(&link->list, &ipttrace_links);
	err = links_publish(GFP_KERNEL);
	if (err)
		goto err_unlist;
	last_id++;
	return link;

err_unlist:
	list_del(&link->list);
	if (list_empty(&ipttrace_links))
		ipttrace_table_disarm();
err_put:
	module_put(THIS_MODULE);
err_free:
	free_percpu(link->stats);
	kfree(link);
	return ERR_PTR(err);
}

/**
 * ipttrace_link_check - hold a link against what somebody takes for granted about it
 * @link: the link
 * @expect: the expectation
 * @extack: told what is otherwise
 *
 * Return: 0 or -ESTALE.
 */
int ipttrace_link_check(const struct ipttrace_link *link,
			const struct ipttrace_expectation *expect,
			struct netlink_ext_ack *extack)
{
	const struct ipttrace_set *set = link->set;
	unsigned int slot;

	lockdep_assert_held(&ipttrace_lock);
	if (expect->generation && expect->generation != set->generation) {
		NL_SET_ERR_MSG(
			extack,
			"the link is of another generation than expected");
		return -ESTALE;
	}
	for_each_set_bit(slot, &expect->slots, IPTTRACE_SLOTS) {
		u32 id = set->progs[slot] ? set->progs[slot]->aux->id : 0;

		if (expect->prog_id[slot] != id) {
			NL_SET_ERR_MSG(
				extack,
				"a slot holds another program than expected");
			return -ESTALE;
		}
	}
	return 0;
}

/**
 * ipttrace_link_swap - replace a link's program set in one step
 * @link: the link
 * @set: its next program set; becomes the link's on success
 * @expect: what must hold for the link as it is
 * @extack: told why not
 *
 * Each packet is handled by one of the two sets from entry to exit, none by neither. When it
 * returns, no packet is handled by the old set any more.
 *
 * Return: 0, -ESTALE or -ENOMEM; then nothing has changed.
 */
int ipttrace_link_swap(struct ipttrace_link *link, struct ipttrace_set *set,
		       const struct ipttrace_expectation *expect,
		       struct netlink_ext_ack *extack)
{
	struct ipttrace_set *old = link->set;
	int err;

	lockdep_assert_held(&ipttrace_lock);
	err = ipttrace_link_check(link, expect, extack);
	if (err)
		return err;
	set->link = link;
	set->generation = old->generation + 1;
	link->set = set;
	err = links_publish(GFP_KERNEL);
	if (err) {
		link->set = old;
		return err;
	}
	ipttrace_set_free(old);
	return 0;
}

/**
 * ipttrace_links_detach - take links from their hooks, in one step
 * @leaving: the links, which the caller moved here from ipttrace_links; it frees them afterwards
 *	with ipttrace_link_free()
 *
 * Cannot fail: the owner may be gone.
 */
void ipttrace_links_detach(struct list_head *leaving)
{
	lockdep_assert_held(&ipttrace_lock);
	if (list_empty(leaving))
		return;
	links_publish(GFP_KERNEL | __GFP_NOFAIL);
	if (list_empty(&ipttrace_links))
		ipttrace_table_disarm();
}

/**
 * ipttrace_link_free - free a link that was detached, and its program set
 * @link: the link, on no list
 */
void ipttrace_link_free(struct ipttrace_link *link)
{
	ipttrace_set_free(link->set);
	free_percpu(link->stats);
	kfree(link);
	module_put(THIS_MODULE);
}

/**
 * ipttrace_link_sum - the counters of a link, summed over the CPUs
 * @link: the link
 */
struct ipttrace_link_stats ipttrace_link_sum(const struct ipttrace_link *link)
{
	struct ipttrace_link_stats sum = {};
	int cpu;

	for_each_possible_cpu(cpu) {
		const struct ipttrace_link_stats *stats =
			per_cpu_ptr(link->stats, cpu);

		sum.packets += READ_ONCE(stats->packets);
		sum.selected += READ_ONCE(stats->selected);
		sum.events += READ_ONCE(stats->events);
		sum.nested += READ_ONCE(stats->nested);
	}
	return sum;
}
