/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_PLACEHOLDERS_H
#define _IPTTRACE_PLACEHOLDERS_H

#include <linux/netfilter.h>

struct ipttrace_spine_place;

/* Accepts every packet. A walk at the spine passes it over. */
nf_hookfn ipttrace_placeholder;

int ipttrace_placeholders_init(void);
void ipttrace_placeholders_exit(void);
void ipttrace_placeholders_begin(const struct ipttrace_spine_place *coming);
void ipttrace_placeholders_end(void);
void ipttrace_placeholders_release(void);

#endif /* _IPTTRACE_PLACEHOLDERS_H */
