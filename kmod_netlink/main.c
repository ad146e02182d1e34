// SPDX-License-Identifier: GPL-2.0
/*
 * ipttrace: runs BPF programs where netfilter decides over packets.
 *
 * netlink.c	the generic-netlink family and its commands
 * netlink_gen.c	the commands and their attributes, generated from the protocol
 * parse.c	parsing of requests
 * message.c	messages of the module: replies, notifications, batches of events
 * link.c	links: the program set that is in force at each hook
 * transaction.c	swaps of one link or several
 * retire.c	program sets that were replaced, until their last packets have gone
 * rollback.c	swaps that wait to be confirmed or rolled back
 * rollback_command.c	the commands to confirm them, and to roll them back at once
 * condition.c	conditions on a link's counters
 * shadow.c	program sets whose verdicts are compared with those of a link
 * shadow_command.c	the commands that give a link a shadow, promote it or drop it
 * promotion.c	shadows that are promoted when conditions on their verdicts are met
 * history.c	the last generations of a link
 * restore.c	links parked, and restored in the next module
 * restore_parse.c	what a link was in the module before, as a request says it
 * restore_command.c	the commands of who does that
 * hook.c	the kinds of hooks that there are: table.c, nf.c, chain.c, spine.c
 * program.c	program sets: checking and filling them
 * payload.c	payloads: bytes that a program adds to its event
 * nf.c		the nf hook: links at netfilter's own hooks
 * nf_packet.c	packets at these hooks
 * table.c	the table hook: links at the tables of iptables
 * traverse.c	packets on their way through a table
 * frame.c	the rules that the kernel reports for them
 * replace.c	the rules of legacy tables are numbered whenever they are replaced
 * ruleset.c	the command that asks for these numbers
 * netns_place.c	links that are in one network namespace, or in all
 * filter.c	filters on packets whose data begins elsewhere
 * nested.c	walks inside walks
 * spine.c	the spine hook: links at the functions of netfilter's hooks
 * spine_follow.c	packets that come to these hooks
 * spine_walk.c	packets on their way from function to function
 * spine_packet.c	the description of what functions change in a packet
 * hook_names.c	names of these functions
 * chain.c	the chain hook: links at nftables' chains
 * follow.c	packets that come to base chains
 * walk.c	packets on their way from rule to rule
 * walk_event.c	where they are: events and programs
 * nat.c	packets that NAT's tables and chains are not asked about
 * verify.c	whether they may be taken through chains on this kernel
 * verify_command.c	the command of who finds that out
 * nft_symbols.c	what it needs of nf_tables besides the function that it stands in for
 * nft_layout.c	whether its structures lie where that walk finds them
 * btf.c	the kernel's description of its types
 * run.c		running programs, for one at a hook or all sets that selected a packet
 * arming.c	watching functions while there are links
 * function.c	functions of the kernel that are watched or redirected
 * symbol.c	symbols that the kernel does not export
 * active.c	the kernel's own count of running tracing programs
 * packet.c	the description of a packet in its event
 * events.c	events on their way to the observers
 *
 * Each link holds a reference to the module: while there are links it cannot be unloaded, and when
 * it is, no function is redirected any more.
 */
#include <linux/module.h>

#include "events.h"
#include "hook.h"
#include "nat.h"
#include "netlink.h"
#include "promotion.h"
#include "restore.h"
#include "retire.h"
#include "rollback.h"

static int __init ipttrace_init(void)
{
	int err;

	err = ipttrace_events_init();
	if (err)
		return err;
	err = ipttrace_retire_init();
	if (err)
		goto err_events;
	err = ipttrace_rollback_init();
	if (err)
		goto err_retire;
	err = ipttrace_promotion_init();
	if (err)
		goto err_rollback;
	err = ipttrace_nat_init();
	if (err)
		goto err_promotion;
	err = ipttrace_hooks_init();
	if (err)
		goto err_nat;
	err = ipttrace_restore_init();
	if (err)
		goto err_hooks;
	err = ipttrace_netlink_init();
	if (err)
		goto err_hooks;
	return 0;

err_hooks:
	ipttrace_hooks_exit();
err_nat:
	ipttrace_nat_exit();
err_promotion:
	ipttrace_promotion_exit();
err_rollback:
	ipttrace_rollback_exit();
err_retire:
	ipttrace_retire_exit();
err_events:
	ipttrace_events_exit();
	return err;
}

static void __exit ipttrace_exit(void)
{
	/* no links are left and none can be made any more: nothing is emitted or retired now */
	ipttrace_events_flush();
	ipttrace_retire_flush();
	ipttrace_netlink_exit();
	ipttrace_restore_exit();
	ipttrace_hooks_exit();
	ipttrace_nat_exit();
	ipttrace_promotion_exit();
	ipttrace_rollback_exit();
	ipttrace_retire_exit();
	ipttrace_events_exit();
}

module_init(ipttrace_init);
module_exit(ipttrace_exit);

MODULE_DESCRIPTION("BPF programs where netfilter decides over packets");
MODULE_VERSION(IPTTRACE_VERSION);
MODULE_LICENSE("GPL");
