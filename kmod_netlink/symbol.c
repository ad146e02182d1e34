// SPDX-License-Identifier: GPL-2.0
/*
 * Symbols that the kernel does not export, as /proc/kallsyms lists them.
 */
#include <linux/mutex.h>
#include <linux/slab.h>

#include "compat/behind.h"
#include "function.h"
#include "symbol.h"

static DEFINE_MUTEX(find_lock);

/**
 * ipttrace_symbol_find - find a symbol of the kernel or of a module
 * @name: its name; "module:name" for one of a module
 *
 * Context: process, may sleep.
 * Return: its address, or 0 if there is none, or the kernel does not tell.
 */
unsigned long ipttrace_symbol_find(const char *name)
{
	unsigned long site, address = 0;

	mutex_lock(&find_lock);
	if (!ipttrace_behind_kallsyms_lookup_name_address &&
	    !ipttrace_site_find("kallsyms_lookup_name", &site))
		ipttrace_behind_kallsyms_lookup_name_address =
			site + IPTTRACE_PATCH_SIZE;
	if (ipttrace_behind_kallsyms_lookup_name_address)
		address = ipttrace_behind_kallsyms_lookup_name(name);
	mutex_unlock(&find_lock);
	return address;
}

/**
 * ipttrace_module_symbol_find - find a symbol in its module, or in the kernel if it is built in
 * @module: name of the module
 * @name: name of the symbol, which no other part of the kernel has
 *
 * Context: process, may sleep.
 * Return: its address, or 0.
 */
unsigned long ipttrace_module_symbol_find(const char *module, const char *name)
{
	char *both = kasprintf(GFP_KERNEL, "%s:%s", module, name);
	unsigned long address;

	if (!both)
		return 0;
	address = ipttrace_symbol_find(both);
	kfree(both);
	return address ?: ipttrace_symbol_find(name);
}
