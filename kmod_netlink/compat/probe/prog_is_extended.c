// SPDX-License-Identifier: GPL-2.0
/* Whether a program tells that an extension takes the place of one of its functions (v6.13). */
#include <linux/bpf.h>
#include <linux/filter.h>

bool probe(const struct bpf_prog *prog);

bool probe(const struct bpf_prog *prog)
{
	return prog->aux->is_extended;
}
