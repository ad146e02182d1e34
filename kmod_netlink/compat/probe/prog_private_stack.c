// SPDX-License-Identifier: GPL-2.0
/* Whether programs may have a stack of their own on each CPU (v6.13). */
#include <linux/bpf.h>
#include <linux/filter.h>

bool probe(const struct bpf_prog *prog);

bool probe(const struct bpf_prog *prog)
{
	return prog->aux->jits_use_priv_stack;
}
