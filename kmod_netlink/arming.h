/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_ARMING_H
#define _IPTTRACE_ARMING_H

#include <linux/mutex.h>
#include <linux/netlink.h>
#include <linux/notifier.h>
#include <linux/workqueue.h>

#include "function.h"

/**
 * struct ipttrace_arming - functions that are watched while there are links at kinds of hooks
 * @hooks: the kinds (enum ipttrace_hook), a bit each
 * @functions: the functions, all of their watches
 * @count: number of functions
 * @resolve: find what else replacements need of the functions' modules, before any is armed;
 *	returns 0, or an errno with the extended ACK set: -ENOENT while the module is not loaded.
 *	NULL if they need nothing
 * @settle: wait for calls of the functions that had begun before they were armed or disarmed. NULL
 *	if nobody needs that, or it is enough that they are in RCU read sections
 * @watched: told whether every call of all functions is seen from now on: after arming and @settle,
 *	before disarming, and when their modules come or go. NULL if nobody needs that
 * @lock: serialises arming and disarming, outside ipttrace_lock: nobody who waits for that lock
 *	waits for ftrace, which takes grace periods of RCU-tasks to remove a handler. Initialised
 *	with the rest: one may be held inside another's (table.c)
 * @armed: functions are armed now, or as soon as their modules are loaded; under @lock
 * @disarm: disarms unless there is a link
 * @modules: called when a module comes or goes
 */
struct ipttrace_arming {
	unsigned long hooks;
	struct ipttrace_function *functions;
	unsigned int count;
	int (*resolve)(struct netlink_ext_ack *extack);
	void (*settle)(void);
	void (*watched)(bool all);
	struct mutex lock; /* outside ipttrace_lock, see above */
	struct lock_class_key key;
	bool armed;
	struct work_struct disarm;
	struct notifier_block modules;
};

int ipttrace_arming_init(struct ipttrace_arming *arming);
void ipttrace_arming_exit(struct ipttrace_arming *arming);
int ipttrace_arming_begin(struct ipttrace_arming *arming,
			  struct netlink_ext_ack *extack);
void ipttrace_arming_end(struct ipttrace_arming *arming);
void ipttrace_arming_release(struct ipttrace_arming *arming);

#endif /* _IPTTRACE_ARMING_H */
