/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_LINK_H
#define _IPTTRACE_LINK_H

#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/netlink.h>
#include <linux/sched.h>

#include "program.h"

/* Counters of a link on one CPU; bumped with this_cpu_inc(). */
struct ipttrace_link_stats {
	u64 packets;
	u64 selected;
	u64 events;
	u64 nested;
};

/**
 * struct ipttrace_link - an attachment of a program set to a hook
 * @list: in ipttrace_links, or in a list of links that are leaving
 * @id: never used again while the module is loaded
 * @hook: enum ipttrace_hook
 * @family: NFPROTO_IPV4, NFPROTO_IPV6 or NFPROTO_UNSPEC for both
 * @flags: enum ipttrace_link_flag
 * @owner_portid: netlink socket whose end is the link's end; 0 if it is persistent
 * @owner_pid: process that made it
 * @owner_comm: its command
 * @set: the program set, owned; packets find it through ipttrace_sets
 * @stats: counters
 *
 * Everything is under ipttrace_lock but what published sets need: @family and @stats, which are
 * constant. Freed a grace period after it left the published sets. A link holds a reference to
 * this module, so that there is none when the module goes.
 */
struct ipttrace_link {
	struct list_head list;
	u32 id;
	u32 hook;
	u32 family;
	u32 flags;
	u32 owner_portid;
	u32 owner_pid;
	char owner_comm[TASK_COMM_LEN];
	struct ipttrace_set *set;
	struct ipttrace_link_stats __percpu *stats;
};

/**
 * struct ipttrace_sets - the program sets of all links at the table hook, as packets see them
 * @count: how many
 * @set: them, in the order of their links
 *
 * Constant; replaced as a whole under ipttrace_lock, so that a packet sees all links in one state.
 */
struct ipttrace_sets {
	unsigned int count;
	struct ipttrace_set *set[] __counted_by(count);
};

/* What an attach request asks for, the program set aside. */
struct ipttrace_link_spec {
	u32 hook;
	u32 family;
	u32 flags;
	u32 portid;
};

/* What a swap or a detach takes for granted; 0 or an unset bit means: nothing. */
struct ipttrace_expectation {
	u32 generation;
	unsigned long slots;
	u32 prog_id[IPTTRACE_SLOTS];
};

/* Serialises every change of a link, and arming. */
extern struct mutex ipttrace_lock;
/* All links in the order of their ids; under ipttrace_lock. */
extern struct list_head ipttrace_links;
/* Grows with every change of a link, for dumps; under ipttrace_lock. */
extern unsigned int ipttrace_links_sequence;

struct ipttrace_link *ipttrace_link_find(u32 id);
struct ipttrace_link *
ipttrace_link_attach(const struct ipttrace_link_spec *spec,
		     struct ipttrace_set *set, struct netlink_ext_ack *extack);
int ipttrace_link_swap(struct ipttrace_link *link, struct ipttrace_set *set,
		       const struct ipttrace_expectation *expect,
		       struct netlink_ext_ack *extack);
int ipttrace_link_check(const struct ipttrace_link *link,
			const struct ipttrace_expectation *expect,
			struct netlink_ext_ack *extack);
void ipttrace_links_detach(struct list_head *leaving);
void ipttrace_link_free(struct ipttrace_link *link);
struct ipttrace_link_stats ipttrace_link_sum(const struct ipttrace_link *link);

#endif /* _IPTTRACE_LINK_H */
