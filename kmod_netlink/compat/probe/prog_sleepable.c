// SPDX-License-Identifier: GPL-2.0
/* The flag of sleepable programs is in the program (v6.9, 66c8473135c6), not in its aux. */
#include <linux/bpf.h>
#include <linux/filter.h>

bool probe(const struct bpf_prog *prog);

bool probe(const struct bpf_prog *prog)
{
	return prog->sleepable;
}
