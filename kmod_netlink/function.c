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
static int symbol_find(const char *symbol, unsigned long *address)
{
	struct kprobe kp = {
		.symbol_name = symbol,
		.flags = KPROBE_FLAG_DISABLED,
	};
	int err;

	err = register_kprobe(&kp);
	if (err)
		return err;
	*address = ipttrace_kprobe_function(&kp);
	unregister_kprobe(&kp);
	return 0;
}

/* Whether the address lies in the kernel itself: then its name has no " [module]" behind it. */
static int in_kernel_image(unsigned long address, bool *answer)
{
	char *name = kasprintf(GFP_KERNEL, "%ps", (void *)address);

	if (!name)
		return -ENOMEM;
	*answer = !strchr(name, '[');
	kfree(name);
	return 0;
}

/* Another module may have a function of the same name: ours must not be taken for it. */
static int function_resolve(const struct ipttrace_function *fn,
			    unsigned long *address)
{
	bool built_in;
	char *name;
	int err;

	if (!fn->module)
		return symbol_find(fn->symbol, address);

	name = kasprintf(GFP_KERNEL, "%s:%s", fn->module, fn->symbol);
	if (!name)
		return -ENOMEM;
	err = symbol_find(name, address);
	kfree(name);
	if (err != -ENOENT)
		return err;

	err = symbol_find(fn->symbol, address);
	if (!err)
		err = in_kernel_image(*address, &built_in);
	if (!err && !built_in)
		err = -ENOENT;
	return err;
}

/**
 * ipttrace_function_arm - start calling the handler of a function
 * @fn: the function
 * @extack: told what stands in the way; may be NULL
 *
 * Context: process, may sleep.
 * Return: 0, also if it is armed already; -ENOENT if there is no such function (yet); -ENOMEM;
 * -EBUSY if something else redirects it or ftrace is off; another errno of kprobes or ftrace.
 */
int ipttrace_function_arm(struct ipttrace_function *fn,
			  struct netlink_ext_ack *extack)
{
	unsigned long address;
	int err;

	might_sleep();
	if (fn->address)
		return 0;

	err = function_resolve(fn, &address);
	if (err) {
		if (err != -ENOENT || !fn->module)
			NL_SET_ERR_MSG(
				extack,
				"a function of the table code cannot be found");
		return err;
	}

	/* not traced functions and a kernel built otherwise end here */
	err = ftrace_set_filter_ip(&fn->ops, address, 0, 0);
	if (err) {
		NL_SET_ERR_MSG(
			extack,
			"ftrace cannot hook a function of the table code");
		return err;
	}
	/* before the first redirect, which needs it */
	fn->address = address;
	err = register_ftrace_function(&fn->ops);
	if (err) {
		fn->address = 0;
		ftrace_set_filter_ip(&fn->ops, address, 1, 0);
		NL_SET_ERR_MSG(
			extack,
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
