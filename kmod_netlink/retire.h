/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_RETIRE_H
#define _IPTTRACE_RETIRE_H

#include "transaction.h"

struct ipttrace_retirement;

int ipttrace_retire_init(void);
void ipttrace_retire_wait(void);
void ipttrace_retire_flush(void);
void ipttrace_retire_exit(void);
struct ipttrace_retirement *
ipttrace_retirement_alloc(const struct list_head *changing);
void ipttrace_retirement_free(struct ipttrace_retirement *retirement);
void ipttrace_retire(struct ipttrace_retirement *retirement,
		     const struct list_head *changing,
		     struct ipttrace_publication *publication);

#endif /* _IPTTRACE_RETIRE_H */
