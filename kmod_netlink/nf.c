// SPDX-License-Identifier: GPL-2.0
/*
 * The nf hook: links at netfilter's own hooks, of any family and network namespace.
 *
 * Attaching to a device takes rtnl_mutex: otherwise the device could go unnoticed after it was
 * found and before the link is listed. A namespace cannot, since the request holds a reference to
 * it until then.
 */
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/netfilter_arp.h>
#include <linux/rtnetlink.h>
#include <linux/slab.h>
#include <net/net_namespace.h>

#include "link.h"
#include "message.h"
#include "nf.h"
#include "nf_packet.h"

/**
 * struct nf_spec - place of an nf link in an attach request
 * @net: a reference to the network namespace, which cannot go while the request is handled
 * @hooknum: number of the hook in its family
 * @priority: place among the hooks there
 * @mode: enum ipttrace_nf_mode
 * @ifindex: index of the device, or 0
 * @ifindex_attr: attribute to blame when there is no such device
 *
 * Owned by the request, as everything in its struct ipttrace_link_spec.
 */
struct nf_spec {
	struct net *net;
	u32 hooknum;
	s32 priority;
	u32 mode;
	u32 ifindex;
	const struct nlattr *ifindex_attr;
};

/* --- requests ------------------------------------------------------------------------------ */

/* Checks a hook, since netfilter only warns; sets @device for a hook of a device. */
static int nf_check_hook(u32 family, u32 hooknum, bool *device,
			 struct nlattr **attrs, struct netlink_ext_ack *extack)
{
	bool enabled = true;
	u32 ingress = U32_MAX;
	u32 hooks = 0;

	switch (family) {
	case NFPROTO_INET:
		ingress = NF_INET_INGRESS;
		fallthrough;
	case NFPROTO_IPV4:
	case NFPROTO_IPV6:
		hooks = NF_INET_NUMHOOKS;
		break;
	case NFPROTO_BRIDGE:
		enabled = IS_ENABLED(CONFIG_NETFILTER_FAMILY_BRIDGE);
		/* brouting has no list of hooks */
		hooks = NF_INET_NUMHOOKS;
		break;
	case NFPROTO_ARP:
		enabled = IS_ENABLED(CONFIG_NETFILTER_FAMILY_ARP);
		hooks = NF_ARP_NUMHOOKS;
		break;
	case NFPROTO_NETDEV:
		ingress = NF_NETDEV_INGRESS;
		break;
	default:
		NL_SET_ERR_MSG_ATTR(
			extack, attrs[IPTTRACE_A_FAMILY],
			"netfilter hooks are of family 1 (inet), 2 (IPv4), 3 (ARP), 5 (netdev), 7 (bridge) or 10 (IPv6)");
		return -EAFNOSUPPORT;
	}
	if (family == NFPROTO_NETDEV && hooknum == NF_NETDEV_EGRESS) {
		NL_SET_ERR_MSG_ATTR(
			extack, attrs[IPTTRACE_A_HOOKNUM],
			"of a device's hooks only ingress is supported, not egress");
		return -EOPNOTSUPP;
	}
	*device = hooknum == ingress;
	if (*device)
		enabled = IS_ENABLED(CONFIG_NETFILTER_INGRESS);
	if (!enabled) {
		NL_SET_ERR_MSG_ATTR(
			extack, attrs[IPTTRACE_A_HOOKNUM],
			"this kernel is built without netfilter for this family and hook");
		return -EOPNOTSUPP;
	}
	if (!*device && hooknum >= hooks) {
		NL_SET_ERR_MSG_ATTR(extack, attrs[IPTTRACE_A_HOOKNUM],
				    "the family has no hook of this number");
		return -EINVAL;
	}
	return 0;
}

static struct net *nf_get_net(const struct nlattr *attr,
			      struct netlink_ext_ack *extack)
{
	struct net *net;

	if (!attr)
		return get_net(&init_net);
	net = get_net_ns_by_fd(nla_get_u32(attr));
	if (IS_ERR(net))
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"the file descriptor is not of a network namespace");
	return net;
}

/* Parses the place in an attach request, except for the namespace. */
static int nf_parse_place(struct nf_spec *spec, u32 family,
			  struct nlattr **attrs, struct netlink_ext_ack *extack)
{
	bool device;
	int err;

	if (!attrs[IPTTRACE_A_FAMILY]) {
		NL_SET_ERR_ATTR_MISS(extack, NULL, IPTTRACE_A_FAMILY);
		NL_SET_ERR_MSG(extack, "a netfilter hook needs its family");
		return -EINVAL;
	}
	if (!attrs[IPTTRACE_A_HOOKNUM]) {
		NL_SET_ERR_ATTR_MISS(extack, NULL, IPTTRACE_A_HOOKNUM);
		NL_SET_ERR_MSG(extack, "a netfilter hook needs its number");
		return -EINVAL;
	}
	spec->hooknum = nla_get_u32(attrs[IPTTRACE_A_HOOKNUM]);
	err = nf_check_hook(family, spec->hooknum, &device, attrs, extack);
	if (err)
		return err;
	if (device && !attrs[IPTTRACE_A_IFINDEX]) {
		NL_SET_ERR_ATTR_MISS(extack, NULL, IPTTRACE_A_IFINDEX);
		NL_SET_ERR_MSG(extack, "an ingress hook needs its device");
		return -EINVAL;
	}
	if (!device && attrs[IPTTRACE_A_IFINDEX]) {
		NL_SET_ERR_MSG_ATTR(extack, attrs[IPTTRACE_A_IFINDEX],
				    "only an ingress hook is of a device");
		return -EINVAL;
	}
	if (device) {
		spec->ifindex_attr = attrs[IPTTRACE_A_IFINDEX];
		spec->ifindex = nla_get_u32(spec->ifindex_attr);
	}
	if (attrs[IPTTRACE_A_PRIORITY])
		spec->priority = nla_get_s32(attrs[IPTTRACE_A_PRIORITY]);
	spec->mode = IPTTRACE_NF_MODE_OBSERVE;
	if (attrs[IPTTRACE_A_MODE])
		spec->mode = nla_get_u32(attrs[IPTTRACE_A_MODE]);
	return 0;
}

static int nf_check_flags(const struct nf_spec *spec, u32 flags,
			  struct nlattr **attrs, struct netlink_ext_ack *extack)
{
	if (flags & IPTTRACE_LINK_FLAG_COUNT_RULES) {
		NL_SET_ERR_MSG_ATTR(
			extack, attrs[IPTTRACE_A_FLAGS],
			"at a netfilter hook there are no rules to count");
		return -EINVAL;
	}
	if (flags & IPTTRACE_LINK_FLAG_REPORT_DROPS &&
	    spec->mode != IPTTRACE_NF_MODE_FILTER) {
		NL_SET_ERR_MSG_ATTR(
			extack, attrs[IPTTRACE_A_FLAGS],
			"only a link in filter mode has drops to report");
		return -EINVAL;
	}
	return 0;
}

static int nf_parse(struct ipttrace_link_spec *link_spec, struct nlattr **attrs,
		    struct netlink_ext_ack *extack)
{
	const struct nlattr *foreign =
		ipttrace_hook_foreign(&ipttrace_nf_hook, attrs);
	struct nf_spec *spec;
	int err;

	if (foreign) {
		NL_SET_ERR_MSG_ATTR(
			extack, foreign,
			"a netfilter hook has no table or chain, and its links are on no journey");
		return -EINVAL;
	}
	spec = kzalloc(sizeof(*spec), GFP_KERNEL);
	if (!spec)
		return -ENOMEM;
	err = nf_parse_place(spec, link_spec->family, attrs, extack);
	if (!err)
		err = nf_check_flags(spec, link_spec->flags, attrs, extack);
	if (err)
		goto err_free;
	spec->net = nf_get_net(attrs[IPTTRACE_A_NETNS_FD], extack);
	err = PTR_ERR_OR_ZERO(spec->net);
	if (err)
		goto err_free;
	link_spec->place = spec;
	return 0;

err_free:
	kfree(spec);
	return err;
}

static void nf_spec_release(struct ipttrace_link_spec *link_spec)
{
	struct nf_spec *spec = link_spec->place;

	put_net(spec->net);
	kfree(spec);
}

static int nf_takes(u32 family, const struct ipttrace_set *set,
		    const struct nlattr *attr, struct netlink_ext_ack *extack)
{
	if (set->slots & ~BIT(IPTTRACE_SLOT_PACKET)) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"a netfilter hook has the packet slot only; entry, rule and exit are of tables");
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

static bool nf_decides(const struct ipttrace_link *link)
{
	const struct nf_place *nf = link->place;

	return nf->mode == IPTTRACE_NF_MODE_FILTER;
}

/* Takes rtnl_mutex before ipttrace_lock, as the notifier of devices has it. */
static int nf_begin(const struct ipttrace_link_spec *link_spec,
		    struct netlink_ext_ack *extack)
{
	const struct nf_spec *spec = link_spec->place;

	if (spec->ifindex)
		rtnl_lock();
	return 0;
}

static void nf_end(const struct ipttrace_link_spec *link_spec)
{
	const struct nf_spec *spec = link_spec->place;

	if (spec->ifindex)
		rtnl_unlock();
}

/* --- links --------------------------------------------------------------------------------- */

/* The place of a link of any kind: NULL unless it is an nf link, and attached. */
static struct nf_place *place_of(const struct ipttrace_link *link)
{
	return link->hook == IPTTRACE_HOOK_NF ? link->place : NULL;
}

/*
 * Returns 0, and the link has its place; or -ENODEV, -ENOMEM, or an errno of
 * nf_register_net_hook().
 */
static int nf_attach(struct ipttrace_link *link,
		     const struct ipttrace_link_spec *link_spec,
		     struct netlink_ext_ack *extack)
{
	const struct nf_spec *spec = link_spec->place;
	struct net_device *dev = NULL;
	struct nf_place *nf;
	int err;

	lockdep_assert_held(&ipttrace_lock);
	if (spec->ifindex) {
		ASSERT_RTNL();
		dev = __dev_get_by_index(spec->net, spec->ifindex);
		if (!dev) {
			NL_SET_ERR_MSG_ATTR(
				extack, spec->ifindex_attr,
				"the network namespace has no such device");
			return -ENODEV;
		}
	}
	nf = kzalloc(sizeof(*nf), GFP_KERNEL);
	if (!nf)
		return -ENOMEM;
	nf->ops.hook = ipttrace_nf_packet;
	nf->ops.priv = nf;
	nf->ops.dev = dev;
	nf->ops.pf = link->family;
	nf->ops.hooknum = spec->hooknum;
	nf->ops.priority = spec->priority;
	nf->net = spec->net;
	nf->netns = spec->net->ns.inum;
	nf->netns_cookie = spec->net->net_cookie;
	nf->mode = spec->mode;
	nf->report_drops = link->flags & IPTTRACE_LINK_FLAG_REPORT_DROPS;
	if (dev) {
		nf->ifindex = dev->ifindex;
		strscpy(nf->ifname, dev->name, sizeof(nf->ifname));
	}
	RCU_INIT_POINTER(nf->active, link->set);
	err = nf_register_net_hook(nf->net, &nf->ops);
	if (err) {
		NL_SET_ERR_MSG(extack,
			       "netfilter does not take another hook there");
		/* inet is two hooks: the first one may have been in force when the second failed */
		synchronize_rcu();
		kfree(nf);
		return err;
	}
	spin_lock(&ipttrace_links_index);
	link->place = nf;
	spin_unlock(&ipttrace_links_index);
	return 0;
}

/* Publishes a pointer for each link, since each is at a place of its own. */
static struct ipttrace_sets *nf_publish(struct ipttrace_sets *prepared,
					const struct list_head *changing)
{
	struct ipttrace_link *link;
	struct nf_place *nf;

	lockdep_assert_held(&ipttrace_lock);
	list_for_each_entry(link, changing, change) {
		nf = place_of(link);
		if (nf)
			rcu_assign_pointer(nf->active, link->set);
	}
	return NULL;
}

/* Takes a link from its hook if it is still there. Packets may be there for a grace period. */
static void nf_unregister(struct nf_place *nf)
{
	lockdep_assert_held(&ipttrace_lock);
	if (!nf->gone)
		nf_unregister_net_hook(nf->net, &nf->ops);
}

static struct ipttrace_sets *nf_detach(const struct list_head *leaving)
{
	struct ipttrace_link *link;
	struct nf_place *nf;

	list_for_each_entry(link, leaving, list) {
		nf = place_of(link);
		if (nf)
			nf_unregister(nf);
	}
	return NULL;
}

static u32 nf_armed(const struct ipttrace_link *link)
{
	const struct nf_place *nf = link->place;

	return nf->gone ? 0 : IPTTRACE_ARMED_NF;
}

static size_t nf_put_size(void)
{
	return 6 * nla_total_size(sizeof(u32)) + nla_total_size(sizeof(u64)) +
	       nla_total_size(IFNAMSIZ);
}

static int nf_put(struct sk_buff *msg, const struct ipttrace_link *link)
{
	const struct nf_place *nf = link->place;

	if (nla_put_u32(msg, IPTTRACE_A_HOOKNUM, nf->ops.hooknum) ||
	    nla_put_s32(msg, IPTTRACE_A_PRIORITY, nf->ops.priority) ||
	    nla_put_u32(msg, IPTTRACE_A_NETNS, nf->netns) ||
	    ipttrace_put_u64(msg, IPTTRACE_A_NETNS_COOKIE, nf->netns_cookie) ||
	    nla_put_u32(msg, IPTTRACE_A_MODE, nf->mode))
		return -EMSGSIZE;
	if (nf->ifindex && (nla_put_u32(msg, IPTTRACE_A_IFINDEX, nf->ifindex) ||
			    nla_put_string(msg, IPTTRACE_A_IFNAME, nf->ifname)))
		return -EMSGSIZE;
	if (nf->gone && nla_put_u32(msg, IPTTRACE_A_GONE, nf->gone))
		return -EMSGSIZE;
	return 0;
}

/* --- namespaces and devices that disappear ------------------------------------------------- */

static void link_gone(struct ipttrace_link *link, enum ipttrace_gone why)
{
	struct nf_place *nf = link->place;

	nf_unregister(nf);
	spin_lock(&ipttrace_links_index);
	nf->gone = why;
	nf->net = NULL;
	nf->ops.dev = NULL;
	spin_unlock(&ipttrace_links_index);
	ipttrace_links_sequence++;
	ipttrace_notify(link, IPTTRACE_CMD_LINK_CHANGED, 0, false);
}

static bool in_namespace(const struct ipttrace_link *link, const void *net)
{
	const struct nf_place *nf = place_of(link);

	return nf && nf->net == net;
}

/* Called before a namespace goes: its devices and hooks are still there. */
static void __net_exit namespace_leaves(struct net *net)
{
	struct ipttrace_link *link;

	if (!ipttrace_links_any(in_namespace, net))
		return;
	mutex_lock(&ipttrace_lock);
	list_for_each_entry(link, &ipttrace_links, list)
		if (in_namespace(link, net))
			link_gone(link, IPTTRACE_GONE_NETNS);
	mutex_unlock(&ipttrace_lock);
}

static struct pernet_operations namespace_operations = {
	.pre_exit = namespace_leaves,
};

static bool at_device(const struct ipttrace_link *link, const void *dev)
{
	const struct nf_place *nf = place_of(link);

	return nf && nf->ops.dev == dev;
}

/* Called before a device goes or moves to another namespace, and when it was renamed. */
static int device_event(struct notifier_block *nb, unsigned long event,
			void *info)
{
	const struct net_device *dev = netdev_notifier_info_to_dev(info);
	struct ipttrace_link *link;
	struct nf_place *nf;

	if (event != NETDEV_UNREGISTER && event != NETDEV_CHANGENAME)
		return NOTIFY_DONE;
	/* under rtnl_mutex, as attaching to a device is */
	if (!ipttrace_links_any(at_device, dev))
		return NOTIFY_DONE;

	mutex_lock(&ipttrace_lock);
	list_for_each_entry(link, &ipttrace_links, list) {
		if (!at_device(link, dev))
			continue;
		if (event == NETDEV_UNREGISTER) {
			link_gone(link, IPTTRACE_GONE_DEVICE);
			continue;
		}
		nf = link->place;
		strscpy(nf->ifname, dev->name, sizeof(nf->ifname));
		ipttrace_links_sequence++;
	}
	mutex_unlock(&ipttrace_lock);
	return NOTIFY_DONE;
}

static struct notifier_block device_notifier = {
	.notifier_call = device_event,
};

/* Registers for namespaces and devices that disappear. */
static int nf_init(void)
{
	int err;

	err = register_pernet_subsys(&namespace_operations);
	if (err)
		return err;
	err = register_netdevice_notifier(&device_notifier);
	if (err)
		unregister_pernet_subsys(&namespace_operations);
	return err;
}

static void nf_exit(void)
{
	unregister_netdevice_notifier(&device_notifier);
	unregister_pernet_subsys(&namespace_operations);
}

static const int nf_attributes[] = {
	IPTTRACE_A_HOOKNUM, IPTTRACE_A_PRIORITY, IPTTRACE_A_NETNS_FD,
	IPTTRACE_A_IFINDEX, IPTTRACE_A_MODE,
};

/* the operations are described in hook.h */
const struct ipttrace_hook_ops ipttrace_nf_hook = {
	.attributes = nf_attributes,
	.attribute_count = ARRAY_SIZE(nf_attributes),
	.init = nf_init,
	.exit = nf_exit,
	.parse = nf_parse,
	.spec_release = nf_spec_release,
	.takes = nf_takes,
	.decides = nf_decides,
	.begin = nf_begin,
	.end = nf_end,
	.attach = nf_attach,
	.publish = nf_publish,
	.detach = nf_detach,
	.armed = nf_armed,
	.put_size = nf_put_size,
	.put = nf_put,
};
