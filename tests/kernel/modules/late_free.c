// SPDX-License-Identifier: GPL-2.0
/*
 * Keeps what napi_consume_skb() is to free until the module goes: nobody sees these packets freed,
 * as on a kernel whose build has the functions that free them inside of their callers.
 */
#include <linux/ftrace.h>
#include <linux/module.h>
#include <linux/skbuff.h>

/* The name until v6.2 (0ef86097f127). */
#ifdef ftrace_instruction_pointer_set
#define ftrace_regs_set_instruction_pointer ftrace_instruction_pointer_set
#endif

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
	int err;

	skb_queue_head_init(&kept);
	err = ftrace_set_filter_ip(&ops, (unsigned long)napi_consume_skb, 0, 0);
	err = err ?: register_ftrace_function(&ops);
	if (err)
		ftrace_free_filter(&ops);
	return err;
}

static void __exit late_free_exit(void)
{
	unregister_ftrace_function(&ops);
	ftrace_free_filter(&ops);
	synchronize_rcu_tasks();
	skb_queue_purge(&kept);
}

module_init(late_free_init);
module_exit(late_free_exit);

MODULE_DESCRIPTION(
	"Test: packets that are freed late, and not by the function that is to free them");
MODULE_LICENSE("GPL");
