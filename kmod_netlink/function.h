/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_FUNCTION_H
#define _IPTTRACE_FUNCTION_H

#include <linux/ftrace.h>
#include <linux/module.h>
#include <linux/netlink.h>

/**
 * struct ipttrace_watch - an ftrace handler and the functions that it is called for
 * @ops: calls the handler; its filter holds the sites of the functions that are armed
 * @armed: number of these functions
 * @registered: whether @ops is registered; never while @armed is 0, since an empty filter means
 *	every function of the kernel
 *
 * Protected by the lock of the caller, see struct ipttrace_function.
 */
struct ipttrace_watch {
	struct ftrace_ops ops;
	unsigned int armed;
	bool registered;
};

/**
 * struct ipttrace_function - a kernel function that we watch or redirect with ftrace
 * @symbol: its name
 * @module: module that may hold it; if that is loaded later, the function is armed then
 * @watch: whose handler is called for it; the handler finds the function by its site
 * @replacement: target of calls that the handler redirects; NULL if it only watches
 * @behind: set to the address behind the patch site of the function (compat/behind.h), or NULL
 * @skb_arg: index of the argument that is the sk_buff
 * @pf: protocol family whose tables it walks, or NFPROTO_UNSPEC
 * @shown: links show whether it is armed
 * @site: where ftrace patches the function: the first instruction, or the one behind an ENDBR; 0
 *	while it is not armed
 *
 * Constant except for @site and *@behind. These are written under the lock of the callers of
 * ipttrace_functions_arm() and the like, before the handler can be called. Replacements read them,
 * and none runs later than an RCU grace period after the last call of the handler. *@behind stays.
 */
struct ipttrace_function {
	const char *symbol;
	const char *module;
	struct ipttrace_watch *watch;
	void *replacement;
	unsigned long *behind;
	unsigned int skb_arg;
	u8 pf;
	bool shown;
	unsigned long site;
};

/* A hint without the lock. */
static inline bool ipttrace_function_armed(const struct ipttrace_function *fn)
{
	return READ_ONCE(fn->site);
}

int ipttrace_site_find(const char *symbol, unsigned long *site);
int ipttrace_function_arm(struct ipttrace_function *fn,
			  struct netlink_ext_ack *extack);
void ipttrace_function_disarm(struct ipttrace_function *fn);
int ipttrace_functions_arm(struct ipttrace_function *functions,
			   unsigned int count, struct netlink_ext_ack *extack);
void ipttrace_functions_disarm(struct ipttrace_function *functions,
			       unsigned int count);

#endif /* _IPTTRACE_FUNCTION_H */
