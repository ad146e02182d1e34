// SPDX-License-Identifier: GPL-2.0
/*
 * The spine hook: links at the functions that are registered at netfilter hooks. nf_hook_slow(),
 * which calls them, is redirected to our walk (spine_walk.c) while there are any. Hooks without
 * functions have placeholders meanwhile, so that it is called there too (placeholders.c).
 */
#include <linux/minmax.h>
#include <linux/netfilter.h>
#include <linux/netfilter_bridge.h>
#include <net/netlink.h>

#include "arming.h"
#include "hook_names.h"
#include "link.h"
#include "placeholders.h"
#include "spine.h"
#include "spine_packet.h"
#include "spine_follow.h"

static void spine_watched(bool all)
{
	if (!all)
		ipttrace_packet_describe_end();
}

static struct ipttrace_arming arming = {
	.lock = __MUTEX_INITIALIZER(arming.lock),
	.hooks = BIT(IPTTRACE_HOOK_SPINE),
	.functions = ipttrace_spine_functions,
	.count = IPTTRACE_SPINE_FUNCTIONS,
	.watched = spine_watched,
};

/* --- requests ------------------------------------------------------------------------------ */

/*
 * Hooks of each family, a bit each. None is of inet: its packets are at those of IPv4 and IPv6, at
 * ingress at those of netdev.
 */
static const u8 family_hooks[NFPROTO_NUMPROTO] = {
	[NFPROTO_IPV4] = GENMASK(NF_INET_NUMHOOKS - 1, 0),
	[NFPROTO_ARP] = GENMASK(NF_ARP_NUMHOOKS - 1, 0),
	[NFPROTO_NETDEV] = GENMASK(NF_NETDEV_NUMHOOKS - 1, 0),
	/* at prerouting the bridge calls them itself (br_handle_frame()) */
	[NFPROTO_BRIDGE] = GENMASK(NF_INET_NUMHOOKS - 1, 0) &
			   ~BIT(NF_BR_PRE_ROUTING),
	[NFPROTO_IPV6] = GENMASK(NF_INET_NUMHOOKS - 1, 0),
};

/* Whether a link of one family is at the hooks of another, in which packets are. */
static bool family_has(u32 family, u8 pf)
{
	if (family == NFPROTO_UNSPEC || family == pf)
		return true;
	return family == NFPROTO_INET &&
	       (pf == NFPROTO_IPV4 || pf == NFPROTO_IPV6);
}

/* Stores the hooks of a family, or its only one that is wanted. False if there is none. */
static bool spine_hooks(struct ipttrace_spine_place *place, u32 family)
{
	u8 wanted = place->hooknum < 0 ? U8_MAX : BIT(place->hooknum);
	u8 any = 0;
	u8 pf;

	for (pf = 0; pf < NFPROTO_NUMPROTO; pf++) {
		if (!family_has(family, pf))
			continue;
		place->hooks[pf] = family_hooks[pf] & wanted;
		any |= place->hooks[pf];
	}
	return any;
}

static int spine_fill(struct ipttrace_netns_place *netns, u32 family,
		      struct nlattr **attrs, struct netlink_ext_ack *extack)
{
	struct ipttrace_spine_place *place =
		container_of(netns, struct ipttrace_spine_place, netns);
	const struct nlattr *hooknum = attrs[IPTTRACE_A_HOOKNUM];

	if (hooknum && family == NFPROTO_UNSPEC) {
		NL_SET_ERR_MSG_ATTR(extack, hooknum,
				    "a hook number needs its family");
		return -EINVAL;
	}
	place->hooknum = -1;
	if (!spine_hooks(place, family)) {
		NL_SET_ERR_MSG_ATTR(
			extack, attrs[IPTTRACE_A_FAMILY],
			"hooks of the spine are of family 1 (inet: IPv4 and IPv6), 2 (IPv4), 3 (ARP), 5 (netdev), 7 (bridge) or 10 (IPv6)");
		return -EAFNOSUPPORT;
	}
	if (hooknum)
		place->hooknum = min_t(u32, nla_get_u32(hooknum),
				       IPTTRACE_SPINE_HOOKS - 1);
	if (!spine_hooks(place, family)) {
		NL_SET_ERR_MSG_ATTR(
			extack, hooknum,
			"at the spine the family has no hook of this number");
		return -EINVAL;
	}
	return 0;
}

static int spine_check(u32 flags, struct nlattr **attrs,
		       struct netlink_ext_ack *extack)
{
	const struct nlattr *foreign =
		ipttrace_hook_foreign(&ipttrace_spine_hook, attrs);

	if (foreign) {
		NL_SET_ERR_MSG_ATTR(
			extack, foreign,
			"the spine has no table, chain, priority, device or mode");
		return -EINVAL;
	}
	if (flags & (IPTTRACE_LINK_FLAG_REPORT_DROPS |
		     IPTTRACE_LINK_FLAG_COUNT_RULES)) {
		NL_SET_ERR_MSG_ATTR(
			extack, attrs[IPTTRACE_A_FLAGS],
			"a link at the spine drops no packets, and meets no rules");
		return -EINVAL;
	}
	return 0;
}

static int spine_parse(struct ipttrace_link_spec *link_spec,
		       struct nlattr **attrs, struct netlink_ext_ack *extack)
{
	int err;

	err = spine_check(link_spec->flags, attrs, extack);
	if (err)
		return err;
	return ipttrace_netns_parse(link_spec,
				    sizeof(struct ipttrace_spine_place),
				    spine_fill, attrs, extack);
}

static int spine_takes(u32 family, const struct ipttrace_set *set,
		       const struct nlattr *attr,
		       struct netlink_ext_ack *extack)
{
	if (set->slots &
	    (BIT(IPTTRACE_SLOT_PACKET) | BIT(IPTTRACE_SLOT_RULE))) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the spine has the slots entry, function and exit; rule and packet are of other hooks");
		return -EINVAL;
	}
	if (family == NFPROTO_ARP && set->filter) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"a classic filter sees packets from their IP header on, and ARP has none");
		return -EOPNOTSUPP;
	}
	return 0;
}

static int spine_begin(const struct ipttrace_link_spec *spec,
		       struct netlink_ext_ack *extack)
{
	int err = ipttrace_arming_begin(&arming, extack);

	if (!err)
		ipttrace_placeholders_begin(
			container_of(ipttrace_netns_spec_place(spec),
				     struct ipttrace_spine_place, netns));
	return err;
}

static void spine_end(const struct ipttrace_link_spec *spec)
{
	ipttrace_placeholders_end();
	ipttrace_arming_end(&arming);
}

/* --- links --------------------------------------------------------------------------------- */

/* Collects the sets of all links at the spine: a packet meets them all. */
static struct ipttrace_sets *spine_prepare(gfp_t gfp)
{
	return ipttrace_links_sets(IPTTRACE_HOOK_SPINE, gfp);
}

static struct ipttrace_sets *spine_publish(struct ipttrace_sets *prepared,
					   const struct list_head *changing)
{
	return ipttrace_spine_publish(prepared);
}

static int spine_attach(struct ipttrace_link *link,
			const struct ipttrace_link_spec *spec,
			struct netlink_ext_ack *extack)
{
	return ipttrace_netns_attach(link, spec, ipttrace_spine_publish,
				     extack);
}

static struct ipttrace_sets *spine_detach(const struct list_head *leaving)
{
	return ipttrace_spine_publish(spine_prepare(GFP_KERNEL | __GFP_NOFAIL));
}

static void spine_release(void)
{
	ipttrace_placeholders_release();
	ipttrace_arming_release(&arming);
}

static u32 spine_armed(const struct ipttrace_link *link)
{
	const struct ipttrace_spine_place *place = link->place;

	if (place->netns.gone ||
	    !ipttrace_function_armed(&ipttrace_spine_functions[0]))
		return 0;
	return IPTTRACE_ARMED_SPINE;
}

static size_t spine_put_size(void)
{
	return nla_total_size(sizeof(u32)) + ipttrace_netns_place_put_size();
}

static int spine_put(struct sk_buff *msg, const struct ipttrace_link *link)
{
	const struct ipttrace_spine_place *place = link->place;

	if (place->hooknum >= 0 &&
	    nla_put_u32(msg, IPTTRACE_A_HOOKNUM, place->hooknum))
		return -EMSGSIZE;
	return ipttrace_netns_place_put(msg, &place->netns);
}

static int spine_init(void)
{
	int err;

	err = ipttrace_hook_names_init();
	if (err)
		return err;
	err = ipttrace_placeholders_init();
	if (err)
		goto forget_names;
	err = ipttrace_arming_init(&arming);
	if (err)
		goto no_placeholders;
	return 0;

no_placeholders:
	ipttrace_placeholders_exit();
forget_names:
	ipttrace_hook_names_exit();
	return err;
}

static void spine_exit(void)
{
	ipttrace_arming_exit(&arming);
	ipttrace_placeholders_exit();
	ipttrace_hook_names_exit();
}

static const int spine_attributes[] = {
	IPTTRACE_A_HOOKNUM,
	IPTTRACE_A_NETNS_FD,
	IPTTRACE_A_JOURNEY,
};

/* the operations are described in hook.h */
const struct ipttrace_hook_ops ipttrace_spine_hook = {
	.attributes = spine_attributes,
	.attribute_count = ARRAY_SIZE(spine_attributes),
	.in_netns = true,
	.init = spine_init,
	.exit = spine_exit,
	.parse = spine_parse,
	.spec_release = ipttrace_netns_spec_release,
	.takes = spine_takes,
	.begin = spine_begin,
	.end = spine_end,
	.attach = spine_attach,
	.prepare = spine_prepare,
	.publish = spine_publish,
	.detach = spine_detach,
	.release = spine_release,
	.armed = spine_armed,
	.put_size = spine_put_size,
	.put = spine_put,
};
