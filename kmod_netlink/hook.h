/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _IPTTRACE_HOOK_H
#define _IPTTRACE_HOOK_H

#include <linux/bits.h>
#include <linux/gfp_types.h>
#include <linux/list.h>
#include <linux/netlink.h>
#include <linux/skbuff.h>

#include "ipttrace_netlink.h"

struct ipttrace_link;
struct ipttrace_link_spec;
struct ipttrace_set;
struct ipttrace_sets;

/* Upper bound of enum ipttrace_hook: every number is below it. */
#define IPTTRACE_HOOKS (IPTTRACE_HOOK_JOURNEY + 1)

/* Slots of tables and of chains. */
#define IPTTRACE_TABLE_SLOTS                                  \
	(BIT(IPTTRACE_SLOT_ENTRY) | BIT(IPTTRACE_SLOT_RULE) | \
	 BIT(IPTTRACE_SLOT_EXIT))

/**
 * struct ipttrace_hook_ops - operations of a kind of hook
 * @attributes: attributes of an attach request that describe a place at this kind of hook; other
 *	kinds may share them
 * @attribute_count: number of @attributes
 * @in_netns: a link's place begins with a struct ipttrace_netns_place
 * @init: start tracking the objects that places of links depend on; returns 0 or an errno
 * @exit: undo @init; no link may be left
 * @parse: check the place in an attach request, flags included, and store it as the place of the
 *	spec; on failure there is nothing to release
 * @spec_release: release the place that @parse stored; NULL if it stores none
 * @takes: check that a program set suits a link of the given family; returns 0, or an errno with
 *	the extended ACK set, which blames the given attribute
 * @decides: tells whether a link decides over packets, so that a shadow's verdicts can be compared
 *	with its own; NULL if links of this kind never do
 * @begin: take the locks that go outside ipttrace_lock, and do the slow work, before a link is
 *	attached; on success @end must follow
 * @end: release these locks, whether the link was made or not
 * @attach: attach a link, which is listed and has its set, to its hook. When it returns 0, every
 *	packet that reaches the hook is handled by the set; otherwise none is
 * @prepare: make everything that @publish needs, from the sets that links at this kind of hook will
 *	have; may fail, unless gfp has __GFP_NOFAIL. NULL if @publish needs nothing
 * @publish: put the current sets of changing links in force, with the result of @prepare. The list
 *	holds links by their change, at other kinds of hooks too. Cannot fail, does not wait, and is
 *	short: one hook is ahead of another meanwhile
 * @detach: take leaving links from their hook. The list holds links by their list, at other kinds
 *	of hooks too. Cannot fail
 * @release: clean up, a grace period after links of this kind have left; does not wait. NULL if
 *	there is nothing to do
 * @armed: IPTTRACE_ARMED_* bits of a link
 * @put_size: most bytes that @put adds to a message
 * @put: add the place of a link to a message; returns 0 or -EMSGSIZE. NULL, and so @put_size, if
 *	there is nothing to add
 *
 * No packet path calls these. @attach, @prepare, @publish, @detach, @release, @takes, @decides,
 * @armed and @put are called with ipttrace_lock held; @begin before it is taken, @end after it was
 * released.
 *
 * @publish and @detach return the sets that were in force before, or NULL. The caller waits for one
 * grace period for links of all kinds, after which no packet is handled by these sets, and passes
 * them to kfree().
 */
struct ipttrace_hook_ops {
	const int *attributes;
	unsigned int attribute_count;
	bool in_netns;
	int (*init)(void);
	void (*exit)(void);
	int (*parse)(struct ipttrace_link_spec *spec, struct nlattr **attrs,
		     struct netlink_ext_ack *extack);
	void (*spec_release)(struct ipttrace_link_spec *spec);
	int (*takes)(u32 family, const struct ipttrace_set *set,
		     const struct nlattr *attr, struct netlink_ext_ack *extack);
	bool (*decides)(const struct ipttrace_link *link);
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

/* All kinds, by enum ipttrace_hook. */
extern const struct ipttrace_hook_ops *const ipttrace_hooks[IPTTRACE_HOOKS];

int ipttrace_hooks_init(void);
void ipttrace_hooks_exit(void);
const struct ipttrace_hook_ops *ipttrace_hook_find(u32 hook);
const struct nlattr *ipttrace_hook_foreign(const struct ipttrace_hook_ops *hook,
					   struct nlattr **attrs);
size_t ipttrace_hooks_put_size(void);

#endif /* _IPTTRACE_HOOK_H */
