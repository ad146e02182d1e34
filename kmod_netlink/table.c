// SPDX-License-Identifier: GPL-2.0
/*
 * The table hook: which functions of the kernel are watched for it, while there are links and while
 * the modules that hold them are there.
 */
#include <linux/module.h>
#include <linux/netfilter.h>
#include <linux/workqueue.h>

#include "link.h"
#include "message.h"
#include "table.h"
#include "traverse.h"

/*
 * Serialises arming and disarming, outside ipttrace_lock: who waits for that does not wait for
 * ftrace, which takes grace periods of RCU-tasks to take a handler away.
 */
static DEFINE_MUTEX(arming_lock);
/* Under arming_lock: functions are armed, and are when their modules come. */
static bool arming;

/**
 * ipttrace_table_armed - which tables are watched
 * @family: NFPROTO_IPV4, NFPROTO_IPV6, or NFPROTO_UNSPEC for both
 *
 * Return: IPTTRACE_ARMED_* bits; one is missing while the table code is not loaded.
 */
u32 ipttrace_table_armed(u32 family)
{
	const struct ipttrace_function *ipv4 =
		&ipttrace_functions[IPTTRACE_IPT_DO_TABLE];
	const struct ipttrace_function *ipv6 =
		&ipttrace_functions[IPTTRACE_IP6T_DO_TABLE];
	u32 armed = 0;

	lockdep_assert_held(&ipttrace_lock);
	if (family != NFPROTO_IPV6 && ipttrace_function_armed(ipv4))
		armed |= IPTTRACE_ARMED_IPV4;
	if (family != NFPROTO_IPV4 && ipttrace_function_armed(ipv6))
		armed |= IPTTRACE_ARMED_IPV6;
	return armed;
}

static bool any_links(void)
{
	bool any;

	mutex_lock(&ipttrace_lock);
	any = ipttrace_links_count(IPTTRACE_HOOK_TABLE);
	mutex_unlock(&ipttrace_lock);
	return any;
}

/*
 * Watches no table any more unless there is a link. None can come meanwhile: it would arm first. A
 * packet that passes until then finds no sets and goes on.
 */
static void disarm(struct work_struct *work)
{
	mutex_lock(&arming_lock);
	if (arming && !any_links()) {
		arming = false;
		ipttrace_functions_disarm(ipttrace_functions,
					  IPTTRACE_FUNCTIONS);
	}
	mutex_unlock(&arming_lock);
}

static DECLARE_WORK(disarm_work, disarm);

/**
 * ipttrace_table_release - a link at tables went: maybe no table need be watched
 *
 * Context: process; does not wait.
 */
void ipttrace_table_release(void)
{
	queue_work(system_unbound_wq, &disarm_work);
}

/**
 * ipttrace_table_arm - watch the tables, those whose code is loaded now and the others later
 * @extack: told what stands in the way
 *
 * Must be called before ipttrace_lock is taken, to list a link. Waits for disarming that is under
 * way.
 *
 * Return: 0, and then ipttrace_table_armed_end() must follow; or what ipttrace_functions_arm()
 * returns.
 */
int ipttrace_table_arm(struct netlink_ext_ack *extack)
{
	int err = 0;

	mutex_lock(&arming_lock);
	if (!arming)
		err = ipttrace_functions_arm(ipttrace_functions,
					     IPTTRACE_FUNCTIONS, extack);
	if (err)
		mutex_unlock(&arming_lock);
	else
		arming = true;
	return err;
}

/**
 * ipttrace_table_armed_end - the link for which the tables are watched is listed, or was not made
 */
void ipttrace_table_armed_end(void)
{
	if (!any_links())
		ipttrace_table_release();
	mutex_unlock(&arming_lock);
}

/**
 * ipttrace_table_prepare - what ipttrace_table_publish() needs for the links as they are listed
 * @gfp: with __GFP_NOFAIL it cannot fail
 *
 * Return: it, NULL if there are no table links, or ERR_PTR(-ENOMEM).
 */
struct ipttrace_sets *ipttrace_table_prepare(gfp_t gfp)
{
	return ipttrace_links_sets(IPTTRACE_HOOK_TABLE, gfp);
}

/**
 * ipttrace_table_publish - put the program sets of all table links in force, in one step
 * @sets: of ipttrace_table_prepare()
 *
 * Return: what the caller passes to kfree() a grace period later: then no packet is handled by what
 * was in force before.
 */
struct ipttrace_sets *ipttrace_table_publish(struct ipttrace_sets *sets)
{
	return ipttrace_traverse_publish(sets);
}

static bool holds_functions(const struct module *module)
{
	unsigned int i;

	for (i = 0; i < IPTTRACE_FUNCTIONS; i++)
		if (ipttrace_functions[i].module &&
		    !strcmp(ipttrace_functions[i].module, module->name))
			return true;
	return false;
}

/* Arms a function when its module comes, disarms it before its text goes; true if links show it. */
static bool follow_module(struct ipttrace_function *fn, unsigned long event)
{
	int err;

	if (event == MODULE_STATE_GOING) {
		ipttrace_function_disarm(fn);
	} else {
		err = ipttrace_function_arm(fn, NULL);
		if (err)
			pr_warn("ipttrace: %s of module %s cannot be watched: error %d\n",
				fn->symbol, fn->module, err);
	}
	return fn->pf != NFPROTO_UNSPEC;
}

static int module_event(struct notifier_block *nb, unsigned long event,
			void *data)
{
	const struct module *module = data;
	bool changed = false;
	unsigned int i;

	if (event != MODULE_STATE_COMING && event != MODULE_STATE_GOING)
		return NOTIFY_DONE;
	if (!holds_functions(module))
		return NOTIFY_DONE;

	mutex_lock(&arming_lock);
	for (i = 0; arming && i < IPTTRACE_FUNCTIONS; i++) {
		struct ipttrace_function *fn = &ipttrace_functions[i];

		if (fn->module && !strcmp(fn->module, module->name))
			changed |= follow_module(fn, event);
	}
	if (changed) {
		mutex_lock(&ipttrace_lock);
		ipttrace_notify_changed();
		mutex_unlock(&ipttrace_lock);
	}
	mutex_unlock(&arming_lock);
	return NOTIFY_OK;
}

static struct notifier_block module_notifier = {
	.notifier_call = module_event,
};

/**
 * ipttrace_table_init - begin to follow modules coming and going
 *
 * Return: 0 or an errno.
 */
int ipttrace_table_init(void)
{
	return register_module_notifier(&module_notifier);
}

/**
 * ipttrace_table_exit - end it; no link may be left
 */
void ipttrace_table_exit(void)
{
	unregister_module_notifier(&module_notifier);
	flush_work(&disarm_work);
	WARN_ON_ONCE(arming);
}
