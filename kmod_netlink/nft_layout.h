/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_NFT_LAYOUT_H
#define _IPTTRACE_NFT_LAYOUT_H

#include <linux/types.h>

#include "ipttrace_netlink.h"

int ipttrace_nft_layout_init(void);
void ipttrace_nft_layout_exit(void);
int ipttrace_nft_layout_compare(bool found);
enum ipttrace_layout ipttrace_nft_layout(const char **refusal);

#endif /* _IPTTRACE_NFT_LAYOUT_H */
