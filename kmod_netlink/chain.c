// SPDX-License-Identifier: GPL-2.0
/*
 * The chain hook: links at nftables' chains. nft_do_chain() is redirected to our walk (follow.c)
 * while there are any, and while nf_tables is loaded.
 */
#include <linux/netfilter.h>
#include <net/netlink.h>

#include "arming.h"
#include "chain.h"
#include "follow.h"
#include "link.h"
#include "nat.h"
#include "nft_layout.h"
#include "nft_symbols.h"

static struct ipttrace_arming arming = {
	.lock = __MUTEX_INITIALIZER(arming.lock),
	.hooks = BIT(IPTTRACE_HOOK_CHAIN),
	.functions = ipttrace_follow_functions,
	.count = IPTTRACE_FOLLOW_FUNCTIONS,
	.resolve = ipttrace_nft_resolve,
};

/* --- requests ------------------------------------------------------------------------------ */

static int chain_check_family(u32 family, const struct nlattr *attr,
			      struct netlink_ext_ack *extack)
{
	switch (family) {
	case NFPROTO_UNSPEC:
	case NFPROTO_INET:
	case NFPROTO_IPV4:
	case NFPROTO_ARP:
	case NFPROTO_NETDEV:
	case NFPROTO_BRIDGE:
	case NFPROTO_IPV6:
		return 0;
	default:
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"chains are of family 1 (inet), 2 (IPv4), 3 (ARP), 5 (netdev), 7 (bridge) or 10 (IPv6)");
		return -EAFNOSUPPORT;
	}
}

/* Checks everything that needs no memory. */
static int chain_check(u32 family, u32 flags, struct nlattr **attrs,
		       struct netlink_ext_ack *extack)
{
	const struct nlattr *foreign =
		ipttrace_hook_foreign(&ipttrace_chain_hook, attrs);

	if (foreign) {
		NL_SET_ERR_MSG_ATTR(
			extack, foreign,
			"chains have no hook number, priority, device or mode: netfilter hooks do");
		return -EINVAL;
	}
	if (flags & (IPTTRACE_LINK_FLAG_REPORT_DROPS |
		     IPTTRACE_LINK_FLAG_COUNT_RULES)) {
		NL_SET_ERR_MSG_ATTR(
			extack, attrs[IPTTRACE_A_FLAGS],
			"a link at chains drops no packets, and counts rules anyway");
		return -EINVAL;
	}
	if (attrs[IPTTRACE_A_TABLE] && family == NFPROTO_UNSPEC) {
		NL_SET_ERR_MSG_ATTR(extack, attrs[IPTTRACE_A_TABLE],
				    "a table needs its family");
		return -EINVAL;
	}
	if (attrs[IPTTRACE_A_CHAIN] && !attrs[IPTTRACE_A_TABLE]) {
		NL_SET_ERR_MSG_ATTR(extack, attrs[IPTTRACE_A_CHAIN],
				    "a chain needs its table");
		return -EINVAL;
	}
	return chain_check_family(family, attrs[IPTTRACE_A_FAMILY], extack);
}

/* Copies a name. An empty one would mean any. */
static int chain_get_name(char *name, const struct nlattr *attr,
			  struct netlink_ext_ack *extack)
{
	if (!attr)
		return 0;
	if (nla_strscpy(name, attr, IPTTRACE_NFT_NAME + 1) > 0)
		return 0;
	NL_SET_ERR_MSG_ATTR(extack, attr, "the name is empty");
	return -EINVAL;
}

static int chain_fill(struct ipttrace_netns_place *netns, u32 family,
		      struct nlattr **attrs, struct netlink_ext_ack *extack)
{
	struct ipttrace_chain_place *place =
		container_of(netns, struct ipttrace_chain_place, netns);
	int err;

	err = chain_get_name(place->table, attrs[IPTTRACE_A_TABLE], extack);
	if (err)
		return err;
	return chain_get_name(place->chain, attrs[IPTTRACE_A_CHAIN], extack);
}

static int chain_parse(struct ipttrace_link_spec *link_spec,
		       struct nlattr **attrs, struct netlink_ext_ack *extack)
{
	int err;

	err = chain_check(link_spec->family, link_spec->flags, attrs, extack);
	if (err)
		return err;
	return ipttrace_netns_parse(link_spec,
				    sizeof(struct ipttrace_chain_place),
				    chain_fill, attrs, extack);
}

static int chain_takes(u32 family, const struct ipttrace_set *set,
		       const struct nlattr *attr,
		       struct netlink_ext_ack *extack)
{
	if (set->slots & ~IPTTRACE_TABLE_SLOTS) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the packet slot is of netfilter hooks, the function slot of the spine; chains have entry, rule and exit");
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

static int chain_begin(const struct ipttrace_link_spec *spec,
		       struct netlink_ext_ack *extack)
{
	int err = ipttrace_arming_begin(&arming, extack);

	if (err)
		return err;
	err = ipttrace_arming_begin(&ipttrace_nat_arming, extack);
	if (err)
		ipttrace_arming_end(&arming);
	return err;
}

static void chain_end(const struct ipttrace_link_spec *spec)
{
	ipttrace_arming_end(&ipttrace_nat_arming);
	ipttrace_arming_end(&arming);
}

/* --- links --------------------------------------------------------------------------------- */

/*
 * Collects the sets of all links at chains: a packet meets them all, so they are published
 * together.
 */
static struct ipttrace_sets *chain_prepare(gfp_t gfp)
{
	return ipttrace_links_sets(IPTTRACE_HOOK_CHAIN, gfp);
}

static struct ipttrace_sets *chain_publish(struct ipttrace_sets *prepared,
					   const struct list_head *changing)
{
	return ipttrace_follow_publish(prepared);
}

static int chain_attach(struct ipttrace_link *link,
			const struct ipttrace_link_spec *spec,
			struct netlink_ext_ack *extack)
{
	return ipttrace_netns_attach(link, spec, ipttrace_follow_publish,
				     extack);
}

static struct ipttrace_sets *chain_detach(const struct list_head *leaving)
{
	return ipttrace_follow_publish(
		chain_prepare(GFP_KERNEL | __GFP_NOFAIL));
}

static void chain_release(void)
{
	ipttrace_arming_release(&arming);
	ipttrace_arming_release(&ipttrace_nat_arming);
}

static u32 chain_armed(const struct ipttrace_link *link)
{
	const struct ipttrace_chain_place *place = link->place;

	if (place->netns.gone ||
	    !ipttrace_function_armed(&ipttrace_follow_functions[0]))
		return 0;
	return IPTTRACE_ARMED_CHAINS;
}

static size_t chain_put_size(void)
{
	return ipttrace_netns_place_put_size() +
	       2 * nla_total_size(IPTTRACE_NFT_NAME + 1);
}

static int chain_put(struct sk_buff *msg, const struct ipttrace_link *link)
{
	const struct ipttrace_chain_place *place = link->place;

	if (place->table[0] &&
	    nla_put_string(msg, IPTTRACE_A_TABLE, place->table))
		return -EMSGSIZE;
	if (place->chain[0] &&
	    nla_put_string(msg, IPTTRACE_A_CHAIN, place->chain))
		return -EMSGSIZE;
	return ipttrace_netns_place_put(msg, &place->netns);
}

/* Registers for nf_tables. */
static int chain_init(void)
{
	int err;

	/* before arming: it has to hear first that nf_tables comes */
	err = ipttrace_nft_layout_init();
	if (err)
		return err;
	err = ipttrace_arming_init(&arming);
	if (err)
		ipttrace_nft_layout_exit();
	return err;
}

static void chain_exit(void)
{
	ipttrace_arming_exit(&arming);
	ipttrace_nft_layout_exit();
}

static const int chain_attributes[] = {
	IPTTRACE_A_NETNS_FD,
	IPTTRACE_A_TABLE,
	IPTTRACE_A_CHAIN,
	IPTTRACE_A_JOURNEY,
};

/* the operations are described in hook.h */
const struct ipttrace_hook_ops ipttrace_chain_hook = {
	.attributes = chain_attributes,
	.attribute_count = ARRAY_SIZE(chain_attributes),
	.in_netns = true,
	.init = chain_init,
	.exit = chain_exit,
	.parse = chain_parse,
	.spec_release = ipttrace_netns_spec_release,
	.takes = chain_takes,
	.begin = chain_begin,
	.end = chain_end,
	.attach = chain_attach,
	.prepare = chain_prepare,
	.publish = chain_publish,
	.detach = chain_detach,
	.release = chain_release,
	.armed = chain_armed,
	.put_size = chain_put_size,
	.put = chain_put,
};
