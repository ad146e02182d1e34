// SPDX-License-Identifier: GPL-2.0
/*
 * The table hook. It watches functions of the kernel while there are links, and while the modules
 * that hold these functions are loaded.
 */
#include <linux/module.h>
#include <linux/netfilter.h>
#include <linux/slab.h>
#include <linux/workqueue.h>
#include <net/netlink.h>

#include "link.h"
#include "message.h"
#include "program.h"
#include "table.h"
#include "traverse.h"

/*
 * Serialises arming and disarming, outside ipttrace_lock: nobody who waits for that lock waits for
 * ftrace, which takes grace periods of RCU-tasks to remove a handler.
 */
static DEFINE_MUTEX(arming_lock);
/* Under arming_lock: functions are armed now, or as soon as their modules are loaded. */
static bool arming;

/* --- requests ------------------------------------------------------------------------------ */

/* Checks a request and keeps nothing: the place is only the family, which the link has. */
static int table_parse(struct ipttrace_link_spec *spec, struct nlattr **attrs,
		       struct netlink_ext_ack *extack)
{
	const struct nlattr *foreign =
		ipttrace_hook_foreign(&ipttrace_table_hook, attrs);

	if (foreign) {
		NL_SET_ERR_MSG_ATTR(
			extack, foreign,
			"tables have no hook number, priority, namespace, device or mode: netfilter hooks do");
		return -EINVAL;
	}
	if (spec->flags & IPTTRACE_LINK_FLAG_REPORT_DROPS) {
		NL_SET_ERR_MSG_ATTR(extack, attrs[IPTTRACE_A_FLAGS],
				    "a link at tables drops no packets");
		return -EINVAL;
	}
	if (spec->family != NFPROTO_UNSPEC && spec->family != NFPROTO_IPV4 &&
	    spec->family != NFPROTO_IPV6) {
		NL_SET_ERR_MSG_ATTR(
			extack, attrs[IPTTRACE_A_FAMILY],
			"tables are of family 2 (IPv4) or 10 (IPv6)");
		return -EAFNOSUPPORT;
	}
	return 0;
}

static int table_takes(u32 family, const struct ipttrace_set *set,
		       const struct nlattr *attr,
		       struct netlink_ext_ack *extack)
{
	if (set->slots & BIT(IPTTRACE_SLOT_PACKET)) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the packet slot is of netfilter hooks; tables have entry, rule and exit");
		return -EINVAL;
	}
	return 0;
}

/* --- arming -------------------------------------------------------------------------------- */

static bool any_links(void)
{
	bool any;

	mutex_lock(&ipttrace_lock);
	any = ipttrace_links_count(IPTTRACE_HOOK_TABLE);
	mutex_unlock(&ipttrace_lock);
	return any;
}

/*
 * Stops watching tables unless there is a link. None can be made meanwhile: it would arm first. A
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

/* Has the functions disarmed if no link at tables is left. */
static void table_release(void)
{
	queue_work(system_unbound_wq, &disarm_work);
}

/*
 * Watches the tables: at once where their code is loaded, the others later. Waits for disarming
 * that is under way. Returns 0, or an errno of ipttrace_functions_arm().
 */
static int table_begin(const struct ipttrace_link_spec *spec,
		       struct netlink_ext_ack *extack)
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

/* Ends table_begin(): the link is listed by now, or was not made. */
static void table_end(const struct ipttrace_link_spec *spec)
{
	if (!any_links())
		table_release();
	mutex_unlock(&arming_lock);
}

/* --- links --------------------------------------------------------------------------------- */

/*
 * Collects the sets of all links at tables: a packet meets them all, so they are published
 * together.
 */
static struct ipttrace_sets *table_prepare(gfp_t gfp)
{
	return ipttrace_links_sets(IPTTRACE_HOOK_TABLE, gfp);
}

static struct ipttrace_sets *table_publish(struct ipttrace_sets *prepared,
					   const struct list_head *changing)
{
	return ipttrace_traverse_publish(prepared);
}

static int table_attach(struct ipttrace_link *link,
			const struct ipttrace_link_spec *spec,
			struct netlink_ext_ack *extack)
{
	struct ipttrace_sets *sets = table_prepare(GFP_KERNEL);

	if (IS_ERR(sets))
		return PTR_ERR(sets);
	sets = ipttrace_traverse_publish(sets);
	synchronize_rcu();
	kfree(sets);
	return 0;
}

static struct ipttrace_sets *table_detach(const struct list_head *leaving)
{
	return ipttrace_traverse_publish(
		table_prepare(GFP_KERNEL | __GFP_NOFAIL));
}

/* The tables of the link that are watched: none whose code is not loaded. */
static u32 table_armed(const struct ipttrace_link *link)
{
	const struct ipttrace_function *ipv4 =
		&ipttrace_functions[IPTTRACE_IPT_DO_TABLE];
	const struct ipttrace_function *ipv6 =
		&ipttrace_functions[IPTTRACE_IP6T_DO_TABLE];
	u32 armed = 0;

	lockdep_assert_held(&ipttrace_lock);
	if (link->family != NFPROTO_IPV6 && ipttrace_function_armed(ipv4))
		armed |= IPTTRACE_ARMED_IPV4;
	if (link->family != NFPROTO_IPV4 && ipttrace_function_armed(ipv6))
		armed |= IPTTRACE_ARMED_IPV6;
	return armed;
}

/* --- modules that hold table code ---------------------------------------------------------- */

static bool holds_functions(const struct module *module)
{
	unsigned int i;

	for (i = 0; i < IPTTRACE_FUNCTIONS; i++)
		if (ipttrace_functions[i].module &&
		    !strcmp(ipttrace_functions[i].module, module->name))
			return true;
	return false;
}

/* Arms a function when its module comes, disarms it before its text goes. True if links show it. */
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

/* Registers for modules that come and go. */
static int table_init(void)
{
	return register_module_notifier(&module_notifier);
}

static void table_exit(void)
{
	unregister_module_notifier(&module_notifier);
	flush_work(&disarm_work);
	WARN_ON_ONCE(arming);
}

/* the operations are described in hook.h */
const struct ipttrace_hook_ops ipttrace_table_hook = {
	.init = table_init,
	.exit = table_exit,
	.parse = table_parse,
	.takes = table_takes,
	.begin = table_begin,
	.end = table_end,
	.attach = table_attach,
	.prepare = table_prepare,
	.publish = table_publish,
	.detach = table_detach,
	.release = table_release,
	.armed = table_armed,
};
