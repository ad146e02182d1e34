// SPDX-License-Identifier: GPL-2.0
/*
 * Functions and variables of nf_tables that the walk needs and that modules cannot link to.
 */
#include <linux/netlink.h>
#include <linux/slab.h>

#include "compat/behind.h"
#include "function.h"
#include "nft_symbols.h"
#include "symbol.h"
#include "verify.h"
#include "walk.h"

#define MODULE_NAME "nf_tables"

static const void *symbol(const char *name)
{
	return (const void *)ipttrace_module_symbol_find(MODULE_NAME, name);
}

/* Finds where a function goes on behind its patch site. */
static int find_behind(const char *name, unsigned long *behind)
{
	unsigned long site;
	char *both;
	int err;

	both = kasprintf(GFP_KERNEL, MODULE_NAME ":%s", name);
	if (!both)
		return -ENOMEM;
	err = ipttrace_site_find(both, &site);
	kfree(both);
	/* built in */
	if (err == -ENOENT)
		err = ipttrace_site_find(name, &site);
	if (!err)
		*behind = site + IPTTRACE_PATCH_SIZE;
	return err;
}

/**
 * ipttrace_nft_resolve - find what the walk needs of nf_tables besides nft_do_chain()
 * @extack: extended ACK, set on error; may be NULL
 *
 * Context: process, may sleep; nft_do_chain() is not redirected.
 * Return: 0; -ENOENT if nf_tables is not loaded; -EOPNOTSUPP, -ENOMEM, or an errno of kprobes.
 */
int ipttrace_nft_resolve(struct netlink_ext_ack *extack)
{
	int err;

	err = find_behind("nft_trace_init",
			  &ipttrace_behind_nft_trace_init_address);
	if (!err)
		err = find_behind("nft_trace_notify",
				  &ipttrace_behind_nft_trace_notify_address);
	if (err == -ENOENT || err == -ENOMEM)
		return err;
	ipttrace_walk_dropping_init();
	ipttrace_nft.cmp_fast = symbol("nft_cmp_fast_ops");
	ipttrace_nft.cmp16_fast = symbol("nft_cmp16_fast_ops");
	ipttrace_nft.bitwise_fast = symbol("nft_bitwise_fast_ops");
	ipttrace_nft.payload_fast = symbol("nft_payload_fast_ops");
	ipttrace_nft.trace_enabled = symbol("nft_trace_enabled");
	ipttrace_nft.net_id = symbol("nf_tables_net_id");
	if (err || !ipttrace_nft.cmp_fast || !ipttrace_nft.cmp16_fast ||
	    !ipttrace_nft.bitwise_fast || !ipttrace_nft.payload_fast ||
	    !ipttrace_nft.trace_enabled || !ipttrace_nft.net_id) {
		NL_SET_ERR_MSG(
			extack,
			"the kernel hides symbols of nf_tables that walking through its chains needs (CONFIG_KALLSYMS_ALL)");
		return -EOPNOTSUPP;
	}
	return ipttrace_verify_layouts(extack);
}
