// SPDX-License-Identifier: GPL-2.0
/*
 * The table hook: links at the tables of iptables, whose functions are watched while there are any.
 */
#include <linux/netfilter.h>
#include <linux/slab.h>
#include <net/netlink.h>

#include "arming.h"
#include "link.h"
#include "nat.h"
#include "program.h"
#include "replace.h"
#include "table.h"
#include "traverse.h"

static struct ipttrace_arming arming = {
	.lock = __MUTEX_INITIALIZER(arming.lock),
	.hooks = BIT(IPTTRACE_HOOK_TABLE),
	.functions = ipttrace_functions,
	.count = IPTTRACE_FUNCTIONS,
};

/*
 * Counting how often rules are replaced. Links do without it where something else redirects that
 * function: then nobody knows which rules their events are about. Taken inside the lock of @arming,
 * which also protects @counting: it is whether the lock of @replacements is held.
 */
static struct ipttrace_arming replacements = {
	.lock = __MUTEX_INITIALIZER(replacements.lock),
	.hooks = BIT(IPTTRACE_HOOK_TABLE),
	.functions = ipttrace_replace_functions,
	.count = IPTTRACE_REPLACE_FUNCTIONS,
	.settle = ipttrace_replace_settle,
	.watched = ipttrace_replace_count,
};

static bool counting;

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
	if (set->slots & ~IPTTRACE_TABLE_SLOTS) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the packet slot is of netfilter hooks, the function slot of the spine; tables have entry, rule and exit");
		return -EINVAL;
	}
	return 0;
}

static int table_begin(const struct ipttrace_link_spec *spec,
		       struct netlink_ext_ack *extack)
{
	int err = ipttrace_arming_begin(&arming, extack);

	if (err)
		return err;
	err = ipttrace_arming_begin(&ipttrace_nat_arming, extack);
	if (err) {
		ipttrace_arming_end(&arming);
		return err;
	}
	counting = !ipttrace_arming_begin(&replacements, NULL);
	return 0;
}

static void table_end(const struct ipttrace_link_spec *spec)
{
	if (counting)
		ipttrace_arming_end(&replacements);
	ipttrace_arming_end(&ipttrace_nat_arming);
	ipttrace_arming_end(&arming);
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

static void table_release(void)
{
	ipttrace_arming_release(&arming);
	ipttrace_arming_release(&replacements);
	ipttrace_arming_release(&ipttrace_nat_arming);
}

static int table_init(void)
{
	int err = ipttrace_arming_init(&arming);

	if (err)
		return err;
	err = ipttrace_arming_init(&replacements);
	if (err)
		ipttrace_arming_exit(&arming);
	return err;
}

static void table_exit(void)
{
	ipttrace_arming_exit(&replacements);
	ipttrace_arming_exit(&arming);
}

static const int table_attributes[] = {
	IPTTRACE_A_JOURNEY,
};

/* the operations are described in hook.h */
const struct ipttrace_hook_ops ipttrace_table_hook = {
	.attributes = table_attributes,
	.attribute_count = ARRAY_SIZE(table_attributes),
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
