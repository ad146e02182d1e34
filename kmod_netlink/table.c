// SPDX-License-Identifier: GPL-2.0
/*
 * The table hook: which functions of the kernel are watched for it, while there are links and while
 * the modules that hold them are there.
 */
#include <linux/module.h>
#include <linux/netfilter.h>
#include <linux/slab.h>

#include "link.h"
#include "message.h"
#include "table.h"
#include "traverse.h"

/* Under ipttrace_lock: whether functions are armed when their modules come. */
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

/**
 * ipttrace_table_arm - watch the tables, those whose code is loaded now and the others later
 * @extack: told what stands in the way
 *
 * Return: 0 or what ipttrace_function_arm() returns; then nothing is watched that was not before.
 */
int ipttrace_table_arm(struct netlink_ext_ack *extack)
{
	unsigned int i;
	int err;

	lockdep_assert_held(&ipttrace_lock);
	if (arming)
		return 0;
	for (i = 0; i < IPTTRACE_FUNCTIONS; i++) {
		err = ipttrace_function_arm(&ipttrace_functions[i], extack);
		if (err && (err != -ENOENT || !ipttrace_functions[i].module))
			goto err_disarm;
	}
	arming = true;
	return 0;

err_disarm:
	while (i--)
		ipttrace_function_disarm(&ipttrace_functions[i]);
	return err;
}

/* No sets may be published. */
static void table_disarm(void)
{
	unsigned int i;

	arming = false;
	for (i = 0; i < IPTTRACE_FUNCTIONS; i++)
		ipttrace_function_disarm(&ipttrace_functions[i]);
}

static unsigned int table_links(void)
{
	struct ipttrace_link *link;
	unsigned int count = 0;

	list_for_each_entry(link, &ipttrace_links, list)
		if (link->hook == IPTTRACE_HOOK_TABLE)
			count++;
	return count;
}

/**
 * ipttrace_table_prepare - what ipttrace_table_publish() needs for the links as they are listed
 * @gfp: with __GFP_NOFAIL it cannot fail
 *
 * Return: it, NULL if there are no table links, or ERR_PTR(-ENOMEM).
 */
struct ipttrace_sets *ipttrace_table_prepare(gfp_t gfp)
{
	unsigned int count = table_links();
	struct ipttrace_sets *sets;

	lockdep_assert_held(&ipttrace_lock);
	if (!count)
		return NULL;
	sets = kmalloc(struct_size(sets, set, count), gfp);
	if (!sets)
		return ERR_PTR(-ENOMEM);
	sets->count = count;
	return sets;
}

/**
 * ipttrace_table_publish - put the program sets of all table links in force, in one step
 * @sets: of ipttrace_table_prepare(); the same links are listed still
 *
 * Return: what the caller passes to kfree() a grace period later: then no packet is handled by what
 * was in force before.
 */
struct ipttrace_sets *ipttrace_table_publish(struct ipttrace_sets *sets)
{
	struct ipttrace_link *link;
	unsigned int i = 0;

	lockdep_assert_held(&ipttrace_lock);
	list_for_each_entry(link, &ipttrace_links, list)
		if (link->hook == IPTTRACE_HOOK_TABLE)
			sets->set[i++] = link->set;
	return ipttrace_traverse_publish(sets);
}

/**
 * ipttrace_table_release - watch no table any more if no table link is left
 */
void ipttrace_table_release(void)
{
	lockdep_assert_held(&ipttrace_lock);
	if (!table_links())
		table_disarm();
}

/* Arms functions when their module comes, disarms them before its text goes. */
static int module_event(struct notifier_block *nb, unsigned long event,
			void *data)
{
	const struct module *module = data;
	bool changed = false;
	unsigned int i;
	int err;

	if (event != MODULE_STATE_COMING && event != MODULE_STATE_GOING)
		return NOTIFY_DONE;

	mutex_lock(&ipttrace_lock);
	for (i = 0; arming && i < IPTTRACE_FUNCTIONS; i++) {
		struct ipttrace_function *fn = &ipttrace_functions[i];

		if (!fn->module || strcmp(fn->module, module->name))
			continue;
		changed |= fn->pf != NFPROTO_UNSPEC;
		if (event == MODULE_STATE_GOING) {
			ipttrace_function_disarm(fn);
			continue;
		}
		err = ipttrace_function_arm(fn, NULL);
		if (err)
			pr_warn("ipttrace: %s of module %s cannot be watched: error %d\n",
				fn->symbol, fn->module, err);
	}
	if (changed)
		ipttrace_notify_changed();
	mutex_unlock(&ipttrace_lock);
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
	WARN_ON_ONCE(arming);
}
