// SPDX-License-Identifier: GPL-2.0
/*
 * Links: attached and detached under one mutex, at every kind of hook (hook.h).
 *
 * Locks, outer to inner: rtnl_mutex (attaching to a device, and the notifier of devices),
 * pernet_ops_rwsem (a namespace comes or goes), or an arming lock (table.c, chain.c, spine.c,
 * journey.c); that of nat.c, or of placeholders.c, under which ipttrace_lock is never taken;
 * ipttrace_lock; ipttrace_links_index, netfilter's nf_hook_mutex, and the used_maps_mutex of a BPF
 * program. ipttrace_lock is held for no longer than an RCU grace period takes, and by a
 * notifier only if something of its own has a link.
 */
#include <linux/module.h>
#include <linux/slab.h>
#include <net/netlink.h>

#include "compat/netlink.h"
#include "hook.h"
#include "journey.h"
#include "label.h"
#include "limits.h"
#include "link.h"
#include "owner.h"
#include "restore.h"
#include "rollback.h"
#include "shadow.h"

/* described in link.h */
DEFINE_MUTEX(ipttrace_lock);
LIST_HEAD(ipttrace_links);
DEFINE_SPINLOCK(ipttrace_links_index);
u64 ipttrace_links_sequence;
u32 ipttrace_last_link;

/* Links by their index, under ipttrace_links_index. */
static LIST_HEAD(links_index);

/* The link of a name, or NULL. The policy has checked that the name ends with a NUL. */
static struct ipttrace_link *find_by_name(const struct nlattr *name)
{
	struct ipttrace_link *link;

	list_for_each_entry(link, &ipttrace_links, list)
		if (link->name[0] && !strcmp(link->name, nla_data(name)))
			return link;
	return NULL;
}

static struct ipttrace_link *find_by_id(u32 id)
{
	struct ipttrace_link *link;

	list_for_each_entry(link, &ipttrace_links, list)
		if (link->id == id)
			return link;
	return NULL;
}

/**
 * ipttrace_link_find - the link that a request is about
 * @ref: its id or name
 * @extack: extended ACK, set on error
 *
 * Return: the link, valid while ipttrace_lock is held, or ERR_PTR(-ENOENT).
 */
struct ipttrace_link *ipttrace_link_find(const struct ipttrace_link_ref *ref,
					 struct netlink_ext_ack *extack)
{
	struct ipttrace_link *link;

	lockdep_assert_held(&ipttrace_lock);
	link = ref->by_name ? find_by_name(ref->attr) :
			      find_by_id(nla_get_u32(ref->attr));
	if (link)
		return link;
	NL_SET_ERR_MSG_ATTR(extack, ref->attr, "there is no such link");
	return ERR_PTR(-ENOENT);
}

/* Checks that no link has a name, except for @link, which may be NULL. Returns 0 or -EEXIST. */
static int check_free(const struct nlattr *name,
		      const struct ipttrace_link *link,
		      struct netlink_ext_ack *extack)
{
	const struct ipttrace_link *other = find_by_name(name);

	if (!other || other == link)
		return 0;
	IPTTRACE_SET_ERR_MSG_ATTR(extack, name, "another link has this name",
				  "link %u has this name", other->id);
	return -EEXIST;
}

/**
 * ipttrace_link_rename - give a link a name in place of the one that it has
 * @link: the link
 * @attr: the name, of the right spelling
 * @extack: extended ACK, set on error
 *
 * Return: 0, -EEXIST or -EBUSY.
 */
int ipttrace_link_rename(struct ipttrace_link *link, const struct nlattr *attr,
			 struct netlink_ext_ack *extack)
{
	int err;

	lockdep_assert_held(&ipttrace_lock);
	err = check_free(attr, link, extack);
	if (!err)
		err = ipttrace_restore_check_name(attr, extack);
	if (err)
		return err;
	nla_strscpy(link->name, attr, sizeof(link->name));
	ipttrace_links_sequence++;
	return 0;
}

/**
 * ipttrace_link_give_reason - note the reason for the change of a link that is being made
 * @link: the link
 * @attr: the reason; NULL if none was given
 */
void ipttrace_link_give_reason(struct ipttrace_link *link,
			       const struct nlattr *attr)
{
	lockdep_assert_held(&ipttrace_lock);
	if (attr)
		nla_strscpy(link->reason, attr, sizeof(link->reason));
	else
		link->reason[0] = '\0';
}

/**
 * ipttrace_links_any - check whether any link is concerned, without waiting for ipttrace_lock
 * @concerned: tells whether a link is; reads only its hook and data under ipttrace_links_index
 * @what: argument of @concerned
 *
 * A link that is leaving counts until it is off its hook; a notifier that then takes ipttrace_lock
 * waits for that. The answer holds until the caller returns if no link that is concerned can be
 * made meanwhile.
 */
bool ipttrace_links_any(bool (*concerned)(const struct ipttrace_link *link,
					  const void *what),
			const void *what)
{
	struct ipttrace_link *link;
	bool any = false;

	spin_lock(&ipttrace_links_index);
	list_for_each_entry(link, &links_index, index) {
		any = concerned(link, what);
		if (any)
			break;
	}
	spin_unlock(&ipttrace_links_index);
	return any;
}

/**
 * ipttrace_links_count - count the links at a kind of hook
 * @hook: enum ipttrace_hook
 */
unsigned int ipttrace_links_count(u32 hook)
{
	const struct ipttrace_link *link;
	unsigned int count = 0;

	lockdep_assert_held(&ipttrace_lock);
	list_for_each_entry(link, &ipttrace_links, list)
		if (link->hook == hook)
			count++;
	return count;
}

/**
 * ipttrace_links_sets - collect the program sets of all links at a kind of hook
 * @hook: enum ipttrace_hook
 * @gfp: allocation flags; with __GFP_NOFAIL it cannot fail
 *
 * The next set of a link that is changing is taken. All the sets can be published as one pointer,
 * however many links there are.
 *
 * Return: the sets, which the caller owns and frees with kfree(), NULL if there are no links, or
 * ERR_PTR(-ENOMEM).
 */
struct ipttrace_sets *ipttrace_links_sets(u32 hook, gfp_t gfp)
{
	unsigned int count = ipttrace_links_count(hook);
	struct ipttrace_link *link;
	struct ipttrace_sets *sets;
	unsigned int i = 0;

	if (!count)
		return NULL;
	sets = kmalloc(struct_size(sets, set, count), gfp);
	if (!sets)
		return ERR_PTR(-ENOMEM);
	sets->count = count;
	list_for_each_entry(link, &ipttrace_links, list)
		if (link->hook == hook)
			sets->set[i++] = ipttrace_link_changing(link) ?
						 link->other :
						 link->set;
	return sets;
}

/* Lists a link in the order of ids: a restored one comes behind its successors. */
static void list_link(struct ipttrace_link *link)
{
	struct ipttrace_link *later;

	list_for_each_entry(later, &ipttrace_links, list)
		if (later->id > link->id)
			break;
	list_add_tail(&link->list, &later->list);
}

/* Checks that no link has the id of one that is to be restored. Returns 0 or -EEXIST. */
static int check_id(const struct ipttrace_restored *restored,
		    struct netlink_ext_ack *extack)
{
	if (!find_by_id(restored->id))
		return 0;
	NL_SET_ERR_MSG_ATTR(extack, restored->attr,
			    "there is a link with this id");
	return -EEXIST;
}

/* Makes a link with its set and owner, at no hook and on no list yet. */
static struct ipttrace_link *link_alloc(const struct ipttrace_link_spec *spec,
					struct ipttrace_set *set,
					struct netlink_ext_ack *extack)
{
	struct ipttrace_link *link;
	int err = -ENOMEM;

	link = kzalloc(sizeof(*link), GFP_KERNEL);
	if (!link)
		return ERR_PTR(-ENOMEM);
	link->stats = alloc_percpu(struct ipttrace_link_stats);
	if (!link->stats)
		goto err_free;
	/* the family is still registered when the module has begun to go */
	if (!try_module_get(THIS_MODULE)) {
		NL_SET_ERR_MSG(extack, "the module is being unloaded");
		err = -ENODEV;
		goto err_free;
	}
	INIT_LIST_HEAD(&link->change);
	ipttrace_limits_begin_link(link);
	link->id = ipttrace_last_link + 1;
	link->hook = spec->hook;
	link->family = spec->family;
	link->flags = spec->flags;
	if (spec->name)
		nla_strscpy(link->name, spec->name, sizeof(link->name));
	link->count_rules = spec->flags & IPTTRACE_LINK_FLAG_COUNT_RULES;
	ipttrace_link_own(link, spec->flags & IPTTRACE_LINK_FLAG_PERSISTENT ?
					0 :
					spec->portid);
	link->set = set;
	set->link = link;
	set->generation = 1;
	if (spec->restored)
		ipttrace_restore_link(link, spec->restored);
	return link;

err_free:
	free_percpu(link->stats);
	kfree(link);
	return ERR_PTR(err);
}

/**
 * ipttrace_link_attach - make a link and attach it to its hook
 * @spec: the parsed request
 * @set: its program set; becomes the link's on success
 * @extack: extended ACK, set on error
 *
 * When it returns, every packet that reaches the hook is handled by the set, as far as the kernel's
 * code for it is loaded.
 *
 * Context: between begin and end of the kind of hook, with ipttrace_lock held.
 * Return: the link, valid while ipttrace_lock is held, or an ERR_PTR(): -EEXIST, -EBUSY, -EINVAL,
 * -ENOSPC, -ENOMEM, -ENODEV, or an errno of takes or attach of the kind of hook.
 */
struct ipttrace_link *
ipttrace_link_attach(const struct ipttrace_link_spec *spec,
		     struct ipttrace_set *set, struct netlink_ext_ack *extack)
{
	const struct ipttrace_hook_ops *hook = ipttrace_hooks[spec->hook];
	struct ipttrace_link *link;
	int err;

	lockdep_assert_held(&ipttrace_lock);
	err = hook->takes(spec->family, set, spec->programs, extack);
	if (!err)
		err = ipttrace_shadow_check_maps(set, spec->programs, extack);
	if (!err)
		err = ipttrace_restore_check(spec, extack);
	if (!err && spec->restored)
		err = check_id(spec->restored, extack);
	if (!err && spec->name)
		err = check_free(spec->name, NULL, extack);
	if (err)
		return ERR_PTR(err);
	if (ipttrace_links_count(spec->hook) >= IPTTRACE_MAX_LINKS) {
		NL_SET_ERR_MSG(extack,
			       "there are as many links as one hook takes");
		return ERR_PTR(-ENOSPC);
	}
	link = link_alloc(spec, set, extack);
	if (IS_ERR(link))
		return link;

	err = spec->journey ?
		      ipttrace_journey_join(link, spec->journey, extack) :
		      0;
	if (err)
		goto err_free;
	list_link(link);
	spin_lock(&ipttrace_links_index);
	list_add_tail(&link->index, &links_index);
	spin_unlock(&ipttrace_links_index);
	err = hook->attach(link, spec, extack);
	if (err)
		goto err_unlist;
	link->transaction = ++ipttrace_links_sequence;
	ipttrace_link_give_reason(link, spec->reason);
	if (spec->restored) {
		link->transaction = spec->restored->transaction;
		return link;
	}
	ipttrace_last_link++;
	ipttrace_history_add(link, IPTTRACE_ACTION_ATTACH);
	return link;

err_unlist:
	list_del(&link->list);
	spin_lock(&ipttrace_links_index);
	list_del(&link->index);
	spin_unlock(&ipttrace_links_index);
	/* packets may have met it at one of its hooks, before another one failed */
	ipttrace_limits_forget_link(link);
err_free:
	/* the set stays the caller's */
	link->set = NULL;
	ipttrace_link_free(link);
	return ERR_PTR(err);
}

/**
 * ipttrace_link_check - compare a link with the expectation of a request
 * @link: the link
 * @expect: the expectation
 * @extack: extended ACK, set on error
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
		NL_SET_ERR_MSG_ATTR(
			extack, expect->generation_attr,
			"the link is of another generation than expected");
		return -ESTALE;
	}
	for_each_set_bit(slot, &expect->slots, IPTTRACE_SLOTS) {
		u32 id = set->progs[slot] ? set->progs[slot]->aux->id : 0;

		if (expect->prog_id[slot] != id) {
			NL_SET_ERR_MSG_ATTR(
				extack, expect->program_attr[slot],
				"a slot holds another program than expected");
			return -ESTALE;
		}
	}
	return 0;
}

/**
 * ipttrace_link_leave - take a link from the list of links
 * @link: the link
 * @leaving: list that it is appended to, for ipttrace_links_detach()
 */
void ipttrace_link_leave(struct ipttrace_link *link, struct list_head *leaving)
{
	lockdep_assert_held(&ipttrace_lock);
	list_move_tail(&link->list, leaving);
}

/**
 * ipttrace_links_detach - take links from their hooks, in one step
 * @leaving: the links, from ipttrace_link_leave(); the caller frees them afterwards with
 *	ipttrace_link_free()
 *
 * Cannot fail, since the owner may be gone. When it returns, no packet is handled by the links.
 */
void ipttrace_links_detach(struct list_head *leaving)
{
	struct ipttrace_sets *old[IPTTRACE_HOOKS];
	struct ipttrace_link *link;
	unsigned long hooks = 0;
	unsigned int i;

	lockdep_assert_held(&ipttrace_lock);
	if (list_empty(leaving))
		return;
	list_for_each_entry(link, leaving, list) {
		ipttrace_rollback_leave(link);
		ipttrace_shadow_leave(link);
		__set_bit(link->hook, &hooks);
	}
	for_each_set_bit(i, &hooks, IPTTRACE_HOOKS)
		old[i] = ipttrace_hooks[i]->detach(leaving);
	spin_lock(&ipttrace_links_index);
	list_for_each_entry(link, leaving, list)
		list_del(&link->index);
	spin_unlock(&ipttrace_links_index);
	synchronize_rcu();
	list_for_each_entry(link, leaving, list)
		ipttrace_limits_end_link(link);
	for_each_set_bit(i, &hooks, IPTTRACE_HOOKS) {
		kfree(old[i]);
		if (ipttrace_hooks[i]->release)
			ipttrace_hooks[i]->release();
	}
	ipttrace_links_sequence++;
}

/**
 * ipttrace_link_free - free a link that was detached, its program set and its shadow
 * @link: the link, on no list
 */
void ipttrace_link_free(struct ipttrace_link *link)
{
	ipttrace_shadow_free(link);
	ipttrace_set_free(link->set);
	free_percpu(link->stats);
	kfree(link->place);
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
	unsigned int slot, limit;
	int cpu;

	for_each_possible_cpu(cpu) {
		const struct ipttrace_link_stats *stats =
			per_cpu_ptr(link->stats, cpu);

		sum.packets += READ_ONCE(stats->packets);
		sum.selected += READ_ONCE(stats->selected);
		sum.events += READ_ONCE(stats->events);
		sum.nested += READ_ONCE(stats->nested);
		sum.lost += READ_ONCE(stats->lost);
		sum.drops += READ_ONCE(stats->drops);
		for (limit = 0; limit < IPTTRACE_LIMITS; limit++)
			sum.left_out[limit] +=
				READ_ONCE(stats->left_out[limit]);
		for (slot = 0; slot < IPTTRACE_SLOTS; slot++) {
			sum.slots[slot].runs +=
				READ_ONCE(stats->slots[slot].runs);
			sum.slots[slot].run_time +=
				READ_ONCE(stats->slots[slot].run_time);
		}
		sum.shadow.agreed += READ_ONCE(stats->shadow.agreed);
		sum.shadow.disagreed += READ_ONCE(stats->shadow.disagreed);
		sum.shadow.program.runs +=
			READ_ONCE(stats->shadow.program.runs);
		sum.shadow.program.run_time +=
			READ_ONCE(stats->shadow.program.run_time);
	}
	return sum;
}

/**
 * ipttrace_link_slots - the slots whose counters a link has
 * @link: the link
 * @stats: its counters
 *
 * A slot that was in use once keeps them.
 *
 * Return: a bit for each slot.
 */
unsigned long ipttrace_link_slots(const struct ipttrace_link *link,
				  const struct ipttrace_link_stats *stats)
{
	unsigned long slots = 0;
	unsigned int slot;

	for (slot = 1; slot < IPTTRACE_SLOTS; slot++)
		if (link->set->progs[slot] || stats->slots[slot].runs)
			__set_bit(slot, &slots);
	return slots;
}
