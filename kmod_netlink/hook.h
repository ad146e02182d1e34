/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_HOOK_H
#define _IPTTRACE_HOOK_H

#include <linux/gfp_types.h>
#include <linux/list.h>
#include <linux/netlink.h>
#include <linux/skbuff.h>

#include "ipttrace_netlink.h"

struct ipttrace_link;
struct ipttrace_link_spec;
struct ipttrace_set;
struct ipttrace_sets;

/* Every number of enum ipttrace_hook is below it. */
#define IPTTRACE_HOOKS (IPTTRACE_HOOK_NF + 1)

/**
 * struct ipttrace_hook_ops - a kind of hook: all that depends on where a link's programs run
 * @attributes: those of an attach request that say where, of this kind and maybe of others
 * @attribute_count: how many
 * @init: begin to follow what the places of links depend on; returns 0 or an errno
 * @exit: end it; no link may be left
 * @parse: check what an attach request says of the place, its flags included, and keep it as the
 *	place of the spec; on failure there is nothing to release
 * @spec_release: give back what @parse kept; NULL if it keeps nothing
 * @takes: whether a program set suits a link of the given family; returns 0, or an errno and says
 *	why not, complaining of the given attribute
 * @begin: take the locks that go outside ipttrace_lock, and do what takes long, before a link is
 *	attached; on success @end must follow
 * @end: give these locks back, whether the link was made or not
 * @attach: put a link, which is listed and has its set, to its hook. When it returns 0, every
 *	packet that reaches the hook is handled by the set; otherwise none is
 * @prepare: make whatever @publish needs to put changes in force, with the sets that links at
 *	this kind of hook have then; may fail, unless gfp has __GFP_NOFAIL. NULL if it needs nothing
 * @publish: put the sets that changing links have now in force, with what @prepare made; the links
 *	are in a list by their change, of other kinds too. Cannot fail, does not wait, and is short:
 *	one hook is ahead of another meanwhile
 * @detach: take leaving links from their hook; they are in a list by their list, of other kinds
 *	too. Cannot fail
 * @release: links of this kind have left, a grace period ago; does not wait. NULL for nothing to do
 * @armed: which IPTTRACE_ARMED_* bits a link has
 * @put_size: bytes that @put adds to a message at most
 * @put: add what a message about a link says of its place; returns 0 or -EMSGSIZE. NULL, and so
 *	@put_size, if there is nothing to say
 *
 * Packets call none of these. @attach, @prepare, @publish, @detach, @release, @takes, @armed and
 * @put are called with ipttrace_lock held; @begin before it is taken, @end after it was given back.
 *
 * @publish and @detach return what was in force before, or NULL. The caller waits for one grace
 * period for links of all kinds, after which no packet is handled by it, and passes it to kfree().
 */
struct ipttrace_hook_ops {
	const int *attributes;
	unsigned int attribute_count;
	int (*init)(void);
	void (*exit)(void);
	int (*parse)(struct ipttrace_link_spec *spec, struct nlattr **attrs,
		     struct netlink_ext_ack *extack);
	void (*spec_release)(struct ipttrace_link_spec *spec);
	int (*takes)(u32 family, const struct ipttrace_set *set,
		     const struct nlattr *attr, struct netlink_ext_ack *extack);
	int (*begin)(const struct ipttrace_link_spec *spec,
		     struct netlink_ext_ack *extack);
	void (*end)(const struct ipttrace_link_spec *spec);
	int (*attach)(struct ipttrace_link *link,
		      const struct ipttrace_link_spec *spec,
		      struct netlink_ext_ack *extack);
	struct ipttrace_sets *(*prepare)(gfp_t gfp);
	struct ipttrace_sets *(*publish)(struct ipttrace_sets *prepared,
					 const struct list_head *changing);
	struct ipttrace_sets *(*detach)(const struct list_head *leaving);
	void (*release)(void);
	u32 (*armed)(const struct ipttrace_link *link);
	size_t (*put_size)(void);
	int (*put)(struct sk_buff *msg, const struct ipttrace_link *link);
};

/* By enum ipttrace_hook. */
extern const struct ipttrace_hook_ops *const ipttrace_hooks[IPTTRACE_HOOKS];

int ipttrace_hooks_init(void);
void ipttrace_hooks_exit(void);
const struct ipttrace_hook_ops *ipttrace_hook_find(u32 hook);
const struct nlattr *ipttrace_hook_foreign(const struct ipttrace_hook_ops *hook,
					   struct nlattr **attrs);
size_t ipttrace_hooks_put_size(void);

#endif /* _IPTTRACE_HOOK_H */
