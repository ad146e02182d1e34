// SPDX-License-Identifier: GPL-2.0
/*
 * Offers a function to BPF socket filters (a kfunc), as any module may.
 */
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/module.h>

__bpf_kfunc_start_defs();

__bpf_kfunc int kfunc_offer_one(void)
{
	return 1;
}

__bpf_kfunc_end_defs();

BTF_KFUNCS_START(kfunc_offer_ids)
BTF_ID_FLAGS(func, kfunc_offer_one)
BTF_KFUNCS_END(kfunc_offer_ids)

static const struct btf_kfunc_id_set offered = {
	.owner = THIS_MODULE,
	.set = &kfunc_offer_ids,
};

static int __init kfunc_offer_init(void)
{
	return register_btf_kfunc_id_set(BPF_PROG_TYPE_SOCKET_FILTER, &offered);
}

static void __exit kfunc_offer_exit(void)
{
}

module_init(kfunc_offer_init);
module_exit(kfunc_offer_exit);

MODULE_DESCRIPTION("Test: a function for BPF programs");
MODULE_LICENSE("GPL");
