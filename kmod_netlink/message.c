// SPDX-License-Identifier: GPL-2.0
/*
 * What the module says: replies, notifications, batches of events.
 */
#include <net/genetlink.h>

#include "events.h"
#include "link.h"
#include "message.h"
#include "table.h"

/* Aligned to four bytes, as any attribute; readers cope. */
static int put_u64(struct sk_buff *msg, int type, u64 value)
{
	return nla_put(msg, type, sizeof(value), &value);
}

static int put_program(struct sk_buff *msg, u32 slot,
		       const struct bpf_prog *prog)
{
	struct nlattr *nest =
		nla_nest_start(msg, IPTTRACE_A_PROGRAM_SET_PROGRAM);

	if (!nest || nla_put_u32(msg, IPTTRACE_A_PROGRAM_SLOT, slot) ||
	    nla_put_u32(msg, IPTTRACE_A_PROGRAM_ID, prog->aux->id) ||
	    nla_put(msg, IPTTRACE_A_PROGRAM_TAG, sizeof(prog->tag),
		    prog->tag) ||
	    nla_put_string(msg, IPTTRACE_A_PROGRAM_NAME, prog->aux->name))
		return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}

static int put_set(struct sk_buff *msg, const struct ipttrace_set *set)
{
	struct nlattr *nest = nla_nest_start(msg, IPTTRACE_A_PROGRAMS);
	u32 slot;

	if (!nest)
		return -EMSGSIZE;
	for (slot = 1; slot < IPTTRACE_SLOTS; slot++)
		if (set->progs[slot] &&
		    put_program(msg, slot, set->progs[slot]))
			return -EMSGSIZE;
	if (set->filter &&
	    nla_put_u32(msg, IPTTRACE_A_PROGRAM_SET_FILTER_LENGTH,
			set->filter_len))
		return -EMSGSIZE;
	if (put_u64(msg, IPTTRACE_A_PROGRAM_SET_COOKIE, set->cookie))
		return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}

static int put_link_stats(struct sk_buff *msg, const struct ipttrace_link *link)
{
	struct nlattr *nest = nla_nest_start(msg, IPTTRACE_A_STATS);
	struct ipttrace_link_stats stats = ipttrace_link_sum(link);

	if (!nest ||
	    put_u64(msg, IPTTRACE_A_LINK_STATS_PACKETS, stats.packets) ||
	    put_u64(msg, IPTTRACE_A_LINK_STATS_SELECTED, stats.selected) ||
	    put_u64(msg, IPTTRACE_A_LINK_STATS_EVENTS, stats.events) ||
	    put_u64(msg, IPTTRACE_A_LINK_STATS_NESTED, stats.nested))
		return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}

/**
 * ipttrace_put_link - add a whole message about a link
 * @msg: where to
 * @link: the link
 * @portid: whom it is for; 0 for a group
 * @seq: sequence number of the request; 0 for a group
 * @flags: of the message header
 * @command: enum ipttrace_command
 * @reason: enum ipttrace_detach_reason, or 0
 *
 * Return: 0, or -EMSGSIZE; then @msg is as it was.
 */
int ipttrace_put_link(struct sk_buff *msg, const struct ipttrace_link *link,
		      u32 portid, u32 seq, int flags, u8 command, u32 reason)
{
	void *header =
		genlmsg_put(msg, portid, seq, &ipttrace_family, flags, command);

	if (!header)
		return -EMSGSIZE;
	if (nla_put_u32(msg, IPTTRACE_A_LINK, link->id) ||
	    nla_put_u32(msg, IPTTRACE_A_HOOK, link->hook) ||
	    nla_put_u32(msg, IPTTRACE_A_FAMILY, link->family) ||
	    nla_put_u32(msg, IPTTRACE_A_FLAGS, link->flags) ||
	    nla_put_u32(msg, IPTTRACE_A_GENERATION, link->set->generation) ||
	    nla_put_u32(msg, IPTTRACE_A_OWNER_PORTID, link->owner_portid) ||
	    nla_put_u32(msg, IPTTRACE_A_OWNER_PID, link->owner_pid) ||
	    nla_put_string(msg, IPTTRACE_A_OWNER_COMM, link->owner_comm) ||
	    nla_put_u32(msg, IPTTRACE_A_ARMED,
			ipttrace_table_armed(link->family)) ||
	    put_set(msg, link->set) || put_link_stats(msg, link) ||
	    (reason && nla_put_u32(msg, IPTTRACE_A_REASON, reason))) {
		genlmsg_cancel(msg, header);
		return -EMSGSIZE;
	}
	genlmsg_end(msg, header);
	return 0;
}

/**
 * ipttrace_notify - tell the links group what happened to a link
 * @link: the link
 * @command: enum ipttrace_command
 * @reason: enum ipttrace_detach_reason, or 0
 *
 * Observers that cannot be told get ENOBUFS from their sockets.
 */
void ipttrace_notify(const struct ipttrace_link *link, u8 command, u32 reason)
{
	struct sk_buff *msg;

	if (!genl_has_listeners(&ipttrace_family, &init_net, IPTTRACE_LINKS))
		return;
	msg = genlmsg_new(NLMSG_DEFAULT_SIZE, GFP_KERNEL);
	if (!msg || ipttrace_put_link(msg, link, 0, 0, 0, command, reason)) {
		nlmsg_free(msg);
		genl_set_err(&ipttrace_family, &init_net, 0, IPTTRACE_LINKS,
			     -ENOBUFS);
		return;
	}
	genlmsg_multicast(&ipttrace_family, msg, 0, IPTTRACE_LINKS, GFP_KERNEL);
}

/**
 * ipttrace_notify_changed - tell that table code came or went
 */
void ipttrace_notify_changed(void)
{
	struct ipttrace_link *link;

	lockdep_assert_held(&ipttrace_lock);
	list_for_each_entry(link, &ipttrace_links, list)
		ipttrace_notify(link, IPTTRACE_CMD_LINK_CHANGED, 0);
}

/**
 * ipttrace_put_cpu_stats - add the event stream of a CPU to a message
 * @msg: the message
 * @cpu: a possible CPU
 *
 * Return: 0 or -EMSGSIZE.
 */
int ipttrace_put_cpu_stats(struct sk_buff *msg, int cpu)
{
	struct ipttrace_cpu_stats stats = ipttrace_events_stats(cpu);
	struct nlattr *nest = nla_nest_start(msg, IPTTRACE_A_CPU);

	if (!nest || nla_put_u32(msg, IPTTRACE_A_CPU_STATS_CPU, cpu) ||
	    put_u64(msg, IPTTRACE_A_CPU_STATS_SEQUENCE, stats.sequence) ||
	    put_u64(msg, IPTTRACE_A_CPU_STATS_LOST_RING,
		    stats.lost[IPTTRACE_LOSS_RING]) ||
	    put_u64(msg, IPTTRACE_A_CPU_STATS_LOST_MEMORY,
		    stats.lost[IPTTRACE_LOSS_MEMORY]) ||
	    put_u64(msg, IPTTRACE_A_CPU_STATS_LOST_NESTED,
		    stats.lost[IPTTRACE_LOSS_NESTED]))
		return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}

/**
 * ipttrace_events_listeners - whether any socket is in the events group, in whatever namespace
 */
bool ipttrace_events_listeners(void)
{
	return genl_has_listeners(&ipttrace_family, &init_net, IPTTRACE_EVENTS);
}

/**
 * ipttrace_events_message - a message with room for a batch of events, or NULL
 */
struct sk_buff *ipttrace_events_message(void)
{
	size_t head = nla_total_size(sizeof(struct ipttrace_batch));
	size_t event = nla_total_size(sizeof(struct ipttrace_event));

	return genlmsg_new(head + IPTTRACE_BATCH_EVENTS * event, GFP_KERNEL);
}

/**
 * ipttrace_events_header - begin a message of events
 * @msg: the message
 *
 * Return: for genlmsg_end(), or NULL.
 */
void *ipttrace_events_header(struct sk_buff *msg)
{
	return genlmsg_put(msg, 0, 0, &ipttrace_family, 0, IPTTRACE_CMD_EVENTS);
}

/**
 * ipttrace_events_multicast - send a message of events to the observers
 * @msg: consumed
 *
 * Return: 0 if one got it, -ESRCH if there is none, or another errno.
 */
int ipttrace_events_multicast(struct sk_buff *msg)
{
	return genlmsg_multicast(&ipttrace_family, msg, 0, IPTTRACE_EVENTS,
				 GFP_KERNEL);
}
