/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_QUEUES_H
#define _IPTTRACE_QUEUES_H

#include <net/net_namespace.h>

void ipttrace_queues_init(void);
void ipttrace_queues_learn(void);
bool ipttrace_queues_may_hold(const struct net *net);

#endif /* _IPTTRACE_QUEUES_H */
