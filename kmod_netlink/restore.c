// SPDX-License-Identifier: GPL-2.0
/*
 * Links that outlive the module: it is unloaded while they are parked, and the next one restores
 * them. Nothing about them is kept in the kernel meanwhile, but for their programs, which user
 * space pins; it asks for everything else before, and tells the next module.
 *
 * Restoring begins when links are parked, or when the module is loaded with the parameters below,
 * and ends when user space says so. Until then nobody else makes a persistent link or gives a name:
 * that could be in the way of a link which is still to come. Nor does anybody change a persistent
 * link, except by force: if the way leads back, the module before has it as it was. Where links
 * were parked, nobody makes any link: it would keep the module from being unloaded.
 */
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>
#include <net/genetlink.h>

#include "compat/netlink.h"
#include "message.h"
#include "restore.h"

static unsigned int restore_link;
module_param(restore_link, uint, 0);
MODULE_PARM_DESC(restore_link,
		 "restore links of the module before, up to this id");

static unsigned long long restore_sequence;
module_param(restore_sequence, ullong, 0);
MODULE_PARM_DESC(restore_sequence,
		 "number of the last change of a link in the module before");

/**
 * struct parked - the last counters of a link that was parked
 * @id: its id
 * @generation: its generation
 * @slots: slots in use, a bit each
 * @stats: its counters
 */
struct parked {
	u32 id;
	u32 generation;
	unsigned long slots;
	struct ipttrace_link_stats stats;
};

/* All under ipttrace_lock. */
static bool restoring;
/* Links were parked here: the module is about to go, and takes no others at all. */
static bool parking;
/* Links up to this id are restored, if there are none of the same id. */
static u32 highest_id;
static struct parked *parked;
static unsigned int parked_count;
/* Grows with every change of @parked, so that a dump of several parts is of one state. */
static unsigned int parked_changes = 1;

static void parked_free(void)
{
	kvfree(parked);
	parked = NULL;
	parked_count = 0;
	parked_changes++;
}

/**
 * ipttrace_restore_init - go on with the numbers of the module before, if there are parameters
 *
 * Return: 0, or -EINVAL if there is no id behind that.
 */
int ipttrace_restore_init(void)
{
	if (restore_link == U32_MAX) {
		pr_err("ipttrace: restore_link=%u leaves no id for another link\n",
		       restore_link);
		return -EINVAL;
	}
	mutex_lock(&ipttrace_lock);
	restoring = restore_link;
	highest_id = restore_link;
	ipttrace_last_link = restore_link;
	ipttrace_links_sequence = restore_sequence;
	mutex_unlock(&ipttrace_lock);
	return 0;
}

/**
 * ipttrace_restore_exit - free what is left of parked links; no request comes any more
 */
void ipttrace_restore_exit(void)
{
	mutex_lock(&ipttrace_lock);
	parked_free();
	mutex_unlock(&ipttrace_lock);
}

/**
 * ipttrace_restoring - check whether links are being restored
 */
bool ipttrace_restoring(void)
{
	lockdep_assert_held(&ipttrace_lock);
	return restoring;
}

/* --- restoring ----------------------------------------------------------------------------- */

static int busy(const struct nlattr *attr, struct netlink_ext_ack *extack)
{
	NL_SET_ERR_MSG_ATTR(
		extack, attr,
		"links of the module before are being restored: `ipttctl module upgrade` completes that");
	return -EBUSY;
}

static int not_restoring(const struct nlattr *attr,
			 struct netlink_ext_ack *extack)
{
	NL_SET_ERR_MSG_ATTR(extack, attr, "no links are being restored");
	return -EINVAL;
}

/**
 * ipttrace_restore_check - check that a link may be made now
 * @spec: the parsed request
 * @extack: extended ACK, set on error
 *
 * Return: 0, -EBUSY if it could be in the way of a link that is to be restored, or -EINVAL if it
 * cannot be restored.
 */
int ipttrace_restore_check(const struct ipttrace_link_spec *spec,
			   struct netlink_ext_ack *extack)
{
	const struct ipttrace_restored *restored = spec->restored;
	bool persistent = spec->flags & IPTTRACE_LINK_FLAG_PERSISTENT;

	lockdep_assert_held(&ipttrace_lock);
	if (!restored)
		return parking || (restoring && (persistent || spec->name)) ?
			       busy(spec->name, extack) :
			       0;
	if (!restoring)
		return not_restoring(restored->attr, extack);
	if (!persistent) {
		NL_SET_ERR_MSG_ATTR(extack, restored->attr,
				    "only a persistent link is restored");
		return -EINVAL;
	}
	if (restored->id > highest_id) {
		NL_SET_ERR_MSG_ATTR(extack, restored->attr,
				    "no link of before had this id");
		return -EINVAL;
	}
	return 0;
}

/**
 * ipttrace_restore_check_change - check that a link may be changed now
 * @link: the link
 * @requester: who asks for it; with force it may
 * @attr: attribute to blame in @extack
 * @extack: extended ACK, set on error
 *
 * A persistent link may have been restored, and the way may lead back to the module before, which
 * makes it what it was there: the change would be lost.
 *
 * Return: 0 or -EBUSY.
 */
int ipttrace_restore_check_change(const struct ipttrace_link *link,
				  const struct ipttrace_requester *requester,
				  const struct nlattr *attr,
				  struct netlink_ext_ack *extack)
{
	lockdep_assert_held(&ipttrace_lock);
	if (!restoring || requester->force ||
	    !(link->flags & IPTTRACE_LINK_FLAG_PERSISTENT))
		return 0;
	return busy(attr, extack);
}

/**
 * ipttrace_restore_check_release - check that a link may become persistent now
 * @link: the link
 * @attr: attribute to blame in @extack
 * @extack: extended ACK, set on error
 *
 * Return: 0 or -EBUSY.
 */
int ipttrace_restore_check_release(const struct ipttrace_link *link,
				   const struct nlattr *attr,
				   struct netlink_ext_ack *extack)
{
	lockdep_assert_held(&ipttrace_lock);
	if (!restoring || (link->flags & IPTTRACE_LINK_FLAG_PERSISTENT))
		return 0;
	return busy(attr, extack);
}

/**
 * ipttrace_restore_check_name - check that a link may be renamed now
 * @name: the name
 * @extack: extended ACK, set on error
 *
 * Return: 0 or -EBUSY.
 */
int ipttrace_restore_check_name(const struct nlattr *name,
				struct netlink_ext_ack *extack)
{
	lockdep_assert_held(&ipttrace_lock);
	return restoring ? busy(name, extack) : 0;
}

/**
 * ipttrace_restore_link - make a new link what it was before
 * @link: the link, which is not listed yet, with its set
 * @restored: what it was
 */
void ipttrace_restore_link(struct ipttrace_link *link,
			   const struct ipttrace_restored *restored)
{
	lockdep_assert_held(&ipttrace_lock);
	link->id = restored->id;
	link->set->generation = restored->generation;
	link->ended = restored->generation - 1;
	link->owner_pid = restored->owner_pid;
	strscpy(link->owner_comm, restored->owner_comm,
		sizeof(link->owner_comm));
	link->history = restored->history;
	link->outcome = restored->outcome;
	link->violation = restored->violation;
	/* only the sum is ever read */
	*per_cpu_ptr(link->stats, cpumask_first(cpu_possible_mask)) =
		restored->stats;
}

/* --- parking ------------------------------------------------------------------------------- */

/* Counts the links, if all of them may be parked. Returns an errno otherwise. */
static int count_links(const struct ipttrace_requester *requester,
		       struct netlink_ext_ack *extack)
{
	const struct ipttrace_link *link;
	int count = 0;

	list_for_each_entry(link, &ipttrace_links, list) {
		if (link->rollback) {
			NL_SET_ERR_MSG(
				extack,
				"the last swap of a link waits to be confirmed or rolled back");
			return -EBUSY;
		}
		if (link->shadow) {
			IPTTRACE_SET_ERR_MSG_ATTR(
				extack, NULL, "a link has a shadow",
				"link %u has a shadow: promote or drop it",
				link->id);
			return -EBUSY;
		}
		if (link->owner_portid && !requester->force) {
			IPTTRACE_SET_ERR_MSG_ATTR(
				extack, NULL, "a process owns a link",
				"process %u (%s) owns link %u", link->owner_pid,
				link->owner_comm, link->id);
			return -EBUSY;
		}
		count++;
	}
	return count;
}

static const struct parked *find_parked(const struct parked *records,
					unsigned int count, u32 id)
{
	unsigned int i;

	for (i = 0; i < count; i++)
		if (records[i].id == id)
			return &records[i];
	return NULL;
}

/**
 * ipttrace_links_park - take all links from their hooks, to restore them later
 * @sequence: attribute with the number of the last change that the sender knows of
 * @requester: who asks for it
 * @leaving: set to the links, which the caller frees with ipttrace_link_free()
 * @extack: extended ACK, set on error
 *
 * When it returns 0, no packet is handled by any link, and links are being restored.
 *
 * Return: 0, -ESTALE, -EBUSY, -ENOMEM.
 */
int ipttrace_links_park(const struct nlattr *sequence,
			const struct ipttrace_requester *requester,
			struct list_head *leaving,
			struct netlink_ext_ack *extack)
{
	struct ipttrace_link *link, *next;
	struct parked *records = NULL;
	unsigned int i = 0, old;
	int count;

	lockdep_assert_held(&ipttrace_lock);
	if (nla_get_u64(sequence) != ipttrace_links_sequence) {
		NL_SET_ERR_MSG_ATTR(extack, sequence,
				    "links have changed since then");
		return -ESTALE;
	}
	count = count_links(requester, extack);
	if (count < 0)
		return count;
	if (count + parked_count) {
		records = kvcalloc(count + parked_count, sizeof(*records),
				   GFP_KERNEL);
		if (!records)
			return -ENOMEM;
	}

	list_for_each_entry_safe(link, next, &ipttrace_links, list)
		ipttrace_link_leave(link, leaving);
	ipttrace_links_detach(leaving);
	list_for_each_entry(link, leaving, list) {
		records[i] = (struct parked){
			.id = link->id,
			.generation = link->set->generation,
			.stats = ipttrace_link_sum(link),
		};
		records[i].slots = ipttrace_link_slots(link, &records[i].stats);
		i++;
	}
	/* those that were parked before, and are not back yet, stay known */
	for (old = 0; old < parked_count; old++)
		if (!find_parked(records, count, parked[old].id))
			records[i++] = parked[old];
	parked_free();
	parked = records;
	parked_count = i;
	restoring = true;
	parking = true;
	highest_id = ipttrace_last_link;
	return 0;
}

static int put_parked(struct sk_buff *msg, const struct parked *one,
		      struct netlink_callback *cb)
{
	void *header = genlmsg_put(msg, NETLINK_CB(cb->skb).portid,
				   cb->nlh->nlmsg_seq, &ipttrace_family,
				   NLM_F_MULTI, IPTTRACE_CMD_PARK);

	if (!header)
		return -EMSGSIZE;
	if (nla_put_u32(msg, IPTTRACE_A_LINK, one->id) ||
	    nla_put_u32(msg, IPTTRACE_A_GENERATION, one->generation) ||
	    ipttrace_put_link_stats(msg, &one->stats, one->slots)) {
		genlmsg_cancel(msg, header);
		return -EMSGSIZE;
	}
	genlmsg_end(msg, header);
	return 0;
}

/**
 * ipttrace_put_parked - add the counters of parked links to a dump, from where it stands
 * @msg: the message
 * @cb: the dump; its first argument is the number of links that were dumped
 *
 * Return: bytes in the message.
 */
int ipttrace_put_parked(struct sk_buff *msg, struct netlink_callback *cb)
{
	lockdep_assert_held(&ipttrace_lock);
	cb->seq = parked_changes;
	for (; cb->args[0] < parked_count; cb->args[0]++)
		if (put_parked(msg, &parked[cb->args[0]], cb))
			break;
	if (msg->len)
		nl_dump_check_consistent(cb, nlmsg_hdr(msg));
	return msg->len;
}

/**
 * ipttrace_links_restored - end restoring: other links may be made from now on
 * @extack: extended ACK, set on error
 *
 * Return: 0, or -EINVAL if no links are being restored.
 */
int ipttrace_links_restored(struct netlink_ext_ack *extack)
{
	lockdep_assert_held(&ipttrace_lock);
	if (!restoring)
		return not_restoring(NULL, extack);
	restoring = false;
	parking = false;
	parked_free();
	return 0;
}
