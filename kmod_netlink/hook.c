// SPDX-License-Identifier: GPL-2.0
/*
 * The kinds of hooks. Each has a file of its own, and only this file names them all.
 */
#include <linux/minmax.h>
#include <linux/nospec.h>

#include "chain.h"
#include "hook.h"
#include "journey.h"
#include "netns_place.h"
#include "nf.h"
#include "spine.h"
#include "table.h"

/* Every number except 0 has a kind. */
const struct ipttrace_hook_ops *const ipttrace_hooks[IPTTRACE_HOOKS] = {
	[IPTTRACE_HOOK_TABLE] = &ipttrace_table_hook,
	[IPTTRACE_HOOK_NF] = &ipttrace_nf_hook,
	[IPTTRACE_HOOK_CHAIN] = &ipttrace_chain_hook,
	[IPTTRACE_HOOK_SPINE] = &ipttrace_spine_hook,
	[IPTTRACE_HOOK_JOURNEY] = &ipttrace_journey_hook,
};

/**
 * ipttrace_hooks_init - initialise all kinds of hooks
 *
 * Return: 0 or an errno.
 */
int ipttrace_hooks_init(void)
{
	unsigned int i;
	int err;

	err = ipttrace_netns_places_init();
	if (err)
		return err;
	for (i = 1; i < IPTTRACE_HOOKS; i++) {
		err = ipttrace_hooks[i]->init();
		if (err)
			goto err_exit;
	}
	return 0;

err_exit:
	while (--i)
		ipttrace_hooks[i]->exit();
	ipttrace_netns_places_exit();
	return err;
}

/**
 * ipttrace_hooks_exit - undo ipttrace_hooks_init(); no link may be left
 */
void ipttrace_hooks_exit(void)
{
	unsigned int i;

	for (i = IPTTRACE_HOOKS - 1; i; i--)
		ipttrace_hooks[i]->exit();
	ipttrace_netns_places_exit();
}

/**
 * ipttrace_hook_find - look up a kind of hook by its number
 * @hook: any number
 *
 * Return: the kind, or NULL if there is none of this number.
 */
const struct ipttrace_hook_ops *ipttrace_hook_find(u32 hook)
{
	if (hook >= IPTTRACE_HOOKS)
		return NULL;
	return ipttrace_hooks[array_index_nospec(hook, IPTTRACE_HOOKS)];
}

static bool has_attribute(const struct ipttrace_hook_ops *hook, int type)
{
	unsigned int i;

	for (i = 0; i < hook->attribute_count; i++)
		if (hook->attributes[i] == type)
			return true;
	return false;
}

/**
 * ipttrace_hook_foreign - find an attribute that only other kinds of hooks know
 * @hook: the kind
 * @attrs: attributes of an attach request
 *
 * Return: the first such attribute, which @hook refuses rather than ignores, or NULL.
 */
const struct nlattr *ipttrace_hook_foreign(const struct ipttrace_hook_ops *hook,
					   struct nlattr **attrs)
{
	const struct ipttrace_hook_ops *other;
	unsigned int i, j;

	for (i = 1; i < IPTTRACE_HOOKS; i++) {
		other = ipttrace_hooks[i];
		for (j = 0; j < other->attribute_count; j++)
			if (attrs[other->attributes[j]] &&
			    !has_attribute(hook, other->attributes[j]))
				return attrs[other->attributes[j]];
	}
	return NULL;
}

/**
 * ipttrace_hooks_put_size - most space that the place of a link takes in a message
 */
size_t ipttrace_hooks_put_size(void)
{
	size_t size = 0;
	unsigned int i;

	for (i = 1; i < IPTTRACE_HOOKS; i++)
		if (ipttrace_hooks[i]->put_size)
			size = max(size, ipttrace_hooks[i]->put_size());
	return size;
}
