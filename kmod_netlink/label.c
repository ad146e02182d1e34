// SPDX-License-Identifier: GPL-2.0
/*
 * Names of links and their labels: what people call a link, and note about it.
 */
#include <linux/ctype.h>
#include <linux/slab.h>
#include <net/netlink.h>

#include "label.h"
#include "netlink_gen.h"

static bool name_character(char c)
{
	return isascii(c) && (isalnum(c) || c == '_' || c == '.' || c == '-');
}

/**
 * ipttrace_name_check - check the spelling of a name of a link, or of a label's key
 * @attr: the name, of which the policy has checked the length
 * @extack: extended ACK, set on error
 *
 * A name is one word of a command line and of a file, and no number: that would be an id.
 *
 * Return: 0 or -EINVAL.
 */
int ipttrace_name_check(const struct nlattr *attr,
			struct netlink_ext_ack *extack)
{
	const char *name = nla_data(attr);
	bool good = isascii(*name) && (isalpha(*name) || *name == '_');

	while (good && *++name)
		good = name_character(*name);
	if (good)
		return 0;
	NL_SET_ERR_MSG_ATTR(
		extack, attr,
		"a name begins with a letter or '_'; letters, digits, '_', '.' and '-' follow");
	return -EINVAL;
}

static int parse_label(struct ipttrace_labels *labels,
		       const struct nlattr *nest,
		       struct netlink_ext_ack *extack)
{
	struct ipttrace_label *label = &labels->label[labels->count];
	struct nlattr *tb[ARRAY_SIZE(ipttrace_label_policy)];
	unsigned int i;
	int err;

	err = nla_parse_nested(tb, ARRAY_SIZE(tb) - 1, nest,
			       ipttrace_label_policy, extack);
	if (err)
		return err;
	if (!tb[IPTTRACE_A_LABEL_KEY] || !tb[IPTTRACE_A_LABEL_VALUE]) {
		NL_SET_ERR_MSG_ATTR(extack, nest,
				    "a label needs its key and its value");
		return -EINVAL;
	}
	err = ipttrace_name_check(tb[IPTTRACE_A_LABEL_KEY], extack);
	if (err)
		return err;
	for (i = 0; i < labels->count; i++)
		if (!strcmp(nla_data(tb[IPTTRACE_A_LABEL_KEY]),
			    labels->label[i].key)) {
			NL_SET_ERR_MSG_ATTR(extack, nest,
					    "a label is given twice");
			return -EINVAL;
		}
	nla_strscpy(label->key, tb[IPTTRACE_A_LABEL_KEY], sizeof(label->key));
	nla_strscpy(label->value, tb[IPTTRACE_A_LABEL_VALUE],
		    sizeof(label->value));
	labels->count++;
	return 0;
}

static unsigned int count_labels(const struct nlattr *nest)
{
	const struct nlattr *attr;
	unsigned int count = 0;
	int remaining;

	nla_for_each_nested(attr, nest, remaining)
		if (nla_type(attr) == IPTTRACE_A_LABELS_LABEL)
			count++;
	return count;
}

/**
 * ipttrace_labels_parse - parse the labels of a request
 * @nest: their nest
 * @extack: extended ACK, set on error
 *
 * Return: the labels with one user, NULL if there are none in the nest, or ERR_PTR(): -EINVAL,
 * -E2BIG or -ENOMEM.
 */
struct ipttrace_labels *ipttrace_labels_parse(const struct nlattr *nest,
					      struct netlink_ext_ack *extack)
{
	unsigned int count = count_labels(nest);
	struct ipttrace_labels *labels;
	const struct nlattr *attr;
	int remaining, err;

	if (!count)
		return NULL;
	if (count > IPTTRACE_MAX_LABELS) {
		NL_SET_ERR_MSG_ATTR(extack, nest,
				    "there are more labels than a link takes");
		return ERR_PTR(-E2BIG);
	}
	labels = kzalloc(struct_size(labels, label, count), GFP_KERNEL);
	if (!labels)
		return ERR_PTR(-ENOMEM);
	refcount_set(&labels->users, 1);
	nla_for_each_nested(attr, nest, remaining) {
		if (nla_type(attr) != IPTTRACE_A_LABELS_LABEL)
			continue;
		err = parse_label(labels, attr, extack);
		if (err) {
			kfree(labels);
			return ERR_PTR(err);
		}
	}
	return labels;
}

/**
 * ipttrace_labels_get - add a user to labels
 * @labels: the labels; may be NULL
 *
 * Return: @labels.
 */
struct ipttrace_labels *ipttrace_labels_get(struct ipttrace_labels *labels)
{
	if (labels)
		refcount_inc(&labels->users);
	return labels;
}

/**
 * ipttrace_labels_put - take a user from labels, and free them after the last
 * @labels: the labels; may be NULL
 */
void ipttrace_labels_put(struct ipttrace_labels *labels)
{
	if (labels && refcount_dec_and_test(&labels->users))
		kfree(labels);
}

/**
 * ipttrace_labels_size - space that ipttrace_put_labels() needs in a message
 */
size_t ipttrace_labels_size(void)
{
	size_t label = nla_total_size(0) +
		       nla_total_size(IPTTRACE_LABEL_KEY + 1) +
		       nla_total_size(IPTTRACE_LABEL_VALUE + 1);

	return nla_total_size(0) + IPTTRACE_MAX_LABELS * label;
}

static int put_label(struct sk_buff *msg, const struct ipttrace_label *label)
{
	struct nlattr *nest = nla_nest_start(msg, IPTTRACE_A_LABELS_LABEL);

	if (!nest || nla_put_string(msg, IPTTRACE_A_LABEL_KEY, label->key) ||
	    nla_put_string(msg, IPTTRACE_A_LABEL_VALUE, label->value))
		return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}

/**
 * ipttrace_put_labels - add labels to a message
 * @msg: the message
 * @labels: the labels; may be NULL, which adds nothing
 *
 * Return: 0 or -EMSGSIZE.
 */
int ipttrace_put_labels(struct sk_buff *msg,
			const struct ipttrace_labels *labels)
{
	struct nlattr *nest;
	unsigned int i;

	if (!labels)
		return 0;
	nest = nla_nest_start(msg, IPTTRACE_A_LABELS);
	if (!nest)
		return -EMSGSIZE;
	for (i = 0; i < labels->count; i++)
		if (put_label(msg, &labels->label[i]))
			return -EMSGSIZE;
	nla_nest_end(msg, nest);
	return 0;
}
