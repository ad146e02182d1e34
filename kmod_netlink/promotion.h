/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_PROMOTION_H
#define _IPTTRACE_PROMOTION_H

#include <linux/skbuff.h>

struct genl_info;
struct ipttrace_link;
struct ipttrace_promotion;

int ipttrace_promotion_init(void);
void ipttrace_promotion_exit(void);
struct ipttrace_promotion *
ipttrace_promotion_parse(const struct genl_info *info);
void ipttrace_promotion_free(struct ipttrace_promotion *promotion);
void ipttrace_promotion_begin(struct ipttrace_promotion *promotion,
			      struct ipttrace_link *link);
void ipttrace_promotion_end(struct ipttrace_promotion *promotion);
size_t ipttrace_promotion_size(void);
int ipttrace_put_promotion(struct sk_buff *msg,
			   const struct ipttrace_promotion *promotion);

#endif /* _IPTTRACE_PROMOTION_H */
