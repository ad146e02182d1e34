// SPDX-License-Identifier: GPL-2.0
/*
 * Functions of the kernel that are watched, or redirected to a replacement of ours, with ftrace.
 * Redirecting is done as livepatch does it.
 */
#include <linux/delay.h>
#include <linux/kprobes.h>

#include "compat/behind.h"
#include "function.h"

/* Attempts to register while others change the same function, with a sleep after each. */
#define REGISTER_TRIES 1000
/*
 * Attempts to find a patch site, with a sleep after each. ftrace_release_mod() takes the pages of a
 * module that goes out of ftrace's list while ftrace_location() walks along it without a lock: a
 * walker that is on such a page misses the rest. And register_kprobe() returns -EINVAL for a
 * function that it has found, and whose module has gone before it looks at the address.
 */
#define SITE_TRIES 10

/* One attempt of ipttrace_site_find(). */
static int site_find(const char *symbol, unsigned long *site)
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
	/* anywhere else there is no patch site to continue behind */
	if (!(kp.flags & KPROBE_FLAG_FTRACE))
		err = -EOPNOTSUPP;
	unregister_kprobe(&kp);
	return err;
}

/**
 * ipttrace_site_find - find where ftrace patches a function
 * @symbol: its name; "module:name" for one of a module
 * @site: set to the address of the patched instruction
 *
 * kallsyms_lookup_name() is not exported. A kprobe that is registered disabled, and so never armed,
 * has the address: behind an ENDBR, where there is one, and so at the site.
 *
 * Context: process, may sleep.
 * Return: 0; -ENOENT if there is no such function; -EOPNOTSUPP if ftrace cannot patch it; or what
 * register_kprobe() returns.
 */
int ipttrace_site_find(const char *symbol, unsigned long *site)
{
	unsigned int tries;
	int err;

	for (tries = 0; tries < SITE_TRIES; tries++) {
		err = site_find(symbol, site);
		if (err != -EOPNOTSUPP && err != -EINVAL)
			break;
		usleep_range(100, 1000);
	}
	return err;
}

/* Adds a site to the filter of a watch, or removes it. */
static int filter_change(struct ipttrace_watch *watch, unsigned long site,
			 int remove)
{
	unsigned int tries;
	int err;

	for (tries = 0; tries < SITE_TRIES; tries++) {
		err = ftrace_set_filter_ip(&watch->ops, site, remove, 0);
		if (err != -EINVAL)
			break;
		usleep_range(100, 1000);
	}
	return err;
}

/* Finds out whether an address lies in the kernel itself: then no " [module]" follows its name. */
static int in_kernel_image(unsigned long address, bool *answer)
{
	char *name = kasprintf(GFP_KERNEL, "%ps", (void *)address);

	if (!name)
		return -ENOMEM;
	*answer = !strchr(name, '[');
	kfree(name);
	return 0;
}

/*
 * Finds a function in its module, or in the kernel if it is built in. A function of the same name
 * in another module must not be taken for it.
 */
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
 * Adds a function to the filter of its watch. That takes effect at once if the watch is registered;
 * otherwise watch_register() must follow. ftrace makes room for BPF trampolines at a function only
 * when the watch is registered. A function that is added later belongs to a module that is just
 * being loaded, and has no trampoline.
 */
static int function_add(struct ipttrace_function *fn,
			struct netlink_ext_ack *extack)
{
	unsigned long site;
	int err;

	err = function_resolve(fn, &site);
	if (err == -EOPNOTSUPP)
		NL_SET_ERR_MSG(extack,
			       "ftrace cannot hook a function of netfilter");
	else if (err && (err != -ENOENT || !fn->module))
		NL_SET_ERR_MSG(extack,
			       "a function of netfilter cannot be found");
	if (err)
		return err;

	/* before the first redirect, which needs them */
	if (fn->behind)
		WRITE_ONCE(*fn->behind, site + IPTTRACE_PATCH_SIZE);
	WRITE_ONCE(fn->site, site);
	err = filter_change(fn->watch, site, 0);
	if (err) {
		WRITE_ONCE(fn->site, 0);
		NL_SET_ERR_MSG(
			extack,
			"ftrace cannot hook a function of netfilter, or something else redirects it (a live patch?)");
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
	 * EAGAIN: BPF programs are being attached to the function, or detached from it, at this
	 * moment
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
			"somebody keeps changing the BPF programs at a function of netfilter: try again");
	else if (err)
		NL_SET_ERR_MSG(
			extack,
			"a function of netfilter is redirected by something else (a live patch?) or ftrace is off (sysctl kernel.ftrace_enabled)");
	return err;
}

/* Unregisters a watch. When it returns, no handler of the watch runs. */
static void watch_unregister(struct ipttrace_watch *watch)
{
	if (watch->registered)
		WARN_ON_ONCE(unregister_ftrace_function(&watch->ops));
	watch->registered = false;
}

/*
 * Removes a function from the filter of its watch. ftrace may have no memory for that. Handlers
 * ignore an address that none of our functions has, and pass a call there on.
 */
static void filter_remove(const struct ipttrace_function *fn)
{
	int err = fn->site ? filter_change(fn->watch, fn->site, 1) : 0;

	if (err)
		pr_warn("ipttrace: ftrace does not forget where %s is: error %d\n",
			fn->symbol, err);
}

/**
 * ipttrace_function_arm - start calling the handler of a function
 * @fn: the function
 * @extack: extended ACK, set on error; may be NULL
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
 * ipttrace_function_disarm - stop calling the handler of a function; its module may go then
 * @fn: the function; need not be armed
 *
 * When it returns, every call of its replacement that was entered before has ended, if it is called
 * in RCU read sections.
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
 * ipttrace_functions_arm - start calling the handlers of functions, where these are loaded
 * @functions: the functions
 * @count: number of functions
 * @extack: extended ACK, set on error
 *
 * Context: process, may sleep.
 * Return: 0, or an errno of ipttrace_function_arm(); then none of them is armed.
 */
int ipttrace_functions_arm(struct ipttrace_function *functions,
			   unsigned int count, struct netlink_ext_ack *extack)
{
	unsigned int i;
	int err = 0;

	might_sleep();
	/* add all functions first, then register the watches: see function_add() */
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
 * @count: number of functions
 *
 * When it returns, no handler of them runs, and no replacement that is called in RCU read sections.
 * That takes grace periods of RCU and RCU-tasks, one for each watch, and hundreds of milliseconds
 * on a busy machine.
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
