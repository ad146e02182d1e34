/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_FUNCTION_H
#define _IPTTRACE_FUNCTION_H

#include <linux/ftrace.h>
#include <linux/module.h>
#include <linux/netlink.h>

/**
 * struct ipttrace_function - a kernel function that we watch or redirect with ftrace
 * @symbol: its name
 * @module: module that it may live in; when that is loaded later, the function is armed then
 * @replacement: where a call goes that the handler redirects; NULL if it only watches
 * @skb_arg: which argument is the sk_buff
 * @pf: protocol family whose tables it walks, or NFPROTO_UNSPEC
 * @ops: calls the handler
 * @address: start of the function, to call it; 0 while it is not armed
 *
 * All but @address is constant. @address is written under the lock of the caller of
 * ipttrace_function_arm() and ipttrace_function_disarm(); replacements read it: they run only
 * between the two and an RCU grace period later at most.
 */
struct ipttrace_function {
	const char *symbol;
	const char *module;
	void *replacement;
	unsigned int skb_arg;
	u8 pf;
	struct ftrace_ops ops;
	unsigned long address;
};

static inline bool ipttrace_function_armed(const struct ipttrace_function *fn)
{
	return fn->address;
}

int ipttrace_function_arm(struct ipttrace_function *fn,
			  struct netlink_ext_ack *extack);
void ipttrace_function_disarm(struct ipttrace_function *fn);

#endif /* _IPTTRACE_FUNCTION_H */
