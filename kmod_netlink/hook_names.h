/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_HOOK_NAMES_H
#define _IPTTRACE_HOOK_NAMES_H

#include "ipttrace_netlink.h"

int ipttrace_hook_names_init(void);
void ipttrace_hook_names_exit(void);
void ipttrace_hook_name(struct ipttrace_event *event, const void *function);

#endif /* _IPTTRACE_HOOK_NAMES_H */
