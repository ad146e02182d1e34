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
#include "netlink_gen.h"
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
	if (restore_link == U32_MAX)
		return -EINVAL;
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

/* --- parsing ------------------------------------------------------------------------------- */

static u32 get_u32(const struct nlattr *attr)
{
	return attr ? nla_get_u32(attr) : 0;
}

static u64 get_u64(const struct nlattr *attr)
{
	return attr ? nla_get_u64(attr) : 0;
}

static void get_string(char *text, size_t size, const struct nlattr *attr)
{
	if (attr)
		nla_strscpy(text, attr, size);
}

/* A slot that is missing from @outer is a bad request. */
static int parse_slot(const struct nlattr *slot, const struct nlattr *outer,
		      struct netlink_ext_ack *extack)
{
	if (slot)
		return 0;
	NL_SET_ERR_MSG_ATTR(extack, outer, "no slot is given");
	return -EINVAL;
}

static int parse_slot_stats(struct ipttrace_link_stats *stats,
			    const struct nlattr *nest,
			    struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_slot_stats_policy)];
	struct ipttrace_slot_stats *slot;
	int err;

	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_slot_stats_policy, extack);
	if (!err)
		err = parse_slot(tb[IPTTRACE_A_SLOT_STATS_SLOT], nest, extack);
	if (err)
		return err;
	slot = &stats->slots[nla_get_u32(tb[IPTTRACE_A_SLOT_STATS_SLOT])];
	slot->runs = get_u64(tb[IPTTRACE_A_SLOT_STATS_RUNS]);
	slot->run_time = get_u64(tb[IPTTRACE_A_SLOT_STATS_RUN_TIME]);
	return 0;
}

static int parse_stats(struct ipttrace_link_stats *stats,
		       const struct nlattr *nest,
		       struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_link_stats_policy)];
	const struct nlattr *attr;
	int remaining, err;

	if (!nest)
		return 0;
	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_link_stats_policy, extack);
	if (err)
		return err;
	stats->packets = get_u64(tb[IPTTRACE_A_LINK_STATS_PACKETS]);
	stats->selected = get_u64(tb[IPTTRACE_A_LINK_STATS_SELECTED]);
	stats->events = get_u64(tb[IPTTRACE_A_LINK_STATS_EVENTS]);
	stats->nested = get_u64(tb[IPTTRACE_A_LINK_STATS_NESTED]);
	stats->lost = get_u64(tb[IPTTRACE_A_LINK_STATS_LOST]);
	stats->drops = get_u64(tb[IPTTRACE_A_LINK_STATS_DROPS]);
	stats->shadow.agreed = get_u64(tb[IPTTRACE_A_LINK_STATS_AGREED]);
	stats->shadow.disagreed = get_u64(tb[IPTTRACE_A_LINK_STATS_DISAGREED]);
	stats->shadow.program.runs =
		get_u64(tb[IPTTRACE_A_LINK_STATS_SHADOW_RUNS]);
	stats->shadow.program.run_time =
		get_u64(tb[IPTTRACE_A_LINK_STATS_SHADOW_RUN_TIME]);
	nla_for_each_nested(attr, nest, remaining) {
		if (nla_type(attr) != IPTTRACE_A_LINK_STATS_SLOT)
			continue;
		err = parse_slot_stats(stats, attr, extack);
		if (err)
			return err;
	}
	return 0;
}

static int parse_past_program(struct ipttrace_past *past,
			      const struct nlattr *nest,
			      struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_past_program_policy)];
	struct ipttrace_past_program *prog;
	const struct nlattr *tag;
	int err;

	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_past_program_policy, extack);
	if (!err)
		err = parse_slot(tb[IPTTRACE_A_PAST_PROGRAM_SLOT], nest,
				 extack);
	if (err)
		return err;
	prog = &past->progs[nla_get_u32(tb[IPTTRACE_A_PAST_PROGRAM_SLOT])];
	tag = tb[IPTTRACE_A_PAST_PROGRAM_TAG];
	if (!tb[IPTTRACE_A_PAST_PROGRAM_ID] || !tag ||
	    nla_len(tag) != sizeof(prog->tag)) {
		NL_SET_ERR_MSG_ATTR(
			extack, nest,
			"a program of the past needs its id and its tag");
		return -EINVAL;
	}
	prog->id = nla_get_u32(tb[IPTTRACE_A_PAST_PROGRAM_ID]);
	memcpy(prog->tag, nla_data(tag), sizeof(prog->tag));
	get_string(prog->name, sizeof(prog->name),
		   tb[IPTTRACE_A_PAST_PROGRAM_NAME]);
	return 0;
}

static int parse_past(struct ipttrace_past *past, const struct nlattr *nest,
		      struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_past_policy)];
	const struct nlattr *attr;
	int remaining, err;

	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_past_policy, extack);
	if (err)
		return err;
	past->generation = get_u32(tb[IPTTRACE_A_PAST_GENERATION]);
	past->action = get_u32(tb[IPTTRACE_A_PAST_ACTION]);
	past->time = get_u64(tb[IPTTRACE_A_PAST_TIME]);
	past->pid = get_u32(tb[IPTTRACE_A_PAST_PID]);
	past->uid = get_u32(tb[IPTTRACE_A_PAST_UID]);
	past->transaction = get_u64(tb[IPTTRACE_A_PAST_TRANSACTION]);
	get_string(past->comm, sizeof(past->comm), tb[IPTTRACE_A_PAST_COMM]);
	get_string(past->reason, sizeof(past->reason),
		   tb[IPTTRACE_A_PAST_REASON]);
	err = ipttrace_violation_parse(&past->violation,
				       tb[IPTTRACE_A_PAST_VIOLATION], extack);
	if (err)
		return err;
	nla_for_each_nested(attr, nest, remaining) {
		if (nla_type(attr) != IPTTRACE_A_PAST_PROGRAM)
			continue;
		err = parse_past_program(past, attr, extack);
		if (err)
			return err;
	}
	return 0;
}

static int parse_history(struct ipttrace_history *history,
			 const struct nlattr *nest,
			 struct netlink_ext_ack *extack)
{
	const struct nlattr *attr;
	int remaining, err;

	nla_for_each_nested(attr, nest, remaining) {
		if (nla_type(attr) != IPTTRACE_A_RESTORE_PAST)
			continue;
		if (history->count == ARRAY_SIZE(history->past)) {
			NL_SET_ERR_MSG_ATTR(
				extack, attr,
				"there are more generations than a history has");
			return -E2BIG;
		}
		err = parse_past(&history->past[history->count++], attr,
				 extack);
		if (err)
			return err;
	}
	return 0;
}

static int parse_restored(struct ipttrace_restored *restored,
			  const struct nlattr *nest,
			  struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_restore_policy)];
	int err;

	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_restore_policy, extack);
	if (err)
		return err;
	if (!tb[IPTTRACE_A_RESTORE_LINK] ||
	    !tb[IPTTRACE_A_RESTORE_GENERATION]) {
		NL_SET_ERR_MSG_ATTR(
			extack, nest,
			"a link that is restored needs its id and its generation");
		return -EINVAL;
	}
	restored->attr = nest;
	restored->id = nla_get_u32(tb[IPTTRACE_A_RESTORE_LINK]);
	restored->generation = nla_get_u32(tb[IPTTRACE_A_RESTORE_GENERATION]);
	restored->transaction = get_u64(tb[IPTTRACE_A_RESTORE_TRANSACTION]);
	restored->owner_pid = get_u32(tb[IPTTRACE_A_RESTORE_OWNER_PID]);
	get_string(restored->owner_comm, sizeof(restored->owner_comm),
		   tb[IPTTRACE_A_RESTORE_OWNER_COMM]);
	restored->outcome = get_u32(tb[IPTTRACE_A_RESTORE_OUTCOME]);
	err = ipttrace_violation_parse(
		&restored->violation, tb[IPTTRACE_A_RESTORE_VIOLATION], extack);
	if (err)
		return err;
	err = parse_stats(&restored->stats, tb[IPTTRACE_A_RESTORE_STATS],
			  extack);
	return err ?: parse_history(&restored->history, nest, extack);
}

/**
 * ipttrace_restore_parse - parse what a link was before, if an attach request has that
 * @info: the request
 * @spec: the spec, which owns the result
 *
 * Return: 0, -EINVAL, -E2BIG or -ENOMEM.
 */
int ipttrace_restore_parse(struct genl_info *info,
			   struct ipttrace_link_spec *spec)
{
	const struct nlattr *nest = info->attrs[IPTTRACE_A_RESTORE];

	if (!nest)
		return 0;
	spec->restored = kzalloc(sizeof(*spec->restored), GFP_KERNEL);
	if (!spec->restored)
		return -ENOMEM;
	return parse_restored(spec->restored, nest, info->extack);
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
