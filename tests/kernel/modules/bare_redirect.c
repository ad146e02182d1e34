// SPDX-License-Identifier: GPL-2.0
/*
 * Redirects a function of packets, and does nothing else: the least that a redirect costs. The
 * parameter "function" is ipt_do_table or nft_do_chain, which have to be loaded.
 */
#include <linux/ftrace.h>
#include <linux/module.h>
#include <linux/netfilter.h>

#include "redirect.h"

static char *function = "nft_do_chain";
module_param(function, charp, 0400);

/* What runs behind the patch site, which lies where the handler is told; nobody redirects that. */
static unsigned int (*behind)(void *first, void *second, const void *third);

/* Takes the registers of either function: nft_do_chain() has two arguments. */
static unsigned int replacement(void *first, void *second, const void *third)
{
	return READ_ONCE(behind)(first, second, third);
}

static void notrace handler(unsigned long ip, unsigned long parent_ip,
			    struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	WRITE_ONCE(behind, (void *)(ip + MCOUNT_INSN_SIZE));
	ftrace_regs_set_instruction_pointer(fregs, (unsigned long)replacement);
}

static struct ftrace_ops ops = {
	.func = handler,
	.flags = FTRACE_OPS_FL_IPMODIFY,
};

static int __init bare_redirect_init(void)
{
	return redirect_begin(&ops, function);
}

static void __exit bare_redirect_exit(void)
{
	redirect_end(&ops);
}

module_init(bare_redirect_init);
module_exit(bare_redirect_exit);

MODULE_DESCRIPTION("Bench: a redirect that does nothing");
MODULE_LICENSE("GPL");
