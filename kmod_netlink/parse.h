/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_PARSE_H
#define _IPTTRACE_PARSE_H

#include "transaction.h"

struct genl_info;

int ipttrace_parse_spec(struct genl_info *info,
			struct ipttrace_link_spec *spec);
void ipttrace_spec_release(struct ipttrace_link_spec *spec);
struct ipttrace_set *ipttrace_parse_set(struct genl_info *info);
int ipttrace_parse_expectation(struct genl_info *info,
			       struct ipttrace_expectation *expect);
struct ipttrace_change *ipttrace_parse_swap(struct genl_info *info);
struct ipttrace_change *ipttrace_parse_changes(struct genl_info *info,
					       unsigned int *count);
void ipttrace_changes_free(struct ipttrace_change *changes, unsigned int count,
			   bool swapped);
int ipttrace_parse_terms(const struct genl_info *info,
			 struct ipttrace_terms *terms);
struct ipttrace_requester
ipttrace_parse_requester(const struct genl_info *info);
const struct nlattr *ipttrace_link_attr(const struct genl_info *info);
int ipttrace_parse_link(struct genl_info *info, struct ipttrace_link_ref *ref);

#endif /* _IPTTRACE_PARSE_H */
