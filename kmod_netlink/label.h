/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_LABEL_H
#define _IPTTRACE_LABEL_H

#include <linux/netlink.h>
#include <linux/refcount.h>
#include <linux/skbuff.h>

#include "compat/compiler.h"
#include "ipttrace_netlink.h"

struct ipttrace_label {
	char key[IPTTRACE_LABEL_KEY + 1];
	char value[IPTTRACE_LABEL_VALUE + 1];
};

/**
 * struct ipttrace_labels - the labels of a link in one generation
 * @users: the program sets that have them: a swap that gives none keeps them, a roll-back has its
 *	own ones again
 * @count: number of labels, at least one
 * @label: the labels, in the order in which they were given
 *
 * Constant. Freed when the last set that has them is freed.
 */
struct ipttrace_labels {
	refcount_t users;
	unsigned int count;
	struct ipttrace_label label[] __counted_by(count);
};

int ipttrace_name_check(const struct nlattr *attr,
			struct netlink_ext_ack *extack);
struct ipttrace_labels *ipttrace_labels_parse(const struct nlattr *nest,
					      struct netlink_ext_ack *extack);
struct ipttrace_labels *ipttrace_labels_get(struct ipttrace_labels *labels);
void ipttrace_labels_put(struct ipttrace_labels *labels);
size_t ipttrace_labels_size(void);
int ipttrace_put_labels(struct sk_buff *msg,
			const struct ipttrace_labels *labels);

#endif /* _IPTTRACE_LABEL_H */
