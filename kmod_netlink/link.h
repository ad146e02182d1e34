/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_LINK_H
#define _IPTTRACE_LINK_H

#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "compat/compiler.h"
#include "condition.h"
#include "history.h"
#include "program.h"

struct ipttrace_restored;
struct ipttrace_rollback;
struct ipttrace_shadow;

/* Counters of a slot on one CPU; the time is in ns. */
struct ipttrace_slot_stats {
	u64 runs;
	u64 run_time;
};

/* Counters of a link's shadow on one CPU; from 0 with each shadow, when no packet meets any. */
struct ipttrace_shadow_stats {
	u64 agreed;
	u64 disagreed;
	struct ipttrace_slot_stats program;
};

/* Limits of a program set, by which packets are left out. */
enum ipttrace_limit {
	IPTTRACE_LIMIT_SAMPLE,
	IPTTRACE_LIMIT_RATE,
	IPTTRACE_LIMIT_GOVERNOR,
	IPTTRACE_LIMITS
};

/* Counters of a link on one CPU; bumped with this_cpu_inc(). */
struct ipttrace_link_stats {
	u64 packets;
	u64 selected;
	u64 events;
	u64 nested;
	u64 lost;
	u64 drops;
	u64 left_out[IPTTRACE_LIMITS];
	struct ipttrace_slot_stats slots[IPTTRACE_SLOTS];
	struct ipttrace_shadow_stats shadow;
};

/**
 * struct ipttrace_link - an attachment of a program set to a hook
 * @list: in ipttrace_links, or in a list of links that are leaving
 * @id: id, not reused while the module is loaded, nor by the next one if it restores links
 * @hook: enum ipttrace_hook
 * @family: NFPROTO_*; for a table link NFPROTO_UNSPEC means both IP versions
 * @flags: enum ipttrace_link_flag
 * @name: name, which no other link has; empty if it has none
 * @owner_portid: netlink socket with which the link ends; 0 if it is persistent
 * @owner_pid: process that made it, or adopted it
 * @owner_comm: its command
 * @set: the program set, owned; packets find it as the kind of hook publishes it
 * @stats: counters
 * @telling: tells observers of packets that were left out (limits.c); queued by packets
 * @count_rules: at tables: rules are counted even if no program asks for their events
 * @journey: the journey that it is on, as a bit; 0 for none, or once that has left
 * @journey_id: that link's id
 * @place: private data of the kind of hook about the link's place, owned, for kfree(); or NULL
 * @index: in the list that ipttrace_links_any() searches, from before it is at its hook until after
 * @change: in a list of links that are swapped together, or will be rolled back together
 * @other: the next set while a change is made, the previous one while a roll-back waits, or NULL;
 *	owned
 * @rollback: roll-back that waits to swap @set and @other; NULL while that, or any other change, is
 *	made
 * @windows: readings for each guard of the swap that waits, owned; NULL if there are none
 * @outcome: enum ipttrace_swap_outcome of the last swap; 0 if that was for good, or there was none
 * @violation: of the guard that had it rolled back; of no link otherwise
 * @ended: last generation whose set handles no packet any more; the one before @set, but for sets
 *	that are retiring
 * @transaction: number of the change that made the generation: ipttrace_links_sequence. A roll-back
 *	has that of the swap that it undoes
 * @reason: the reason given for that change; once the link is detached, the one given for that.
 *	Empty if none was given
 * @history: its last generations
 * @shadow: its shadow, owned, or NULL; never while a roll-back waits
 *
 * Protected by ipttrace_lock, with two exceptions. Packets read @id, @family, @stats and
 * @count_rules, which are constant while the link is published, @journey, which may become 0, and
 * queue @telling, whose work
 * takes no lock; it is flushed once no packet meets the link. Notifiers search under
 * ipttrace_links_index, see there. Only the kind of hook looks behind @place, and says there what
 * protects it. Freed a grace period after packets could find it, and @place with it. A link holds a
 * reference to this module, so that no link is left when the module is unloaded.
 */
struct ipttrace_link {
	struct list_head list;
	u32 id;
	u32 hook;
	u32 family;
	u32 flags;
	char name[IPTTRACE_LINK_NAME + 1];
	u32 owner_portid;
	u32 owner_pid;
	char owner_comm[TASK_COMM_LEN];
	struct ipttrace_set *set;
	struct ipttrace_link_stats __percpu *stats;
	struct delayed_work telling;
	bool count_rules;
	u32 journey;
	u32 journey_id;
	void *place;
	struct list_head index;
	struct list_head change;
	struct ipttrace_set *other;
	struct ipttrace_rollback *rollback;
	struct ipttrace_window *windows;
	u32 outcome;
	struct ipttrace_violation violation;
	u32 ended;
	u64 transaction;
	char reason[IPTTRACE_REASON + 1];
	struct ipttrace_history history;
	struct ipttrace_shadow *shadow;
};

/**
 * struct ipttrace_sets - the program sets of all links at a kind of hook, as packets see them
 * @count: number of sets
 * @set: the sets, in the order of their links
 *
 * Constant; replaced as a whole under ipttrace_lock, so that a packet sees all links in one state.
 */
struct ipttrace_sets {
	unsigned int count;
	struct ipttrace_set *set[] __counted_by(count);
};

/**
 * struct ipttrace_link_spec - parsed attach request, without its program set
 * @hook: enum ipttrace_hook
 * @family: NFPROTO_*, or NFPROTO_UNSPEC if none is given
 * @flags: enum ipttrace_link_flag
 * @portid: the socket that sent the request
 * @place: private data of the kind of hook about the place, from its parse to its spec_release; or
 *	NULL
 * @programs: attribute to blame when the program set does not suit
 * @name: name of the link, or NULL
 * @reason: reason for making it, or NULL
 * @journey: the journey that it will be on, or NULL
 * @restored: what it was in the module before, owned; NULL for a new link
 *
 * Only the request sees it: there is no lock.
 */
struct ipttrace_link_spec {
	u32 hook;
	u32 family;
	u32 flags;
	u32 portid;
	void *place;
	const struct nlattr *programs;
	const struct nlattr *name;
	const struct nlattr *reason;
	const struct nlattr *journey;
	struct ipttrace_restored *restored;
};

/**
 * struct ipttrace_link_ref - the link that a request is about
 * @attr: attribute with its id, or with its name
 * @by_name: it is the name
 */
struct ipttrace_link_ref {
	const struct nlattr *attr;
	bool by_name;
};

/**
 * struct ipttrace_requester - who asks for a change of links, and how
 * @portid: the socket that sent the request
 * @force: an exclusive owner does not keep it from the change
 * @reason: reason for the change, or NULL
 */
struct ipttrace_requester {
	u32 portid;
	bool force;
	const struct nlattr *reason;
};

/**
 * struct ipttrace_expectation - state that a request expects of a link
 * @generation: expected generation, 0 for any
 * @slots: slots with an expectation, a bit each
 * @prog_id: expected program of each, by id; 0 for an empty slot
 * @generation_attr: attribute to blame for the generation
 * @program_attr: attribute to blame for each slot
 */
struct ipttrace_expectation {
	u32 generation;
	unsigned long slots;
	u32 prog_id[IPTTRACE_SLOTS];
	const struct nlattr *generation_attr;
	const struct nlattr *program_attr[IPTTRACE_SLOTS];
};

/* Serialises every change of a link. Lock order: link.c. */
extern struct mutex ipttrace_lock;
/* All links in the order of their ids; under ipttrace_lock. */
extern struct list_head ipttrace_links;
/*
 * Held, inside ipttrace_lock, while the index is changed, or for a link in it the owner_portid, the
 * place, or the fields behind the place that notifiers search for. Notifiers hold it alone to see
 * at once whether they have anything to do.
 */
extern spinlock_t ipttrace_links_index;
/*
 * Grows with every change of a link, before observers are notified of it: whoever has a dump knows
 * by it which notifications are of earlier changes. Under ipttrace_lock.
 */
extern u64 ipttrace_links_sequence;
/* The highest id that a link has had. Under ipttrace_lock. */
extern u32 ipttrace_last_link;

/* True while a swap or a roll-back of the link is being made: its other set comes into force. */
static inline bool ipttrace_link_changing(const struct ipttrace_link *link)
{
	return link->other && !link->rollback;
}

struct ipttrace_link *ipttrace_link_find(const struct ipttrace_link_ref *ref,
					 struct netlink_ext_ack *extack);
unsigned int ipttrace_links_count(u32 hook);
struct ipttrace_sets *ipttrace_links_sets(u32 hook, gfp_t gfp);
bool ipttrace_links_any(bool (*concerned)(const struct ipttrace_link *link,
					  const void *what),
			const void *what);
struct ipttrace_link *
ipttrace_link_attach(const struct ipttrace_link_spec *spec,
		     struct ipttrace_set *set, struct netlink_ext_ack *extack);
int ipttrace_link_check(const struct ipttrace_link *link,
			const struct ipttrace_expectation *expect,
			struct netlink_ext_ack *extack);
int ipttrace_link_rename(struct ipttrace_link *link, const struct nlattr *attr,
			 struct netlink_ext_ack *extack);
void ipttrace_link_give_reason(struct ipttrace_link *link,
			       const struct nlattr *attr);
void ipttrace_link_leave(struct ipttrace_link *link, struct list_head *leaving);
void ipttrace_links_detach(struct list_head *leaving);
void ipttrace_link_free(struct ipttrace_link *link);
struct ipttrace_link_stats ipttrace_link_sum(const struct ipttrace_link *link);
unsigned long ipttrace_link_slots(const struct ipttrace_link *link,
				  const struct ipttrace_link_stats *stats);

#endif /* _IPTTRACE_LINK_H */
