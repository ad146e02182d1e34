/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_REPLACE_H
#define _IPTTRACE_REPLACE_H

#include <linux/atomic.h>
#include <linux/hash.h>
#include <linux/types.h>

#include "function.h"

struct net;

/* Tables share these slots. Where two share one, a replacement of either counts for both. */
#define IPTTRACE_REPLACE_BITS 8

/**
 * struct ipttrace_replace_slot - the rules of the tables whose address has the same hash
 * @generation: number of their last replacement; no two replacements have the same
 * @replacing: replacements that are under way
 *
 * Written at any time by replacements (replace.c), in this order: @replacing is raised; the kernel
 * publishes the new rules (table->private); @generation changes; @replacing is lowered. There is a
 * full barrier after each step.
 *
 * A reader takes @generation, then table->private, then @replacing, then @generation again, with a
 * read barrier between two steps. If it finds no replacement under way and the same generation, its
 * rules are of that generation:
 * - They are no older: the generation was there, so the rules that it numbers had been published.
 * - They are no newer: behind newer rules a reader finds @replacing raised, or lowered again, and
 *   then another @generation.
 */
struct ipttrace_replace_slot {
	u32 generation;
	atomic_t replacing;
};

extern struct ipttrace_replace_slot
	ipttrace_replace_slots[1 << IPTTRACE_REPLACE_BITS];

/* Every replacement is seen: generations mean something. Set after they were all renewed. */
extern bool ipttrace_replace_counting;

/* xt_replace_table() and xt_unregister_table(); armed by table.c. */
#define IPTTRACE_REPLACE_FUNCTIONS 2

extern struct ipttrace_function
	ipttrace_replace_functions[IPTTRACE_REPLACE_FUNCTIONS];

/* The slot of a table, of which only the address is used: it need not exist. */
static inline struct ipttrace_replace_slot *
ipttrace_replace_slot(const void *table)
{
	return &ipttrace_replace_slots[hash_ptr(table, IPTTRACE_REPLACE_BITS)];
}

/* The generation of a table's rules, or of earlier ones; 0 if nobody counts. */
static inline u32 ipttrace_replace_generation(const void *table)
{
	struct ipttrace_replace_slot *slot = ipttrace_replace_slot(table);

	/* pairs with the release in ipttrace_replace_count() */
	bool counting = smp_load_acquire(&ipttrace_replace_counting);

	if (!counting)
		return 0;
	/* before the rules are read */
	return smp_load_acquire(&slot->generation);
}

/*
 * Tells whether the rules that were read since ipttrace_replace_generation() returned @generation
 * are of that generation.
 */
static inline bool ipttrace_replace_unchanged(const void *table, u32 generation)
{
	struct ipttrace_replace_slot *slot = ipttrace_replace_slot(table);

	/* behind reading the rules: see struct ipttrace_replace_slot */
	smp_rmb();
	if (atomic_read(&slot->replacing))
		return false;
	/* a generation changes before its replacement is over */
	smp_rmb();
	return ipttrace_replace_generation(table) == generation;
}

void ipttrace_replace_settle(void);
void ipttrace_replace_count(bool on);
const void *ipttrace_replace_find(struct net *net, u8 family, const char *name);

#endif /* _IPTTRACE_REPLACE_H */
