// SPDX-License-Identifier: GPL-2.0
/*
 * Replacements of the rules of legacy tables, which are replaced as a whole: adding a rule is a
 * replacement, and zeroing counters is. Nothing in a table says how often that was, and the address
 * of its rules comes back. So xt_replace_table() is redirected to a replacement of ours, which
 * gives the rules a number. A new table begins without rules, by a function that ftrace does not
 * see on every kernel. But xt_unregister_table() is seen, which every table ends with: the next
 * table at the same address has another number.
 */
#include <linux/err.h>
#include <linux/module.h>
#include <linux/netfilter/x_tables.h>
#include <net/net_namespace.h>

#include "compat/behind.h"
#include "compat/ftrace.h"
#include "replace.h"
#include "symbol.h"

#define MODULE_NAME "x_tables"

/* Index of the table among the arguments of both functions. */
#define TABLE_ARG 0

enum { REPLACE, UNREGISTER };

struct ipttrace_replace_slot ipttrace_replace_slots[1 << IPTTRACE_REPLACE_BITS];
bool ipttrace_replace_counting;

static atomic64_t last = ATOMIC64_INIT(0);

/*
 * Gives the rules of a slot a generation that none had before. Fully ordered, also after those that
 * others gave the same slot.
 */
static void renew(struct ipttrace_replace_slot *slot)
{
	u64 next = atomic64_inc_return(&last);

	/* when the numbers are used up, none is known */
	xchg(&slot->generation, next <= U32_MAX ? next : 0);
}

/*
 * Stands in for xt_replace_table(), which may sleep. The caller holds the mutex of the table's
 * family; ipttrace_replace_settle() waits for it.
 */
static struct xt_table_info *replacement(struct xt_table *table,
					 unsigned int num_counters,
					 struct xt_table_info *newinfo,
					 int *error)
{
	struct ipttrace_replace_slot *slot = ipttrace_replace_slot(table);
	struct xt_table_info *old;

	atomic_inc(&slot->replacing);
	/* before the rules are published */
	smp_mb__after_atomic();
	old = ipttrace_behind_xt_replace_table(table, num_counters, newinfo,
					       error);
	renew(slot);
	/* behind the new generation */
	smp_mb__before_atomic();
	atomic_dec(&slot->replacing);
	return old;
}

/* ftrace handler of both functions. No packet is in a table that is unregistered. */
static void notrace replace_handler(unsigned long ip, unsigned long parent_ip,
				    struct ftrace_ops *ops,
				    struct ftrace_regs *fregs)
{
	if (READ_ONCE(ipttrace_replace_functions[REPLACE].site) == ip)
		ipttrace_redirect(fregs, replacement);
	else if (READ_ONCE(ipttrace_replace_functions[UNREGISTER].site) == ip)
		renew(ipttrace_replace_slot(
			(void *)ipttrace_argument(fregs, TABLE_ARG)));
}

/* PERMANENT: sysctl kernel.ftrace_enabled must not stop the count. */
static struct ipttrace_watch replace_watch = {
	.ops = {
		.func = replace_handler,
		.flags = FTRACE_OPS_FL_PERMANENT | FTRACE_OPS_FL_IPMODIFY,
	},
};

struct ipttrace_function ipttrace_replace_functions[IPTTRACE_REPLACE_FUNCTIONS] = {
	[REPLACE] = {
		.symbol = "xt_replace_table",
		.module = MODULE_NAME,
		.watch = &replace_watch,
		.replacement = replacement,
		.behind = &ipttrace_behind_xt_replace_table_address,
	},
	[UNREGISTER] = {
		.symbol = "xt_unregister_table",
		.module = MODULE_NAME,
		.watch = &replace_watch,
	},
};

/**
 * ipttrace_replace_settle - wait for replacements that have begun
 *
 * When it returns, every caller of xt_replace_table() that had entered it before has left it: these
 * hold the mutex that this function takes. Where x_tables is not loaded, or comes or goes, there
 * are no tables.
 *
 * Context: process, may sleep.
 */
void ipttrace_replace_settle(void)
{
	static const u8 families[] = { NFPROTO_IPV4, NFPROTO_IPV6,
				       NFPROTO_ARP };
	/* ip_tables needs it too; a reference, so that the module stays */
	typeof(xt_find_table_lock) *find = symbol_get(xt_find_table_lock);
	unsigned int i;

	if (!find)
		return;
	/* no table has an empty name, and none is made: it takes the mutex, and gives it back */
	for (i = 0; i < ARRAY_SIZE(families); i++)
		WARN_ON_ONCE(!IS_ERR(find(&init_net, families[i], "")));
	symbol_put(xt_find_table_lock);
}

/**
 * ipttrace_replace_count - say whether every replacement is seen from now on
 * @on: it is, and ipttrace_replace_settle() has waited for those that were not
 *
 * Nobody knows what happened to the tables meanwhile: all generations become others.
 */
void ipttrace_replace_count(bool on)
{
	unsigned int i;

	if (!on) {
		WRITE_ONCE(ipttrace_replace_counting, false);
		/* before the functions are not seen any more */
		smp_mb();
		return;
	}
	for (i = 0; i < ARRAY_SIZE(ipttrace_replace_slots); i++)
		renew(&ipttrace_replace_slots[i]);
	/* behind the new generations */
	smp_store_release(&ipttrace_replace_counting, true);
}

/**
 * ipttrace_replace_find - find a table, and make none
 * @net: its network namespace
 * @family: its family
 * @name: its name
 *
 * Context: process, may sleep.
 * Return: its address, where it may not be any more; -ENOENT if there is no such table; -EOPNOTSUPP
 * if the kernel hides the function.
 */
const void *ipttrace_replace_find(struct net *net, u8 family, const char *name)
{
	const void *table;
	typeof(xt_find_table) *find;

	/* xt_find_table_lock() would make the table, and modules cannot get xt_find_table() */
	if (!symbol_get(xt_find_table_lock))
		return ERR_PTR(-ENOENT);
	find = (void *)ipttrace_module_symbol_find(MODULE_NAME,
						   "xt_find_table");
	table = find ? find(net, family, name) : ERR_PTR(-EOPNOTSUPP);
	symbol_put(xt_find_table_lock);
	return table ?: ERR_PTR(-ENOENT);
}
