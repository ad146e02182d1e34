/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_NAT_H
#define _IPTTRACE_NAT_H

#include "arming.h"

/* nf_nat_inet_fn(), for links at tables and at chains; locked inside the arming locks of these. */
extern struct ipttrace_arming ipttrace_nat_arming;

int ipttrace_nat_init(void);
void ipttrace_nat_exit(void);

#endif /* _IPTTRACE_NAT_H */
