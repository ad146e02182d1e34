/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_OWNER_H
#define _IPTTRACE_OWNER_H

#include "link.h"

void ipttrace_link_own(struct ipttrace_link *link, u32 portid);
bool ipttrace_link_forces(const struct ipttrace_link *link,
			  const struct ipttrace_requester *requester);
int ipttrace_link_permit(const struct ipttrace_link *link,
			 const struct ipttrace_requester *requester,
			 bool *forced, const struct nlattr *attr,
			 struct netlink_ext_ack *extack);
int ipttrace_link_adopt(struct ipttrace_link *link,
			const struct ipttrace_requester *requester, u32 flags,
			bool *forced, const struct nlattr *attr,
			struct netlink_ext_ack *extack);
void ipttrace_link_release(struct ipttrace_link *link);

#endif /* _IPTTRACE_OWNER_H */
