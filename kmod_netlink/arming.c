// SPDX-License-Identifier: GPL-2.0
/*
 * Functions of the kernel are watched while there are links at their kinds of hooks, and while the
 * modules that hold these functions are loaded.
 */
#include <linux/module.h>

#include "arming.h"
#include "hook.h"
#include "link.h"
#include "message.h"

static bool any_links(const struct ipttrace_arming *arming)
{
	bool any = false;
	unsigned int i;

	mutex_lock(&ipttrace_lock);
	for_each_set_bit(i, &arming->hooks, IPTTRACE_HOOKS)
		any |= ipttrace_links_count(i);
	mutex_unlock(&ipttrace_lock);
	return any;
}

static void settle(const struct ipttrace_arming *arming)
{
	if (arming->settle)
		arming->settle();
}

static bool all_armed(const struct ipttrace_arming *arming)
{
	unsigned int i;

	for (i = 0; i < arming->count; i++)
		if (!ipttrace_function_armed(&arming->functions[i]))
			return false;
	return true;
}

static void tell_watched(const struct ipttrace_arming *arming, bool all)
{
	if (arming->watched)
		arming->watched(all);
}

/*
 * Stops watching unless there is a link. None can be made meanwhile: it would arm first. A packet
 * that passes until then finds no sets and goes on.
 */
static void disarm(struct work_struct *work)
{
	struct ipttrace_arming *arming =
		container_of(work, struct ipttrace_arming, disarm);

	mutex_lock(&arming->lock);
	if (arming->armed && !any_links(arming)) {
		arming->armed = false;
		tell_watched(arming, false);
		ipttrace_functions_disarm(arming->functions, arming->count);
		settle(arming);
	}
	mutex_unlock(&arming->lock);
}

/**
 * ipttrace_arming_release - have the functions disarmed if no link is left; does not wait
 * @arming: the functions
 */
void ipttrace_arming_release(struct ipttrace_arming *arming)
{
	queue_work(system_unbound_wq, &arming->disarm);
}

static int arm(struct ipttrace_arming *arming, struct netlink_ext_ack *extack)
{
	int err = arming->resolve ? arming->resolve(extack) : 0;

	/* the module comes later */
	if (err == -ENOENT)
		return 0;
	if (!err)
		err = ipttrace_functions_arm(arming->functions, arming->count,
					     extack);
	if (err)
		return err;
	settle(arming);
	tell_watched(arming, all_armed(arming));
	return 0;
}

/**
 * ipttrace_arming_begin - watch the functions: at once where they are loaded, the others later
 * @arming: the functions
 * @extack: extended ACK, set on error
 *
 * Waits for disarming that is under way. On success ipttrace_arming_end() must follow, when the
 * link is listed or was not made.
 *
 * Context: process, may sleep, without ipttrace_lock.
 * Return: 0, or an errno of ipttrace_functions_arm() or of resolve.
 */
int ipttrace_arming_begin(struct ipttrace_arming *arming,
			  struct netlink_ext_ack *extack)
{
	int err = 0;

	mutex_lock(&arming->lock);
	if (!arming->armed)
		err = arm(arming, extack);
	if (err)
		mutex_unlock(&arming->lock);
	else
		arming->armed = true;
	return err;
}

/**
 * ipttrace_arming_end - end ipttrace_arming_begin()
 * @arming: the functions
 */
void ipttrace_arming_end(struct ipttrace_arming *arming)
{
	if (!any_links(arming))
		ipttrace_arming_release(arming);
	mutex_unlock(&arming->lock);
}

/* --- modules that hold functions ----------------------------------------------------------- */

static bool holds(const struct module *module,
		  const struct ipttrace_function *fn)
{
	return fn->module && !strcmp(fn->module, module->name);
}

static bool holds_any(const struct module *module,
		      const struct ipttrace_arming *arming)
{
	unsigned int i;

	for (i = 0; i < arming->count; i++)
		if (holds(module, &arming->functions[i]))
			return true;
	return false;
}

static int arm_function(const struct ipttrace_arming *arming,
			struct ipttrace_function *fn)
{
	int err = arming->resolve ? arming->resolve(NULL) : 0;

	return err ?: ipttrace_function_arm(fn, NULL);
}

/* Arms a function when its module comes, disarms it before its text goes. True if links show it. */
static bool follow_module(const struct ipttrace_arming *arming,
			  struct ipttrace_function *fn, unsigned long event)
{
	int err;

	if (event == MODULE_STATE_GOING) {
		ipttrace_function_disarm(fn);
	} else {
		err = arm_function(arming, fn);
		if (err)
			pr_warn("ipttrace: %s of module %s cannot be watched: error %d\n",
				fn->symbol, fn->module, err);
	}
	return fn->shown;
}

static int module_event(struct notifier_block *nb, unsigned long event,
			void *data)
{
	struct ipttrace_arming *arming =
		container_of(nb, struct ipttrace_arming, modules);
	const struct module *module = data;
	bool changed = false;
	unsigned int i;

	if (event != MODULE_STATE_COMING && event != MODULE_STATE_GOING)
		return NOTIFY_DONE;
	if (!holds_any(module, arming))
		return NOTIFY_DONE;

	mutex_lock(&arming->lock);
	for (i = 0; arming->armed && i < arming->count; i++)
		if (holds(module, &arming->functions[i]))
			changed |= follow_module(arming, &arming->functions[i],
						 event);
	/* nobody is in a module that comes, and nobody is left in one that goes */
	if (arming->armed)
		tell_watched(arming, all_armed(arming));
	if (changed) {
		mutex_lock(&ipttrace_lock);
		ipttrace_notify_changed();
		mutex_unlock(&ipttrace_lock);
	}
	mutex_unlock(&arming->lock);
	return NOTIFY_OK;
}

/**
 * ipttrace_arming_init - register for modules that come and go
 * @arming: the functions
 *
 * Return: 0 or an errno.
 */
int ipttrace_arming_init(struct ipttrace_arming *arming)
{
	INIT_WORK(&arming->disarm, disarm);
	arming->modules.notifier_call = module_event;
	return register_module_notifier(&arming->modules);
}

/**
 * ipttrace_arming_exit - undo ipttrace_arming_init(); no link may be left
 * @arming: the functions
 */
void ipttrace_arming_exit(struct ipttrace_arming *arming)
{
	/* as long as functions are watched, it has to be known that their modules go */
	flush_work(&arming->disarm);
	unregister_module_notifier(&arming->modules);
	WARN_ON_ONCE(arming->armed);
}
