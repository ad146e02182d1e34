// SPDX-License-Identifier: GPL-2.0
/*
 * Operations: those that a function of a netfilter hook is registered with.
 */
#include <linux/uaccess.h>

#include "hook_ops.h"

/**
 * ipttrace_hook_ops_read - read the operations that a function of a hook is registered with
 * @read: where to
 * @entries: the functions of the hook
 * @i: index of the function
 * @function: the function, as it was read from there
 *
 * Operations may be freed without a grace period once they are removed. In the newest array of the
 * hook they have been replaced before that, by some of no family; in an older one they may still be
 * named: they have to be of this very function.
 *
 * Context: any, in an RCU read section that @entries were found in.
 * Return: false if they are being removed, or it is accept_all() that has their place.
 */
bool ipttrace_hook_ops_read(struct nf_hook_ops *read,
			    const struct nf_hook_entries *entries,
			    unsigned int i, const void *function)
{
	struct nf_hook_ops *const *all = nf_hook_entries_get_hook_ops(entries);
	const struct nf_hook_ops *ops = READ_ONCE(all[i]);

	if (copy_from_kernel_nofault(read, ops, sizeof(*read)))
		return false;
	/* what was read is of these operations if they are still there */
	smp_rmb();
	return READ_ONCE(all[i]) == ops && read->pf && read->hook == function &&
	       read->priv == entries->hooks[i].priv;
}
