// SPDX-License-Identifier: GPL-2.0
/*
 * Names of the functions at netfilter hooks. Looking one up in the kernel's symbols takes thousands
 * of instructions, so names are kept.
 */
#include <linux/ctype.h>
#include <linux/hashtable.h>
#include <linux/kallsyms.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "hook_names.h"

#define NAME_BITS 6
/* Kernels have some dozens; no more are kept. */
#define MOST_NAMES 512

/**
 * struct hook_name - name of a function at netfilter hooks
 * @node: in the names
 * @function: its address
 * @id: number of the name, which no other gets; set when it is kept
 * @name: its name, cut; empty if the kernel knows none
 * @module: the module that it is in, cut; empty if it is built in
 * @rcu: for freeing it
 *
 * Constant. Found through RCU; listed and taken out under names_lock.
 */
struct hook_name {
	struct hlist_node node;
	const void *function;
	u64 id;
	char name[IPTTRACE_CHAIN_NAME];
	char module[IPTTRACE_TABLE_NAME];
	struct rcu_head rcu;
};

static DEFINE_SPINLOCK(names_lock);
/* Under names_lock, as are their number and the last id. */
static DEFINE_HASHTABLE(names, NAME_BITS);
static unsigned int names_count;
static u64 last_id;

static const struct hook_name *find(const void *function)
{
	const struct hook_name *known;

	hash_for_each_possible_rcu(names, known, node, (unsigned long)function)
		if (known->function == function)
			return known;
	return NULL;
}

/* Looks a name up: "name", or "name [module]". */
static void look_up(struct hook_name *found, char *symbol)
{
	char *name = symbol;
	char *module;

	sprint_symbol_no_offset(symbol, (unsigned long)found->function);
	/* a number is no name */
	if (isdigit(*symbol))
		return;
	module = strstr(name, " [");
	if (module) {
		*module = '\0';
		module += 2;
		*strchrnul(module, ']') = '\0';
		strscpy(found->module, module, sizeof(found->module));
	}
	strscpy(found->name, name, sizeof(found->name));
}

/* Keeps a name. Returns it, or the same one that somebody else was quicker to keep, or NULL. */
static const struct hook_name *keep(struct hook_name *found)
{
	const struct hook_name *kept;

	spin_lock_bh(&names_lock);
	kept = find(found->function);
	if (!kept && names_count < MOST_NAMES) {
		found->id = ++last_id;
		hash_add_rcu(names, &found->node,
			     (unsigned long)found->function);
		names_count++;
		kept = found;
	}
	spin_unlock_bh(&names_lock);
	return kept;
}

static void put_name(struct ipttrace_event *event,
		     const struct hook_name *known)
{
	BUILD_BUG_ON(sizeof(event->chain) != sizeof(known->name));
	BUILD_BUG_ON(sizeof(event->table) != sizeof(known->module));
	event->rule_handle = known->id;
	memcpy(event->chain, known->name, sizeof(event->chain));
	memcpy(event->table, known->module, sizeof(event->table));
}

static noinline void find_and_put_name(struct ipttrace_event *event,
				       const void *function)
{
	char *symbol = kmalloc(KSYM_SYMBOL_LEN, GFP_ATOMIC);
	struct hook_name *found = kzalloc(sizeof(*found), GFP_ATOMIC);
	const struct hook_name *kept = NULL;

	event->rule_handle = 0;
	memset(event->chain, 0, sizeof(event->chain));
	memset(event->table, 0, sizeof(event->table));
	if (symbol && found) {
		found->function = function;
		look_up(found, symbol);
		kept = keep(found);
		put_name(event, kept ?: found);
	}
	if (kept != found)
		kfree(found);
	kfree(symbol);
}

/**
 * ipttrace_hook_name - put a function at a hook into an event: its name, module and number
 * @event: the event; names are empty if there is no memory to look them up, and there is no number
 *	if they are not kept
 * @function: the function, which returned in this RCU read section
 *
 * Context: softirqs may be on or off, the RCU read lock held.
 */
void ipttrace_hook_name(struct ipttrace_event *event, const void *function)
{
	const struct hook_name *known = find(function);

	if (likely(known))
		put_name(event, known);
	else
		find_and_put_name(event, function);
}

static void forget_all(void)
{
	struct hook_name *known;
	struct hlist_node *next;
	unsigned int i;

	spin_lock_bh(&names_lock);
	hash_for_each_safe(names, i, next, known, node) {
		hash_del_rcu(&known->node);
		kfree_rcu(known, rcu);
	}
	names_count = 0;
	spin_unlock_bh(&names_lock);
}

/*
 * A module that comes may lie where another one lay. When that one's memory was freed nobody was in
 * its functions any more, so whatever is kept of it was kept before.
 */
static int module_event(struct notifier_block *nb, unsigned long event,
			void *data)
{
	if (event == MODULE_STATE_COMING)
		forget_all();
	return NOTIFY_DONE;
}

static struct notifier_block modules = {
	.notifier_call = module_event,
};

/**
 * ipttrace_hook_names_init - register for modules that come
 *
 * Return: 0 or an errno.
 */
int ipttrace_hook_names_init(void)
{
	return register_module_notifier(&modules);
}

/**
 * ipttrace_hook_names_exit - forget all names; no packet may be handled any more
 */
void ipttrace_hook_names_exit(void)
{
	unregister_module_notifier(&modules);
	forget_all();
}
