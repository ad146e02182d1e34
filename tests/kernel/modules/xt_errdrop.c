// SPDX-License-Identifier: GPL-2.0
/*
 * A target that drops with an errno, which no target of the kernel's does. It goes by the name and
 * the layout of AUDIT, so that the stock iptables can make rules with it.
 */
#include <linux/module.h>
#include <linux/netfilter/x_tables.h>
#include <linux/netfilter/xt_AUDIT.h>

static unsigned int errdrop_tg(struct sk_buff *skb,
			       const struct xt_action_param *par)
{
	return NF_DROP_ERR(-EHOSTDOWN);
}

/* Goes by the name of a function that is watched in its own module, and must not be in this one. */
static noinline __used int ip6t_do_table(void)
{
	return 0;
}

static struct xt_target errdrop_target __read_mostly = {
	.name = "AUDIT",
	.family = NFPROTO_IPV4,
	.target = errdrop_tg,
	.targetsize = sizeof(struct xt_audit_info),
	.me = THIS_MODULE,
};

static int __init errdrop_init(void)
{
	return xt_register_target(&errdrop_target);
}

static void __exit errdrop_exit(void)
{
	xt_unregister_target(&errdrop_target);
}

module_init(errdrop_init);
module_exit(errdrop_exit);

MODULE_DESCRIPTION("Test target: drop with an errno");
MODULE_LICENSE("GPL");
