// SPDX-License-Identifier: GPL-2.0
/*
 * Functions of the kernel that ftrace shows us or sends to a replacement of ours, as livepatch
 * does it.
 */
#include "compat/kprobes.h"
#include "function.h"

/*
 * Finds a function by name. kallsyms_lookup_name() is not exported; a probe that is registered
 * disabled, and so never armed, tells the address.
 */
static unsigned long function_resolve(const char *module, const char *symbol)
{
	struct kprobe kp = { .symbol_name = symbol, .flags = KPROBE_FLAG_DISABLED };
	unsigned long address = 0;
	char *qualified = NULL;

	if (module) {
		/* two modules may have a function of this name */
		qualified = kasprintf(GFP_KERNEL, "%s:%s", module, symbol);
		if (!qualified)
			return 0;
		kp.symbol_name = qualified;
	}
	if (!register_kprobe(&kp)) {
		address = ipttrace_kprobe_function(&kp);
		unregister_kprobe(&kp);
	}
	kfree(qualified);
	return address;
}

/**
 * ipttrace_function_arm - start calling the handler of a function
 * @fn: the function
 * @extack: told what stands in the way; may be NULL
 *
 * Context: process, may sleep.
 * Return: 0, also if it is armed already; -ENOENT if there is no such function (yet);
 * -EBUSY if something else redirects it or ftrace is off; another errno of ftrace.
 */
int ipttrace_function_arm(struct ipttrace_function *fn, struct netlink_ext_ack *extack)
{
	unsigned long address;
	int err;

	might_sleep();
	if (fn->address)
		return 0;

	address = function_resolve(fn->module, fn->symbol);
	if (!address)
		return -ENOENT;

	/* not traced functions and a kernel built otherwise end here */
	err = ftrace_set_filter_ip(&fn->ops, address, 0, 0);
	if (err) {
		NL_SET_ERR_MSG(extack, "ftrace cannot hook a function of the table code");
		return err;
	}
	/* before the first redirect, which needs it */
	fn->address = address;
	err = register_ftrace_function(&fn->ops);
	if (err) {
		fn->address = 0;
		ftrace_set_filter_ip(&fn->ops, address, 1, 0);
		NL_SET_ERR_MSG(extack,
			       "the table code is redirected by something else (a live patch?) or ftrace is off (sysctl kernel.ftrace_enabled)");
	}
	return err;
}

/**
 * ipttrace_function_disarm - stop calling the handler of a function
 * @fn: the function; may be not armed
 *
 * When it returns, no handler runs. Replacements that were entered may; they end with the RCU read
 * sections of the hooks that called them.
 *
 * Context: process, may sleep.
 */
void ipttrace_function_disarm(struct ipttrace_function *fn)
{
	might_sleep();
	if (!fn->address)
		return;
	WARN_ON_ONCE(unregister_ftrace_function(&fn->ops));
	ftrace_set_filter_ip(&fn->ops, fn->address, 1, 0);
	synchronize_rcu();
	fn->address = 0;
}
