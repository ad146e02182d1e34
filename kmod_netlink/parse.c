// SPDX-License-Identifier: GPL-2.0
/*
 * Parsing of requests: attributes into program sets, places, expectations, changes.
 */
#include <linux/capability.h>
#include <net/genetlink.h>

#include "condition.h"
#include "hook.h"
#include "label.h"
#include "limits.h"
#include "netlink.h"
#include "netlink_gen.h"
#include "parse.h"
#include "payload.h"

/* --- program sets -------------------------------------------------------------------------- */

static int parse_program(struct ipttrace_set *set, const struct nlattr *nest,
			 struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_program_policy)];
	int err;

	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_program_policy, extack);
	if (err)
		return err;
	if (!tb[IPTTRACE_A_PROGRAM_SLOT]) {
		NL_SET_ERR_ATTR_MISS(extack, nest, IPTTRACE_A_PROGRAM_SLOT);
		NL_SET_ERR_MSG(extack, "a program has no slot");
		return -EINVAL;
	}
	if (!tb[IPTTRACE_A_PROGRAM_FD]) {
		NL_SET_ERR_ATTR_MISS(extack, nest, IPTTRACE_A_PROGRAM_FD);
		NL_SET_ERR_MSG(extack, "a program has no file descriptor");
		return -EINVAL;
	}
	return ipttrace_set_add_program(set, tb[IPTTRACE_A_PROGRAM_SLOT],
					tb[IPTTRACE_A_PROGRAM_FD], extack);
}

/* CAP_NET_ADMIN is enough to send a request. A kprobe program needs what loading it needs. */
static int check_program_capability(const struct ipttrace_set *set,
				    struct netlink_ext_ack *extack)
{
	if (!(set->slots & ~BIT(IPTTRACE_SLOT_PACKET)))
		return 0;
	if (bpf_capable() || perfmon_capable())
		return 0;
	NL_SET_ERR_MSG(extack,
		       "attaching a program needs CAP_BPF or CAP_PERFMON");
	return -EPERM;
}

static int fill_set(struct ipttrace_set *set, const struct nlattr *nest,
		    struct nlattr **tb, struct netlink_ext_ack *extack)
{
	const struct nlattr *attr;
	int remaining, err;

	nla_for_each_nested(attr, nest, remaining) {
		if (nla_type(attr) != IPTTRACE_A_PROGRAM_SET_PROGRAM)
			continue;
		err = parse_program(set, attr, extack);
		if (err)
			return err;
	}
	err = check_program_capability(set, extack);
	if (err)
		return err;
	if (tb[IPTTRACE_A_PROGRAM_SET_FILTER]) {
		err = ipttrace_set_add_filter(
			set, tb[IPTTRACE_A_PROGRAM_SET_FILTER], extack);
		if (err)
			return err;
	}
	if (tb[IPTTRACE_A_PROGRAM_SET_PAYLOAD_FD]) {
		err = ipttrace_set_add_payload(
			set, tb[IPTTRACE_A_PROGRAM_SET_PAYLOAD_FD], extack);
		if (err)
			return err;
	}
	if (tb[IPTTRACE_A_PROGRAM_SET_LIMITS]) {
		err = ipttrace_set_add_limits(
			set, tb[IPTTRACE_A_PROGRAM_SET_LIMITS], extack);
		if (err)
			return err;
	}
	if (tb[IPTTRACE_A_PROGRAM_SET_COOKIE])
		set->cookie = nla_get_u64(tb[IPTTRACE_A_PROGRAM_SET_COOKIE]);
	return 0;
}

static int add_labels(struct ipttrace_set *set, const struct nlattr *nest,
		      struct netlink_ext_ack *extack)
{
	struct ipttrace_labels *labels = ipttrace_labels_parse(nest, extack);

	if (IS_ERR(labels))
		return PTR_ERR(labels);
	set->labels = labels;
	return 0;
}

/*
 * Parses the set of a nest, which is missing from @outer if it is NULL, and the labels that go with
 * it, which may be NULL.
 */
static struct ipttrace_set *parse_set(const struct nlattr *nest,
				      const struct nlattr *outer, int type,
				      const struct nlattr *labels,
				      struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_program_set_policy)];
	struct ipttrace_set *set;
	int err;

	if (!nest) {
		NL_SET_ERR_ATTR_MISS(extack, outer, type);
		NL_SET_ERR_MSG(extack, "no program set is given");
		return ERR_PTR(-EINVAL);
	}
	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_program_set_policy, extack);
	if (err)
		return ERR_PTR(err);
	if (!tb[IPTTRACE_A_PROGRAM_SET_PROGRAM]) {
		NL_SET_ERR_MSG_ATTR(extack, nest,
				    "the program set has no program");
		return ERR_PTR(-EINVAL);
	}
	set = ipttrace_set_alloc();
	if (!set)
		return ERR_PTR(-ENOMEM);
	err = fill_set(set, nest, tb, extack);
	if (!err && labels)
		err = add_labels(set, labels, extack);
	if (err) {
		ipttrace_set_free(set);
		return ERR_PTR(err);
	}
	return set;
}

/**
 * ipttrace_parse_set - parse the program set of a request, with its labels
 * @info: the request
 *
 * Return: the set, which the caller owns, or an ERR_PTR().
 */
struct ipttrace_set *ipttrace_parse_set(struct genl_info *info)
{
	return parse_set(info->attrs[IPTTRACE_A_PROGRAMS], NULL,
			 IPTTRACE_A_PROGRAMS, info->attrs[IPTTRACE_A_LABELS],
			 info->extack);
}

/* --- links --------------------------------------------------------------------------------- */

/* Parses a reference to a link. Without one, the attribute @type is missing from @outer. */
static int parse_ref(struct ipttrace_link_ref *ref, const struct nlattr *id,
		     const struct nlattr *name, const struct nlattr *outer,
		     int type, struct netlink_ext_ack *extack)
{
	if (id && name) {
		NL_SET_ERR_MSG_ATTR(
			extack, name,
			"a link is given by its id or by its name, not by both");
		return -EINVAL;
	}
	if (!id && !name) {
		NL_SET_ERR_ATTR_MISS(extack, outer, type);
		NL_SET_ERR_MSG(extack, "no link is given");
		return -EINVAL;
	}
	ref->attr = id ?: name;
	ref->by_name = name;
	return 0;
}

/**
 * ipttrace_parse_link - parse the id or the name of the link that a request is about
 * @info: the request
 * @ref: filled in
 *
 * Return: 0 or -EINVAL.
 */
int ipttrace_parse_link(struct genl_info *info, struct ipttrace_link_ref *ref)
{
	return parse_ref(ref, info->attrs[IPTTRACE_A_LINK],
			 info->attrs[IPTTRACE_A_NAME], NULL, IPTTRACE_A_LINK,
			 info->extack);
}

/**
 * ipttrace_link_attr - the attribute that names the link of a request, to blame for it
 * @info: the request, which has one
 */
const struct nlattr *ipttrace_link_attr(const struct genl_info *info)
{
	return info->attrs[IPTTRACE_A_LINK] ?: info->attrs[IPTTRACE_A_NAME];
}

/**
 * ipttrace_parse_requester - parse who asks for a change of links, and how
 * @info: the request, of an operation that takes force, which is behind its other attributes here
 *
 * Return: the requester.
 */
struct ipttrace_requester ipttrace_parse_requester(const struct genl_info *info)
{
	const struct nlattr *force = info->attrs[IPTTRACE_A_FORCE];

	return (struct ipttrace_requester){
		.portid = info->snd_portid,
		.force = force && nla_get_u32(force),
		.reason = info->attrs[IPTTRACE_A_REASON_TEXT],
	};
}

/**
 * ipttrace_parse_spec - parse an attach request, except for its program set
 * @info: the request
 * @spec: filled in; the caller releases it with ipttrace_spec_release()
 *
 * Return: 0, -EINVAL, -EOPNOTSUPP, or an errno of the parse of the kind of hook; on failure there
 * is nothing to release.
 */
int ipttrace_parse_spec(struct genl_info *info, struct ipttrace_link_spec *spec)
{
	const struct ipttrace_hook_ops *hook;
	struct nlattr **attrs = info->attrs;
	int err;

	memset(spec, 0, sizeof(*spec));
	spec->portid = info->snd_portid;
	spec->programs = attrs[IPTTRACE_A_PROGRAMS];
	spec->name = attrs[IPTTRACE_A_NAME];
	spec->reason = attrs[IPTTRACE_A_REASON_TEXT];
	spec->journey = attrs[IPTTRACE_A_JOURNEY];
	if (spec->name) {
		err = ipttrace_name_check(spec->name, info->extack);
		if (err)
			return err;
	}
	if (!attrs[IPTTRACE_A_HOOK]) {
		NL_SET_ERR_ATTR_MISS(info->extack, NULL, IPTTRACE_A_HOOK);
		NL_SET_ERR_MSG(info->extack, "no hook is given");
		return -EINVAL;
	}
	spec->hook = nla_get_u32(attrs[IPTTRACE_A_HOOK]);
	if (attrs[IPTTRACE_A_FAMILY])
		spec->family = nla_get_u32(attrs[IPTTRACE_A_FAMILY]);
	if (attrs[IPTTRACE_A_FLAGS])
		spec->flags = nla_get_u32(attrs[IPTTRACE_A_FLAGS]);
	if (spec->flags & IPTTRACE_LINK_FLAG_EXCLUSIVE &&
	    spec->flags & IPTTRACE_LINK_FLAG_PERSISTENT) {
		NL_SET_ERR_MSG_ATTR(
			info->extack, attrs[IPTTRACE_A_FLAGS],
			"a persistent link has no owner that has it exclusively");
		return -EINVAL;
	}
	if (spec->journey && spec->flags & IPTTRACE_LINK_FLAG_PERSISTENT) {
		NL_SET_ERR_MSG_ATTR(
			info->extack, attrs[IPTTRACE_A_FLAGS],
			"a link on a journey is never persistent: the journey ends with its socket");
		return -EOPNOTSUPP;
	}
	hook = ipttrace_hook_find(spec->hook);
	if (!hook) {
		NL_SET_ERR_MSG_ATTR(info->extack, attrs[IPTTRACE_A_HOOK],
				    "there is no such hook");
		return -EOPNOTSUPP;
	}
	return hook->parse(spec, attrs, info->extack);
}

/**
 * ipttrace_spec_release - release what ipttrace_parse_spec() took
 * @spec: the spec that it filled in
 */
void ipttrace_spec_release(struct ipttrace_link_spec *spec)
{
	const struct ipttrace_hook_ops *hook = ipttrace_hooks[spec->hook];

	if (hook->spec_release)
		hook->spec_release(spec);
	kfree(spec->restored);
}

/* --- swaps --------------------------------------------------------------------------------- */

static int parse_expected_program(struct ipttrace_expectation *expect,
				  const struct nlattr *attr,
				  struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_expected_program_policy)];
	u32 slot;
	int err;

	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, attr,
			       ipttrace_expected_program_policy, extack);
	if (err)
		return err;
	if (!tb[IPTTRACE_A_EXPECTED_PROGRAM_SLOT] ||
	    !tb[IPTTRACE_A_EXPECTED_PROGRAM_ID]) {
		NL_SET_ERR_MSG_ATTR(
			extack, attr,
			"an expected program needs its slot and its id");
		return -EINVAL;
	}
	slot = nla_get_u32(tb[IPTTRACE_A_EXPECTED_PROGRAM_SLOT]);
	__set_bit(slot, &expect->slots);
	expect->prog_id[slot] = nla_get_u32(tb[IPTTRACE_A_EXPECTED_PROGRAM_ID]);
	expect->program_attr[slot] = attr;
	return 0;
}

/*
 * Parses an expectation. The generation is an attribute that was parsed; the programs are all
 * attributes of number @type at @head, which may come several times.
 */
static int parse_expectation(struct ipttrace_expectation *expect,
			     const struct nlattr *generation,
			     const struct nlattr *head, int length, int type,
			     struct netlink_ext_ack *extack)
{
	const struct nlattr *attr;
	int remaining, err;

	memset(expect, 0, sizeof(*expect));
	if (generation) {
		expect->generation = nla_get_u32(generation);
		expect->generation_attr = generation;
	}
	nla_for_each_attr(attr, head, length, remaining) {
		if (nla_type(attr) != type)
			continue;
		err = parse_expected_program(expect, attr, extack);
		if (err)
			return err;
	}
	return 0;
}

/**
 * ipttrace_parse_expectation - parse the state that a request expects of its link
 * @info: the request
 * @expect: filled in
 *
 * Return: 0 or -EINVAL.
 */
int ipttrace_parse_expectation(struct genl_info *info,
			       struct ipttrace_expectation *expect)
{
	return parse_expectation(expect,
				 info->attrs[IPTTRACE_A_EXPECT_GENERATION],
				 nlmsg_attrdata(info->nlhdr, GENL_HDRLEN),
				 nlmsg_attrlen(info->nlhdr, GENL_HDRLEN),
				 IPTTRACE_A_EXPECT_PROGRAM, info->extack);
}

/**
 * ipttrace_parse_swap - parse the change in a swap request
 * @info: the request
 *
 * Return: an array of one, which the caller frees with ipttrace_changes_free(), or an ERR_PTR().
 */
struct ipttrace_change *ipttrace_parse_swap(struct genl_info *info)
{
	struct ipttrace_change *change;
	int err;

	change = kzalloc(sizeof(*change), GFP_KERNEL);
	if (!change)
		return ERR_PTR(-ENOMEM);
	err = ipttrace_parse_link(info, &change->ref);
	if (!err)
		err = ipttrace_parse_expectation(info, &change->expect);
	if (err)
		goto err_free;
	change->programs_attr = info->attrs[IPTTRACE_A_PROGRAMS];
	change->labelled = info->attrs[IPTTRACE_A_LABELS];
	change->set = ipttrace_parse_set(info);
	err = PTR_ERR_OR_ZERO(change->set);
	if (err)
		goto err_free;
	return change;

err_free:
	kfree(change);
	return ERR_PTR(err);
}

static int parse_change(struct ipttrace_change *change,
			const struct nlattr *nest,
			struct netlink_ext_ack *extack)
{
	struct nlattr *tb[ARRAY_SIZE(ipttrace_change_policy)];
	struct ipttrace_set *set;
	int err;

	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_change_policy, extack);
	if (err)
		return err;
	err = parse_ref(&change->ref, tb[IPTTRACE_A_CHANGE_LINK],
			tb[IPTTRACE_A_CHANGE_NAME], nest,
			IPTTRACE_A_CHANGE_LINK, extack);
	if (err)
		return err;
	err = parse_expectation(&change->expect,
				tb[IPTTRACE_A_CHANGE_EXPECT_GENERATION],
				nla_data(nest), nla_len(nest),
				IPTTRACE_A_CHANGE_EXPECT_PROGRAM, extack);
	if (err)
		return err;
	change->programs_attr = tb[IPTTRACE_A_CHANGE_PROGRAMS];
	change->labelled = tb[IPTTRACE_A_CHANGE_LABELS];
	set = parse_set(change->programs_attr, nest, IPTTRACE_A_CHANGE_PROGRAMS,
			tb[IPTTRACE_A_CHANGE_LABELS], extack);
	if (IS_ERR(set))
		return PTR_ERR(set);
	change->set = set;
	return 0;
}

static unsigned int count_changes(struct genl_info *info)
{
	const struct nlattr *attr;
	unsigned int count = 0;
	int remaining;

	nlmsg_for_each_attr(attr, info->nlhdr, GENL_HDRLEN, remaining)
		if (nla_type(attr) == IPTTRACE_A_CHANGE)
			count++;
	return count;
}

/**
 * ipttrace_parse_changes - parse the changes in a transaction request
 * @info: the request
 * @count: set to the number of changes
 *
 * Return: the changes, which the caller frees with ipttrace_changes_free(), or an ERR_PTR().
 */
struct ipttrace_change *ipttrace_parse_changes(struct genl_info *info,
					       unsigned int *count)
{
	struct ipttrace_change *changes;
	const struct nlattr *attr;
	unsigned int i = 0;
	int remaining, err;

	*count = count_changes(info);
	if (!*count) {
		NL_SET_ERR_ATTR_MISS(info->extack, NULL, IPTTRACE_A_CHANGE);
		NL_SET_ERR_MSG(info->extack, "no change is given");
		return ERR_PTR(-EINVAL);
	}
	if (*count > IPTTRACE_MAX_CHANGES) {
		NL_SET_ERR_MSG_ATTR(
			info->extack, info->attrs[IPTTRACE_A_CHANGE],
			"there are more changes than one transaction takes");
		return ERR_PTR(-E2BIG);
	}
	changes = kcalloc(*count, sizeof(*changes), GFP_KERNEL);
	if (!changes)
		return ERR_PTR(-ENOMEM);
	nlmsg_for_each_attr(attr, info->nlhdr, GENL_HDRLEN, remaining) {
		if (nla_type(attr) != IPTTRACE_A_CHANGE)
			continue;
		err = parse_change(&changes[i++], attr, info->extack);
		if (err)
			goto err_free;
	}
	return changes;

err_free:
	ipttrace_changes_free(changes, *count, false);
	return ERR_PTR(err);
}

/**
 * ipttrace_parse_terms - parse whether a swap is for good at once, and when it is answered
 * @info: the request
 * @terms: filled in; the guards are the caller's
 *
 * Return: 0, -EINVAL, -E2BIG or -ENOMEM; on failure there is nothing to free.
 */
int ipttrace_parse_terms(const struct genl_info *info,
			 struct ipttrace_terms *terms)
{
	const struct nlattr *after = info->attrs[IPTTRACE_A_ROLLBACK_AFTER];
	const struct nlattr *ack = info->attrs[IPTTRACE_A_SWAP_ACK];
	unsigned int i;

	terms->rollback_after = after ? nla_get_u32(after) : 0;
	terms->ack = ack ? nla_get_u32(ack) : 0;
	terms->guards = ipttrace_conditions_parse(info, IPTTRACE_A_GUARD,
						  IPTTRACE_MAX_GUARDS);
	if (IS_ERR_OR_NULL(terms->guards))
		return PTR_ERR_OR_ZERO(terms->guards);
	for (i = 0; i < terms->guards->count; i++)
		if (ipttrace_condition_of_shadow(
			    &terms->guards->condition[i])) {
			NL_SET_ERR_MSG_ATTR(
				info->extack, info->attrs[IPTTRACE_A_GUARD],
				"a swap that waits has no shadow, whose counters a guard could be on");
			kfree(terms->guards);
			return -EINVAL;
		}
	return 0;
}

/**
 * ipttrace_changes_free - free changes, and their sets unless they were swapped
 * @changes: the changes
 * @count: number of changes
 * @swapped: true if the links own the sets now
 */
void ipttrace_changes_free(struct ipttrace_change *changes, unsigned int count,
			   bool swapped)
{
	unsigned int i;

	for (i = 0; i < count && !swapped; i++)
		ipttrace_set_free(changes[i].set);
	kfree(changes);
}
