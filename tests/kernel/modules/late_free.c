// SPDX-License-Identifier: GPL-2.0
/*
 * Keeps what napi_consume_skb() is to free until the module goes: nobody sees these packets freed,
 * as on a kernel whose build has the functions that free them inside of their callers.
 */
#include <linux/ftrace.h>
#include <linux/module.h>
#include <linux/skbuff.h>

#include "redirect.h"

static struct sk_buff_head kept;

static void replacement(struct sk_buff *skb, int budget)
{
	if (skb_shared(skb))
		consume_skb(skb);
	else
		skb_queue_tail(&kept, skb);
}

static void notrace handler(unsigned long ip, unsigned long parent_ip,
			    struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	ftrace_regs_set_instruction_pointer(fregs, (unsigned long)replacement);
}

static struct ftrace_ops ops = {
	.func = handler,
	.flags = FTRACE_OPS_FL_IPMODIFY,
};

static int __init late_free_init(void)
{
	skb_queue_head_init(&kept);
	return redirect_begin(&ops, "napi_consume_skb");
}

static void __exit late_free_exit(void)
{
	redirect_end(&ops);
	synchronize_rcu_tasks();
	skb_queue_purge(&kept);
}

module_init(late_free_init);
module_exit(late_free_exit);

MODULE_DESCRIPTION(
	"Test: packets that are freed late, and not by the function that is to free them");
MODULE_LICENSE("GPL");
