/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Each function here continues in the kernel's function of that name behind its patch site, as that
 * function does once ftrace is done with it. It has the same signature and is called like any C
 * function.
 *
 * ftrace's own trampoline does the same with a call that nobody redirects: it returns to that
 * address, with registers and stack as they were at entry. So the function runs as ever, and no
 * handler, probe or trampoline at its entry sees a second call. It is a return and not an indirect
 * jump for ftrace's reason: with IBT (indirect branch tracking) a jump would have to land on an
 * ENDBR, and there is none behind the patch site. The call in between, which never returns, keeps
 * the processor's stack of predicted returns in balance.
 */
#include <linux/linkage.h>
#include <linux/objtool.h>
#include <asm/nospec-branch.h>
#include <asm/unwind_hints.h>

.macro BEHIND name
.pushsection .bss
.balign 8
SYM_DATA(ipttrace_behind_\name\()_address, .quad 0)
.popsection

SYM_FUNC_START(ipttrace_behind_\name)
	movq	ipttrace_behind_\name\()_address(%rip), %r11
	ANNOTATE_INTRA_FUNCTION_CALL
	call	.Lenter_\name
	int3
.Lenter_\name:
	movq	%r11, (%rsp)
	UNWIND_HINT_FUNC
	RET
SYM_FUNC_END(ipttrace_behind_\name)
.endm

BEHIND ipt_do_table
BEHIND ip6t_do_table
BEHIND nf_log_trace
BEHIND nf_dup_ipv4
BEHIND nf_dup_ipv6
BEHIND xt_replace_table
BEHIND kallsyms_lookup_name
BEHIND nft_do_chain
BEHIND nft_trace_init
BEHIND nft_trace_notify
BEHIND nf_nat_inet_fn
BEHIND nf_hook_slow
BEHIND __consume_stateless_skb
