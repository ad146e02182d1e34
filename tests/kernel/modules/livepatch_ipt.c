// SPDX-License-Identifier: GPL-2.0
/*
 * A live patch of ipt_do_table(), for as long as the module is loaded: IPv4 tables accept all.
 */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/netfilter.h>

static unsigned int accept_all(void *priv, struct sk_buff *skb,
			       const struct nf_hook_state *state)
{
	return NF_ACCEPT;
}

static struct klp_func funcs[] = { {
					   .old_name = "ipt_do_table",
					   .new_func = accept_all,
				   },
				   {} };

static struct klp_object objects[] = { {
					       .name = "ip_tables",
					       .funcs = funcs,
				       },
				       {} };

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objects,
};

static int __init livepatch_ipt_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit livepatch_ipt_exit(void)
{
}

module_init(livepatch_ipt_init);
module_exit(livepatch_ipt_exit);

MODULE_DESCRIPTION("Test: a live patch of ipt_do_table()");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
