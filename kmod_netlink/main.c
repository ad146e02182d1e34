// SPDX-License-Identifier: GPL-2.0
/*
 * ipttrace: runs BPF programs where netfilter decides over packets.
 *
 * netlink.c	the generic-netlink family: what each command does
 * netlink_gen.c	the commands and what they may hold, generated from the protocol
 * parse.c	what requests say
 * message.c	what the module says: replies, notifications, batches of events
 * link.c	links: which program set is in force at which hook
 * transaction.c	swaps of one link or several, and their roll-back
 * history.c	what a link remembers of its generations
 * hook.c	the kinds of hooks that there are: table.c and nf.c
 * program.c	program sets: what is accepted, and how it is run
 * payload.c	what a program adds to an event
 * nf.c		the nf hook: links at netfilter's own hooks
 * table.c	the table hook: what is watched, and when
 * traverse.c	packets on their way through a table
 * function.c	functions of the kernel that are watched or redirected
 * active.c	the kernel's own guard against programs on top of each other
 * packet.c	what an event says about its packet
 * events.c	events on their way to the observers
 *
 * Each link holds a reference to the module: while there are links it cannot be unloaded, and when
 * it is, no function is redirected any more.
 */
#include <linux/module.h>

#include "events.h"
#include "hook.h"
#include "netlink.h"
#include "transaction.h"

static int __init ipttrace_init(void)
{
	int err;

	err = ipttrace_events_init();
	if (err)
		return err;
	err = ipttrace_transaction_init();
	if (err)
		goto err_events;
	err = ipttrace_hooks_init();
	if (err)
		goto err_transaction;
	err = ipttrace_netlink_init();
	if (err)
		goto err_hooks;
	return 0;

err_hooks:
	ipttrace_hooks_exit();
err_transaction:
	ipttrace_transaction_exit();
err_events:
	ipttrace_events_exit();
	return err;
}

static void __exit ipttrace_exit(void)
{
	/* there are no links and, the module going, there will be none: nothing is emitted now */
	ipttrace_events_flush();
	ipttrace_netlink_exit();
	ipttrace_hooks_exit();
	ipttrace_transaction_exit();
	ipttrace_events_exit();
}

module_init(ipttrace_init);
module_exit(ipttrace_exit);

MODULE_DESCRIPTION("BPF programs where netfilter decides over packets");
MODULE_VERSION(IPTTRACE_VERSION);
MODULE_LICENSE("GPL");
