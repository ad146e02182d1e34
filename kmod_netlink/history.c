// SPDX-License-Identifier: GPL-2.0
/*
 * The history of a link: the programs of its last generations, who made each, and when.
 */
#include <linux/cred.h>
#include <linux/ktime.h>
#include <net/netlink.h>

#include "link.h"
#include "message.h"

/**
 * ipttrace_history_add - record the program set of a link that was put in force
 * @link: the link, with transaction, reason and violation of the change
 * @action: how it was put in force; a roll-back or a promotion that nobody asked for is made by the
 *	module, anything else by the current process
 */
void ipttrace_history_add(struct ipttrace_link *link,
			  enum ipttrace_action action)
{
	struct ipttrace_history *history = &link->history;
	const struct ipttrace_set *set = link->set;
	struct ipttrace_past *past =
		&history->past[history->count++ % ARRAY_SIZE(history->past)];
	u32 slot;

	lockdep_assert_held(&ipttrace_lock);
	memset(past, 0, sizeof(*past));
	past->generation = set->generation;
	past->action = action;
	past->time = ktime_get_real_ns();
	past->transaction = link->transaction;
	strscpy(past->reason, link->reason, sizeof(past->reason));
	past->violation = link->violation;
	if (action != IPTTRACE_ACTION_ROLLBACK &&
	    action != IPTTRACE_ACTION_ROLLBACK_GUARD &&
	    action != IPTTRACE_ACTION_PROMOTE_IF) {
		past->pid = task_tgid_nr(current);
		past->uid = from_kuid(&init_user_ns, current_uid());
		get_task_comm(past->comm, current);
	}
	for (slot = 1; slot < IPTTRACE_SLOTS; slot++) {
		const struct bpf_prog *prog = set->progs[slot];

		if (!prog)
			continue;
		past->progs[slot].id = prog->aux->id;
		memcpy(past->progs[slot].tag, prog->tag,
		       sizeof(past->progs[slot].tag));
		strscpy(past->progs[slot].name, prog->aux->name,
			sizeof(past->progs[slot].name));
	}
}

static int put_past(struct sk_buff *msg, const struct ipttrace_past *past)
{
	struct nlattr *nest = nla_nest_start(msg, IPTTRACE_A_HISTORY);
	u32 slot;

	if (!nest ||
	    nla_put_u32(msg, IPTTRACE_A_HISTORY_GENERATION, past->generation) ||
	    nla_put_u32(msg, IPTTRACE_A_HISTORY_ACTION, past->action) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_HISTORY_TIME, past->time) ||
	    nla_put_u32(msg, IPTTRACE_A_HISTORY_PID, past->pid) ||
	    nla_put_u32(msg, IPTTRACE_A_HISTORY_UID, past->uid) ||
	    nla_put_string(msg, IPTTRACE_A_HISTORY_COMM, past->comm) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_HISTORY_TRANSACTION,
			     past->transaction) ||
	    (past->reason[0] &&
	     nla_put_string(msg, IPTTRACE_A_HISTORY_REASON, past->reason)) ||
	    ipttrace_put_violation(msg, IPTTRACE_A_HISTORY_VIOLATION,
				   &past->violation))
		return -EMSGSIZE;
	for (slot = 1; slot < IPTTRACE_SLOTS; slot++) {
		const struct ipttrace_past_program *prog = &past->progs[slot];

		if (prog->id &&
		    ipttrace_put_program(msg, IPTTRACE_A_HISTORY_PROGRAM, slot,
					 prog->id, prog->tag, prog->name))
			return -EMSGSIZE;
	}
	nla_nest_end(msg, nest);
	return 0;
}

/**
 * ipttrace_history_size - space that ipttrace_put_history() needs in a message
 */
size_t ipttrace_history_size(void)
{
	/* a nest with its members, all slots in use */
	size_t program = nla_total_size(0) + 2 * nla_total_size(sizeof(u32)) +
			 nla_total_size(IPTTRACE_PROG_TAG) +
			 nla_total_size(IPTTRACE_PROG_NAME);
	size_t past = nla_total_size(0) + 4 * nla_total_size(sizeof(u32)) +
		      2 * nla_total_size(sizeof(u64)) +
		      nla_total_size(TASK_COMM_LEN) +
		      nla_total_size(IPTTRACE_REASON + 1) +
		      ipttrace_violation_size() +
		      (IPTTRACE_SLOTS - 1) * program;

	return IPTTRACE_HISTORY_GENERATIONS * past;
}

/**
 * ipttrace_put_history - add the history of a link to a message, oldest generation first
 * @msg: the message
 * @history: history of the link, under ipttrace_lock
 *
 * Return: 0 or -EMSGSIZE.
 */
int ipttrace_put_history(struct sk_buff *msg,
			 const struct ipttrace_history *history)
{
	unsigned int size = ARRAY_SIZE(history->past);
	unsigned int i;

	for (i = history->count > size ? history->count - size : 0;
	     i < history->count; i++)
		if (put_past(msg, &history->past[i % size]))
			return -EMSGSIZE;
	return 0;
}
