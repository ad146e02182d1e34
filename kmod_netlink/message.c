// SPDX-License-Identifier: GPL-2.0
/*
 * Messages of the module: replies, notifications, batches of events.
 */
#include <net/genetlink.h>
#include <net/net_namespace.h>

#include "events.h"
#include "hook.h"
#include "journey.h"
#include "label.h"
#include "limits.h"
#include "link.h"
#include "message.h"
#include "promotion.h"
#include "rollback.h"
#include "shadow.h"

/**
 * ipttrace_put_u64 - add a 64-bit number to a message
 * @msg: the message
 * @type: number of the attribute
 * @value: the number; it is aligned to four bytes, as any attribute
 *
 * Return: 0 or -EMSGSIZE.
 */
int ipttrace_put_u64(struct sk_buff *msg, int type, u64 value)
{
	return nla_put(msg, type, sizeof(value), &value);
}

/**
 * ipttrace_put_program - add a nest about a program to a message
 * @msg: the message
 * @type: number of the nest
 * @slot: its slot
 * @id: its id
 * @tag: its tag, of IPTTRACE_PROG_TAG bytes
 * @name: its name
 *
 * Return: 0 or -EMSGSIZE.
 */
int ipttrace_put_program(struct sk_buff *msg, int type, u32 slot, u32 id,
			 const u8 *tag, const char *name)
{
	struct nlattr *nest = nla_nest_start(msg, type);

	if (!nest || nla_put_u32(msg, IPTTRACE_A_PROGRAM_SLOT, slot) ||
	    nla_put_u32(msg, IPTTRACE_A_PROGRAM_ID, id) ||
	    nla_put(msg, IPTTRACE_A_PROGRAM_TAG, IPTTRACE_PROG_TAG, tag) ||
	    nla_put_string(msg, IPTTRACE_A_PROGRAM_NAME, name))
		return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}

static int put_set(struct sk_buff *msg, int type,
		   const struct ipttrace_set *set, bool filter)
{
	struct nlattr *nest = nla_nest_start(msg, type);
	u32 slot;

	if (!nest)
		return -EMSGSIZE;
	for (slot = 1; slot < IPTTRACE_SLOTS; slot++) {
		const struct bpf_prog *prog = set->progs[slot];

		if (prog && ipttrace_put_program(
				    msg, IPTTRACE_A_PROGRAM_SET_PROGRAM, slot,
				    prog->aux->id, prog->tag, prog->aux->name))
			return -EMSGSIZE;
	}
	if (set->filter &&
	    nla_put_u32(msg, IPTTRACE_A_PROGRAM_SET_FILTER_LENGTH,
			set->filter_len))
		return -EMSGSIZE;
	if (set->filter && filter &&
	    nla_put(msg, IPTTRACE_A_PROGRAM_SET_FILTER,
		    ipttrace_filter_size(set), set->filter_code))
		return -EMSGSIZE;
	if (set->payload &&
	    (nla_put_u32(msg, IPTTRACE_A_PROGRAM_SET_PAYLOAD_MAP,
			 set->payload->id) ||
	     nla_put_u32(msg, IPTTRACE_A_PROGRAM_SET_PAYLOAD_SIZE,
			 set->payload->value_size)))
		return -EMSGSIZE;
	if (ipttrace_put_u64(msg, IPTTRACE_A_PROGRAM_SET_COOKIE, set->cookie) ||
	    ipttrace_put_limits(msg, set->limits))
		return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}

static int put_slot_stats(struct sk_buff *msg, u32 slot,
			  const struct ipttrace_slot_stats *stats)
{
	struct nlattr *nest = nla_nest_start(msg, IPTTRACE_A_LINK_STATS_SLOT);

	if (!nest || nla_put_u32(msg, IPTTRACE_A_SLOT_STATS_SLOT, slot) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_SLOT_STATS_RUNS, stats->runs) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_SLOT_STATS_RUN_TIME,
			     stats->run_time))
		return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}

/* Adds the counters of the link's shadow: left out if there was none, or no packet yet. */
static int put_shadow_stats(struct sk_buff *msg,
			    const struct ipttrace_shadow_stats *stats)
{
	if (!stats->agreed && !stats->disagreed)
		return 0;
	if (ipttrace_put_u64(msg, IPTTRACE_A_LINK_STATS_AGREED,
			     stats->agreed) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_LINK_STATS_DISAGREED,
			     stats->disagreed) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_LINK_STATS_SHADOW_RUNS,
			     stats->program.runs) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_LINK_STATS_SHADOW_RUN_TIME,
			     stats->program.run_time))
		return -EMSGSIZE;
	return 0;
}

/* Adds the packets that limits left out: a counter is missing if it is 0. */
static int put_left_out(struct sk_buff *msg, const u64 *left_out)
{
	static const int types[IPTTRACE_LIMITS] = {
		[IPTTRACE_LIMIT_SAMPLE] = IPTTRACE_A_LINK_STATS_LEFT_OUT_SAMPLE,
		[IPTTRACE_LIMIT_RATE] = IPTTRACE_A_LINK_STATS_LEFT_OUT_RATE,
		[IPTTRACE_LIMIT_GOVERNOR] =
			IPTTRACE_A_LINK_STATS_LEFT_OUT_GOVERNOR,
	};
	unsigned int limit;

	for (limit = 0; limit < IPTTRACE_LIMITS; limit++)
		if (left_out[limit] &&
		    ipttrace_put_u64(msg, types[limit], left_out[limit]))
			return -EMSGSIZE;
	return 0;
}

/**
 * ipttrace_put_link_stats - add the counters of a link to a message
 * @msg: the message
 * @stats: the counters
 * @slots: slots that are in use, or have been, a bit each
 *
 * Return: 0 or -EMSGSIZE.
 */
int ipttrace_put_link_stats(struct sk_buff *msg,
			    const struct ipttrace_link_stats *stats,
			    unsigned long slots)
{
	struct nlattr *nest = nla_nest_start(msg, IPTTRACE_A_STATS);
	unsigned int slot;

	if (!nest ||
	    ipttrace_put_u64(msg, IPTTRACE_A_LINK_STATS_PACKETS,
			     stats->packets) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_LINK_STATS_SELECTED,
			     stats->selected) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_LINK_STATS_EVENTS,
			     stats->events) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_LINK_STATS_NESTED,
			     stats->nested) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_LINK_STATS_LOST, stats->lost) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_LINK_STATS_DROPS, stats->drops) ||
	    put_left_out(msg, stats->left_out) ||
	    put_shadow_stats(msg, &stats->shadow))
		return -EMSGSIZE;
	for_each_set_bit(slot, &slots, IPTTRACE_SLOTS)
		if (put_slot_stats(msg, slot, &stats->slots[slot]))
			return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}

static int put_shadow(struct sk_buff *msg, const struct ipttrace_shadow *shadow)
{
	struct nlattr *nest;

	if (!shadow)
		return 0;
	nest = nla_nest_start(msg, IPTTRACE_A_SHADOW);
	if (!nest ||
	    ipttrace_put_u64(msg, IPTTRACE_A_SHADOW_NUMBER, shadow->number) ||
	    put_set(msg, IPTTRACE_A_SHADOW_PROGRAMS, shadow->set, false) ||
	    ipttrace_put_promotion(msg, shadow->promotion))
		return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}

static int put_stats(struct sk_buff *msg, const struct ipttrace_link *link)
{
	struct ipttrace_link_stats stats = ipttrace_link_sum(link);

	return ipttrace_put_link_stats(msg, &stats,
				       ipttrace_link_slots(link, &stats));
}

static u32 link_armed(const struct ipttrace_link *link, u8 command)
{
	/* it has left its hook; functions are armed for other links, or not yet disarmed */
	if (command == IPTTRACE_CMD_DETACH ||
	    command == IPTTRACE_CMD_LINK_DETACHED)
		return 0;
	return ipttrace_hooks[link->hook]->armed(link);
}

/**
 * ipttrace_link_size - space that ipttrace_put_link() needs in a message, without a filter
 */
size_t ipttrace_link_size(void)
{
	/* members, programs and counters of all slots; headers of messages and nests besides */
	size_t program = 2 * nla_total_size(sizeof(u32)) +
			 nla_total_size(IPTTRACE_PROG_TAG) +
			 nla_total_size(IPTTRACE_PROG_NAME);
	size_t stats =
		nla_total_size(sizeof(u32)) + 2 * nla_total_size(sizeof(u64));
	size_t nests = (2 * IPTTRACE_SLOTS + 2) * nla_total_size(0);
	/* its number and cookie, one program, filter, payload, limits; four counters */
	size_t shadow = 3 * nla_total_size(0) + program +
			3 * nla_total_size(sizeof(u32)) +
			6 * nla_total_size(sizeof(u64)) +
			ipttrace_limits_size() + ipttrace_promotion_size();

	return NLMSG_ALIGN(
		NLMSG_HDRLEN + GENL_HDRLEN + nests +
		IPTTRACE_SLOTS * (program + stats) + shadow +
		17 * nla_total_size(sizeof(u32)) +
		(9 + IPTTRACE_LIMITS) * nla_total_size(sizeof(u64)) +
		ipttrace_limits_size() + 3 * nla_total_size(TASK_COMM_LEN) +
		nla_total_size(IPTTRACE_LINK_NAME + 1) +
		nla_total_size(IPTTRACE_REASON + 1) + ipttrace_labels_size() +
		ipttrace_rollback_size() + ipttrace_journey_joined_size() +
		ipttrace_hooks_put_size());
}

/* Adds the current process. */
static int put_process(struct sk_buff *msg, int pid_type, int comm_type)
{
	char comm[TASK_COMM_LEN];

	get_task_comm(comm, current);
	if (nla_put_u32(msg, pid_type, task_tgid_nr(current)) ||
	    nla_put_string(msg, comm_type, comm))
		return -EMSGSIZE;
	return 0;
}

static int put_forced(struct sk_buff *msg)
{
	return put_process(msg, IPTTRACE_A_FORCED_PID, IPTTRACE_A_FORCED_COMM);
}

/* Whoever had a swap rolled back makes the notification of that. */
static int put_requester(struct sk_buff *msg, const struct ipttrace_link *link,
			 u8 command)
{
	if (command != IPTTRACE_CMD_LINK_SWAPPED ||
	    link->outcome != IPTTRACE_SWAP_OUTCOME_ROLLBACK_REQUEST)
		return 0;
	return put_process(msg, IPTTRACE_A_REQUESTER_PID,
			   IPTTRACE_A_REQUESTER_COMM);
}

static int put_place(struct sk_buff *msg, const struct ipttrace_link *link)
{
	const struct ipttrace_hook_ops *hook = ipttrace_hooks[link->hook];

	return hook->put ? hook->put(msg, link) : 0;
}

/**
 * ipttrace_put_link - add a whole message about a link to a buffer
 * @msg: the buffer
 * @link: the link
 * @portid: port of the receiver; 0 for a group
 * @seq: sequence number of the request; 0 for a group
 * @flags: of the message header
 * @command: enum ipttrace_command
 * @reason: enum ipttrace_detach_reason, or 0
 * @forced: the current process made the change by force
 *
 * Return: 0, or -EMSGSIZE; then @msg is unchanged.
 */
int ipttrace_put_link(struct sk_buff *msg, const struct ipttrace_link *link,
		      u32 portid, u32 seq, int flags, u8 command, u32 reason,
		      bool forced)
{
	void *header =
		genlmsg_put(msg, portid, seq, &ipttrace_family, flags, command);
	/* the filter is returned only when a single link is requested: a dump may lack room */
	bool filter = command == IPTTRACE_CMD_GET && !(flags & NLM_F_MULTI);

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
	    nla_put_u32(msg, IPTTRACE_A_ARMED, link_armed(link, command)) ||
	    put_set(msg, IPTTRACE_A_PROGRAMS, link->set, filter) ||
	    put_stats(msg, link) || put_shadow(msg, link->shadow) ||
	    put_place(msg, link) || ipttrace_journey_put_joined(msg, link) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_LINKS_SEQUENCE,
			     ipttrace_links_sequence) ||
	    (link->name[0] &&
	     nla_put_string(msg, IPTTRACE_A_NAME, link->name)) ||
	    ipttrace_put_labels(msg, link->set->labels) ||
	    (link->reason[0] &&
	     nla_put_string(msg, IPTTRACE_A_REASON_TEXT, link->reason)) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_TRANSACTION, link->transaction) ||
	    nla_put_u32(msg, IPTTRACE_A_ENDED, link->ended) ||
	    ipttrace_put_rollback(msg, link) ||
	    put_requester(msg, link, command) ||
	    (reason && nla_put_u32(msg, IPTTRACE_A_REASON, reason)) ||
	    (forced && put_forced(msg))) {
		genlmsg_cancel(msg, header);
		return -EMSGSIZE;
	}
	genlmsg_end(msg, header);
	return 0;
}

/**
 * ipttrace_notify - notify the links group of a change of a link
 * @link: the link
 * @command: enum ipttrace_command
 * @reason: enum ipttrace_detach_reason, or 0
 * @forced: the current process made the change by force
 *
 * If there is no memory for it, observers get ENOBUFS from their sockets.
 */
void ipttrace_notify(const struct ipttrace_link *link, u8 command, u32 reason,
		     bool forced)
{
	struct sk_buff *msg;

	if (!genl_has_listeners(&ipttrace_family, &init_net, IPTTRACE_LINKS))
		return;
	msg = genlmsg_new(ipttrace_link_size(), GFP_KERNEL);
	if (!msg ||
	    ipttrace_put_link(msg, link, 0, 0, 0, command, reason, forced)) {
		nlmsg_free(msg);
		genl_set_err(&ipttrace_family, &init_net, 0, IPTTRACE_LINKS,
			     -ENOBUFS);
		return;
	}
	genlmsg_multicast(&ipttrace_family, msg, 0, IPTTRACE_LINKS, GFP_KERNEL);
}

/**
 * ipttrace_notify_changed - notify the links group that armed functions changed
 */
void ipttrace_notify_changed(void)
{
	struct ipttrace_link *link;

	lockdep_assert_held(&ipttrace_lock);
	ipttrace_links_sequence++;
	list_for_each_entry(link, &ipttrace_links, list)
		ipttrace_notify(link, IPTTRACE_CMD_LINK_CHANGED, 0, false);
}

/**
 * ipttrace_notify_namespace - notify the namespaces group that a network namespace goes
 * @net: the namespace
 *
 * If there is no memory for it, observers get ENOBUFS from their sockets.
 */
void ipttrace_notify_namespace(const struct net *net)
{
	size_t size = nla_total_size(sizeof(u32)) + nla_total_size(sizeof(u64));
	struct sk_buff *msg;
	void *header;

	if (!genl_has_listeners(&ipttrace_family, &init_net,
				IPTTRACE_NAMESPACES))
		return;
	msg = genlmsg_new(size, GFP_KERNEL);
	if (!msg) {
		genl_set_err(&ipttrace_family, &init_net, 0,
			     IPTTRACE_NAMESPACES, -ENOBUFS);
		return;
	}
	header = genlmsg_put(msg, 0, 0, &ipttrace_family, 0,
			     IPTTRACE_CMD_NAMESPACE_GONE);
	if (WARN_ON_ONCE(!header ||
			 nla_put_u32(msg, IPTTRACE_A_NETNS, net->ns.inum) ||
			 ipttrace_put_u64(msg, IPTTRACE_A_NETNS_COOKIE,
					  net->net_cookie))) {
		nlmsg_free(msg);
		return;
	}
	genlmsg_end(msg, header);
	genlmsg_multicast(&ipttrace_family, msg, 0, IPTTRACE_NAMESPACES,
			  GFP_KERNEL);
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
	    ipttrace_put_u64(msg, IPTTRACE_A_CPU_STATS_SEQUENCE,
			     stats.sequence) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_CPU_STATS_LOST_RING,
			     stats.lost[IPTTRACE_LOSS_RING]) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_CPU_STATS_LOST_MEMORY,
			     stats.lost[IPTTRACE_LOSS_MEMORY]) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_CPU_STATS_LOST_NESTED,
			     stats.lost[IPTTRACE_LOSS_NESTED]))
		return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}

/**
 * ipttrace_events_listeners - check for sockets in the events group, in any namespace
 */
bool ipttrace_events_listeners(void)
{
	return genl_has_listeners(&ipttrace_family, &init_net, IPTTRACE_EVENTS);
}

/**
 * ipttrace_events_message - allocate a message with room for a batch of events
 *
 * Return: the message, or NULL.
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
 * Return: the header, for genlmsg_end(), or NULL.
 */
void *ipttrace_events_header(struct sk_buff *msg)
{
	return genlmsg_put(msg, 0, 0, &ipttrace_family, 0, IPTTRACE_CMD_EVENTS);
}

/**
 * ipttrace_events_multicast - send a message of events to the observers
 * @msg: consumed
 *
 * Return: 0 if a socket got it, and so did all that set NETLINK_BROADCAST_ERROR; -ENOBUFS if one
 * that set it was full; -ESRCH if no socket got it otherwise; or another errno.
 */
int ipttrace_events_multicast(struct sk_buff *msg)
{
	return genlmsg_multicast(&ipttrace_family, msg, 0, IPTTRACE_EVENTS,
				 GFP_KERNEL);
}
