// SPDX-License-Identifier: GPL-2.0
/*
 * Functions of the kernel that ftrace shows us or sends to a replacement of ours, as livepatch
 * does it.
 */
#include <linux/delay.h>
#include <linux/kprobes.h>

#include "compat/behind.h"
#include "function.h"

/* How often ftrace may say that it is at work on the same function; it sleeps in between. */
#define REGISTER_TRIES 1000

/**
 * ipttrace_site_find - find where ftrace patches a function
 * @symbol: its name; "module:name" for one of a module
 * @site: told the address of the patched instruction
 *
 * kallsyms_lookup_name() is not exported; a probe that is registered disabled, and so never armed,
 * tells the address: behind an ENDBR, where there is one, and so at the site.
 *
 * Context: process, may sleep.
 * Return: 0; -ENOENT if there is no such function; -EOPNOTSUPP if ftrace cannot patch it; or what
 * register_kprobe() returns.
 */
int ipttrace_site_find(const char *symbol, unsigned long *site)
{
	struct kprobe kp = {
		.symbol_name = symbol,
		.flags = KPROBE_FLAG_DISABLED,
	};
	int err;

	err = register_kprobe(&kp);
	if (err)
		return err;
	*site = (unsigned long)kp.addr;
	/* anywhere else there is nothing to go on behind */
	if (!(kp.flags & KPROBE_FLAG_FTRACE))
		err = -EOPNOTSUPP;
	unregister_kprobe(&kp);
	return err;
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
			    unsigned long *site)
{
	bool built_in;
	char *name;
	int err;

	if (!fn->module)
		return ipttrace_site_find(fn->symbol, site);

	name = kasprintf(GFP_KERNEL, "%s:%s", fn->module, fn->symbol);
	if (!name)
		return -ENOMEM;
	err = ipttrace_site_find(name, site);
	kfree(name);
	if (err != -ENOENT)
		return err;

	err = ipttrace_site_find(fn->symbol, site);
	if (!err)
		err = in_kernel_image(*site, &built_in);
	if (!err && !built_in)
		err = -ENOENT;
	return err;
}

/*
 * Adds a function to what its watch is called for: from now on if that is registered. Otherwise
 * watch_register() must follow. ftrace makes room for BPF trampolines at a function when the watch
 * is registered only; one that is added later is of a module that is just coming, and has none.
 */
static int function_add(struct ipttrace_function *fn,
			struct netlink_ext_ack *extack)
{
	unsigned long site;
	int err;

	err = function_resolve(fn, &site);
	if (err == -EOPNOTSUPP)
		NL_SET_ERR_MSG(
			extack,
			"ftrace cannot hook a function of the table code");
	else if (err && (err != -ENOENT || !fn->module))
		NL_SET_ERR_MSG(extack,
			       "a function of the table code cannot be found");
	if (err)
		return err;

	/* before the first redirect, which needs them */
	if (fn->behind)
		WRITE_ONCE(*fn->behind, site + IPTTRACE_PATCH_SIZE);
	WRITE_ONCE(fn->site, site);
	err = ftrace_set_filter_ip(&fn->watch->ops, site, 0, 0);
	if (err) {
		WRITE_ONCE(fn->site, 0);
		NL_SET_ERR_MSG(
			extack,
			"ftrace cannot hook a function of the table code, or something else redirects it (a live patch?)");
		return err;
	}
	fn->watch->armed++;
	return 0;
}

static int watch_register(struct ipttrace_watch *watch,
			  struct netlink_ext_ack *extack)
{
	unsigned int tries;
	int err;

	if (watch->registered || !watch->armed)
		return 0;
	/*
	 * EAGAIN: somebody attaches BPF programs to the function, or detaches them, at this moment
	 */
	for (tries = 0; tries < REGISTER_TRIES; tries++) {
		err = register_ftrace_function(&watch->ops);
		if (err != -EAGAIN)
			break;
		usleep_range(100, 1000);
	}
	watch->registered = !err;
	if (err == -EAGAIN)
		NL_SET_ERR_MSG(
			extack,
			"somebody keeps changing the BPF programs at a function of the table code: try again");
	else if (err)
		NL_SET_ERR_MSG(
			extack,
			"the table code is redirected by something else (a live patch?) or ftrace is off (sysctl kernel.ftrace_enabled)");
	return err;
}

/* When it returns, no handler of the watch runs. */
static void watch_unregister(struct ipttrace_watch *watch)
{
	if (watch->registered)
		WARN_ON_ONCE(unregister_ftrace_function(&watch->ops));
	watch->registered = false;
}

/*
 * ftrace may have no memory for that: handlers pass over an address that none of our functions
 * has.
 */
static void filter_remove(const struct ipttrace_function *fn)
{
	if (fn->site && ftrace_set_filter_ip(&fn->watch->ops, fn->site, 1, 0))
		pr_warn("ipttrace: no memory to forget where %s is\n",
			fn->symbol);
}

/**
 * ipttrace_function_arm - start calling the handler of a function
 * @fn: the function
 * @extack: told what stands in the way; may be NULL
 *
 * Context: process, may sleep.
 * Return: 0, also if it is armed already; -ENOENT if there is no such function (yet); -ENOMEM;
 * -EBUSY if something else redirects it or ftrace is off; -EOPNOTSUPP if ftrace does not know it;
 * -EAGAIN if BPF programs come and go there all the time; another errno of kprobes or ftrace.
 */
int ipttrace_function_arm(struct ipttrace_function *fn,
			  struct netlink_ext_ack *extack)
{
	int err;

	might_sleep();
	if (fn->site)
		return 0;
	err = function_add(fn, extack);
	if (err)
		return err;
	err = watch_register(fn->watch, extack);
	if (err)
		ipttrace_function_disarm(fn);
	return err;
}

/**
 * ipttrace_function_disarm - stop calling the handler of a function, whose module may go
 * @fn: the function; may be not armed
 *
 * When it returns, no replacement of it runs that was entered before.
 *
 * Context: process, may sleep.
 */
void ipttrace_function_disarm(struct ipttrace_function *fn)
{
	struct ipttrace_watch *watch = fn->watch;

	might_sleep();
	if (!fn->site)
		return;
	if (watch->armed == 1)
		watch_unregister(watch);
	filter_remove(fn);
	watch->armed--;
	synchronize_rcu();
	WRITE_ONCE(fn->site, 0);
}

/**
 * ipttrace_functions_arm - start calling the handlers of functions, as far as these are there
 * @functions: the functions
 * @count: how many
 * @extack: told what stands in the way
 *
 * Context: process, may sleep.
 * Return: 0, or what ipttrace_function_arm() returns; then none of them is armed.
 */
int ipttrace_functions_arm(struct ipttrace_function *functions,
			   unsigned int count, struct netlink_ext_ack *extack)
{
	unsigned int i;
	int err = 0;

	might_sleep();
	/* all of them first, then the watches: see function_add() */
	for (i = 0; i < count && !err; i++) {
		if (functions[i].site)
			continue;
		err = function_add(&functions[i], extack);
		if (err == -ENOENT && functions[i].module)
			err = 0;
	}
	for (i = 0; i < count && !err; i++)
		err = watch_register(functions[i].watch, extack);
	if (err)
		ipttrace_functions_disarm(functions, count);
	return err;
}

/**
 * ipttrace_functions_disarm - stop calling the handlers of functions
 * @functions: all functions of their watches
 * @count: how many
 *
 * When it returns, no handler and no replacement of them runs. That takes grace periods of RCU and
 * RCU-tasks, one for each watch, and hundreds of milliseconds on a busy machine.
 *
 * Context: process, may sleep.
 */
void ipttrace_functions_disarm(struct ipttrace_function *functions,
			       unsigned int count)
{
	unsigned int i;

	might_sleep();
	for (i = 0; i < count; i++)
		watch_unregister(functions[i].watch);
	for (i = 0; i < count; i++) {
		filter_remove(&functions[i]);
		functions[i].watch->armed = 0;
	}
	synchronize_rcu();
	for (i = 0; i < count; i++)
		WRITE_ONCE(functions[i].site, 0);
}
