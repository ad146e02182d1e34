/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_NFT_SYMBOLS_H
#define _IPTTRACE_NFT_SYMBOLS_H

struct netlink_ext_ack;

int ipttrace_nft_resolve(struct netlink_ext_ack *extack);

#endif /* _IPTTRACE_NFT_SYMBOLS_H */
