// SPDX-License-Identifier: GPL-2.0
/*
 * Shadows: a program set runs beside that of a link, and its verdict is compared, not used.
 *
 * A shadow has no effect but the comparison. Its program is a socket filter, which the verifier
 * lets read the packet and write to its control block, which is restored. What else it may change
 * are maps, and these are its own: no map that a shadow may write is used by any other set of the
 * module. That is checked when a shadow comes, and whenever another set does, so that a shadow can
 * always be promoted. Programs that others run elsewhere are not known here.
 *
 * A link with a shadow gets another set by promotion only, so its set and its shadow are a pair:
 * packets find the shadow in the set. A link that waits for a roll-back has no shadow.
 */
#include <linux/slab.h>
#include <net/netlink.h>

#include "compat/bpf.h"
#include "compat/netlink.h"
#include "hook.h"
#include "label.h"
#include "owner.h"
#include "promotion.h"
#include "retire.h"
#include "shadow.h"

/* --- programs ------------------------------------------------------------------------------ */

/* The program calls a function that a module offers to programs: nobody knows what it does. */
static bool calls_module(const struct bpf_prog *prog)
{
	u32 i;

	/* they stay as they were verified, those of all functions one after the other */
	for (i = 0; i < prog->len; i++) {
		const struct bpf_insn *insn = &prog->insnsi[i];

		/* the functions of the kernel itself have no offset */
		if (insn->code == (BPF_JMP | BPF_CALL) &&
		    insn->src_reg == BPF_PSEUDO_KFUNC_CALL && insn->off)
			return true;
	}
	return false;
}

/* Refuses what would run with the program and is not checked, as its maps are not. */
static int check_program(const struct bpf_prog *prog, const struct nlattr *attr,
			 struct netlink_ext_ack *extack)
{
	if (ipttrace_program_hides_maps(prog)) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"a shadow has no map of maps and no extension: what it may write there cannot be checked");
		return -EOPNOTSUPP;
	}
	if (calls_module(prog)) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"a shadow calls no function of a module: what that does cannot be checked");
		return -EOPNOTSUPP;
	}
	return 0;
}

/* --- maps ---------------------------------------------------------------------------------- */

/* True if a program that uses the map leaves nothing there for others to find. */
static bool is_read_only(const struct bpf_map *map)
{
	/* maps of these types evict by what was looked up */
	if (map->map_type == BPF_MAP_TYPE_LRU_HASH ||
	    map->map_type == BPF_MAP_TYPE_LRU_PERCPU_HASH)
		return false;
	return map->map_flags & BPF_F_RDONLY_PROG;
}

/* How the maps of a shadow and those of another set concern each other. */
enum concern {
	APART,
	/* the other set uses a map that the shadow may write */
	SHARED,
	/* it may use any map */
	HIDDEN,
};

static enum concern maps_concern(const struct ipttrace_set *shadow,
				 const struct ipttrace_set *set, u32 *map_id)
{
	const struct bpf_prog *writer = shadow->progs[IPTTRACE_SLOT_PACKET];
	const struct bpf_map *map;
	unsigned int slot;
	u32 i;

	for (i = 0; (map = ipttrace_program_map(writer, i)); i++) {
		if (is_read_only(map))
			continue;
		*map_id = map->id;
		for_each_set_bit(slot, &set->slots, IPTTRACE_SLOTS) {
			if (ipttrace_program_uses(set->progs[slot], map))
				return SHARED;
			if (ipttrace_program_hides_maps(set->progs[slot]))
				return HIDDEN;
		}
	}
	return APART;
}

/**
 * ipttrace_shadow_check_maps - check that no shadow may write to the maps of a set
 * @set: a set that is not published, nor a shadow
 * @attr: attribute to blame in @extack
 * @extack: extended ACK, set on error
 *
 * Return: 0 or -EBUSY.
 */
int ipttrace_shadow_check_maps(const struct ipttrace_set *set,
			       const struct nlattr *attr,
			       struct netlink_ext_ack *extack)
{
	struct ipttrace_link *link;
	u32 map;

	lockdep_assert_held(&ipttrace_lock);
	list_for_each_entry(link, &ipttrace_links, list) {
		if (!link->shadow)
			continue;
		switch (maps_concern(link->shadow->set, set, &map)) {
		case SHARED:
			IPTTRACE_SET_ERR_MSG_ATTR(
				extack, attr,
				"the shadow of a link may write to a map of the programs",
				"the shadow of link %u may write to map %u of the programs",
				link->id, map);
			return -EBUSY;
		case HIDDEN:
			IPTTRACE_SET_ERR_MSG_ATTR(
				extack, attr,
				"the programs may reach maps of a link's shadow (map of maps, extension)",
				"the programs may reach maps of link %u's shadow (map of maps, extension)",
				link->id);
			return -EBUSY;
		case APART:
			break;
		}
	}
	return 0;
}

/* Checks that no set of a link uses a map that a new shadow may write. Returns 0 or -EBUSY. */
static int check_own_maps(const struct ipttrace_set *shadow,
			  const struct ipttrace_link *link,
			  const struct nlattr *attr,
			  struct netlink_ext_ack *extack)
{
	const struct ipttrace_set *sets[] = {
		link->set,
		link->other,
		link->shadow ? link->shadow->set : NULL,
	};
	unsigned int i;
	u32 map;

	for (i = 0; i < ARRAY_SIZE(sets); i++) {
		if (!sets[i])
			continue;
		switch (maps_concern(shadow, sets[i], &map)) {
		case SHARED:
			IPTTRACE_SET_ERR_MSG_ATTR(
				extack, attr,
				"a link uses a map that the shadow may write: it needs one of its own",
				"link %u uses map %u, which the shadow may write: it needs its own",
				link->id, map);
			return -EBUSY;
		case HIDDEN:
			IPTTRACE_SET_ERR_MSG_ATTR(
				extack, attr,
				"a link may reach maps that the shadow writes (map of maps, extension)",
				"link %u may reach maps that the shadow writes (map of maps, extension)",
				link->id);
			return -EBUSY;
		case APART:
			break;
		}
	}
	return 0;
}

/* --- links --------------------------------------------------------------------------------- */

/* Checks that a link may get a shadow at all. */
static int check_link(const struct ipttrace_link *link,
		      const struct nlattr *attr, struct netlink_ext_ack *extack)
{
	if (!ipttrace_hooks[link->hook]->decides ||
	    !ipttrace_hooks[link->hook]->decides(link)) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the link has no verdicts to compare: only one at a netfilter hook in filter mode has");
		return -EOPNOTSUPP;
	}
	if (link->shadow) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the link has a shadow already: promote it or drop it first");
		return -EBUSY;
	}
	if (link->rollback) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the last swap of the link waits to be confirmed or rolled back");
		return -EINPROGRESS;
	}
	return 0;
}

/* Checks that a set may be the shadow of a link. */
static int check_set(const struct ipttrace_link *link,
		     const struct ipttrace_change *change,
		     struct netlink_ext_ack *extack)
{
	const struct nlattr *attr = change->programs_attr;
	const struct ipttrace_set *set = change->set;
	const struct ipttrace_link *other;
	int err;

	err = ipttrace_hooks[link->hook]->takes(link->family, set, attr,
						extack);
	if (!err)
		err = check_program(set->progs[IPTTRACE_SLOT_PACKET], attr,
				    extack);
	if (err)
		return err;
	list_for_each_entry(other, &ipttrace_links, list) {
		err = check_own_maps(set, other, attr, extack);
		if (err)
			return err;
	}
	return 0;
}

/* No shadow counts: the last one went a grace period ago. */
static void clear_counters(struct ipttrace_link *link)
{
	int cpu;

	for_each_possible_cpu(cpu)
		memset(&per_cpu_ptr(link->stats, cpu)->shadow, 0,
		       sizeof(struct ipttrace_shadow_stats));
}

/**
 * ipttrace_shadow_add - give a link a shadow
 * @change: the link, which was found, with its expected state, and the set, which is the link's on
 *	success
 * @requester: who asks for it
 * @promotion: what has the shadow promoted, or NULL; the link's on success
 * @extack: extended ACK, set on error
 *
 * When it returns, every further packet of the link meets the shadow as well.
 *
 * Return: 0, -EOPNOTSUPP, -EBUSY, -EINPROGRESS, -ESTALE, -ENOMEM, or an errno of takes of the kind
 * of hook.
 */
int ipttrace_shadow_add(struct ipttrace_change *change,
			const struct ipttrace_requester *requester,
			struct ipttrace_promotion *promotion,
			struct netlink_ext_ack *extack)
{
	struct ipttrace_link *link = change->link;
	struct ipttrace_set *set = change->set;
	struct ipttrace_shadow *shadow;
	int err;

	lockdep_assert_held(&ipttrace_lock);
	err = check_link(link, change->ref.attr, extack);
	if (!err)
		err = ipttrace_link_permit(link, requester, &change->forced,
					   change->ref.attr, extack);
	if (!err)
		err = ipttrace_link_check(link, &change->expect, extack);
	if (!err)
		err = check_set(link, change, extack);
	if (err)
		return err;
	shadow = kmalloc(sizeof(*shadow), GFP_KERNEL);
	if (!shadow)
		return -ENOMEM;
	/* sets that were replaced and still handle packets may use maps that the shadow writes */
	ipttrace_retire_wait();
	if (!change->labelled)
		set->labels = ipttrace_labels_get(link->set->labels);
	set->link = link;
	clear_counters(link);
	shadow->set = set;
	shadow->number = ++ipttrace_links_sequence;
	shadow->promotion = promotion;
	link->shadow = shadow;
	if (promotion)
		ipttrace_promotion_begin(promotion, link);
	rcu_assign_pointer(link->set->shadow, shadow);
	return 0;
}

/**
 * ipttrace_shadow_promote - swap the shadow of a link in
 * @link: a link that has one
 * @requester: who asks for it; NULL if its conditions are met
 * @terms: whether it is for good at once; on success the link owns the guards
 *
 * Each packet is handled by the link's set, beside the shadow, or by what was the shadow.
 *
 * Return: 0 or -ENOMEM; on error nothing has changed.
 */
int ipttrace_shadow_promote(struct ipttrace_link *link,
			    const struct ipttrace_requester *requester,
			    const struct ipttrace_terms *terms)
{
	LIST_HEAD(changing);
	int err;

	lockdep_assert_held(&ipttrace_lock);
	link->other = link->shadow->set;
	list_add(&link->change, &changing);
	err = ipttrace_links_replace(&changing, requester, terms,
				     requester ? IPTTRACE_ACTION_PROMOTE :
						 IPTTRACE_ACTION_PROMOTE_IF);
	if (err) {
		list_del_init(&link->change);
		link->other = NULL;
		return err;
	}
	ipttrace_shadow_leave(link);
	kfree(link->shadow);
	link->shadow = NULL;
	return 0;
}

/**
 * ipttrace_shadow_leave - have nothing promote the shadow of a link any more
 * @link: the link; need not have a shadow
 */
void ipttrace_shadow_leave(struct ipttrace_link *link)
{
	lockdep_assert_held(&ipttrace_lock);
	if (!link->shadow || !link->shadow->promotion)
		return;
	ipttrace_promotion_end(link->shadow->promotion);
	link->shadow->promotion = NULL;
}

/**
 * ipttrace_shadow_drop - take the shadow of a link away
 * @link: a link that has one
 *
 * When it returns, no packet meets the shadow any more.
 */
void ipttrace_shadow_drop(struct ipttrace_link *link)
{
	lockdep_assert_held(&ipttrace_lock);
	ipttrace_shadow_leave(link);
	RCU_INIT_POINTER(link->set->shadow, NULL);
	synchronize_rcu();
	ipttrace_shadow_free(link);
	ipttrace_links_sequence++;
}

/**
 * ipttrace_shadow_free - free the shadow of a link, if it has one
 * @link: the link; no packet meets its shadow any more, and nothing promotes it
 */
void ipttrace_shadow_free(struct ipttrace_link *link)
{
	if (!link->shadow)
		return;
	ipttrace_set_free(link->shadow->set);
	kfree(link->shadow);
	link->shadow = NULL;
}
