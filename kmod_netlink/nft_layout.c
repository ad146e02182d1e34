// SPDX-License-Identifier: GPL-2.0
/*
 * Whether the structures that the walk through nftables' chains reads and writes lie in the running
 * kernel as this module was compiled for. Headers that nearly fit a kernel compile as well, and
 * nothing else would tell: the walk reads members, and calls no exported function that depends on
 * them. The kernel's side is its own description of its types (btf.c).
 *
 * They are compared once for each time that nf_tables is loaded: when somebody wants a link at
 * chains, or asks for the state of the module. That takes milliseconds, off all packets' paths and
 * outside ipttrace_lock.
 */
#include <linux/bitmap.h>
#include <linux/module.h>

#include "btf.h"
#include "compat/nft.h"
#include "link.h"
#include "nft_layout.h"
#include "symbol.h"

#define MODULE_NAME "nf_tables"

/* --- what the module was compiled for ------------------------------------------------------ */

/**
 * struct member - a member of a struct that the walk uses
 * @name: its name
 * @place: its place; of a bit field it is found with @fill
 * @fill: sets the bits of a bit field, in a struct of zeroes; or NULL
 * @refusal: what to say where the kernel has it elsewhere
 */
struct member {
	const char *name;
	struct ipttrace_btf_place place;
	void (*fill)(void *zeroes, u64 ones);
	const char *refusal;
};

/**
 * struct layout - a struct that the walk uses
 * @name: its name
 * @size: its size
 * @refusal: what to say where the kernel has another size
 * @members: its members, the last one without a name
 */
struct layout {
	const char *name;
	u32 size;
	const char *refusal;
	const struct member *members;
};

#define REFUSAL(what)         \
	"this kernel's " what \
	" is not as this module was built for, so it does not walk through chains"

#define PLACED(struct_name, member_name, bit_count)                       \
	{                                                                 \
		.name = #member_name,                                     \
		.place = { 8 * offsetof(struct struct_name, member_name), \
			   bit_count },                                   \
		.refusal = REFUSAL(#struct_name "." #member_name),        \
	}

#define MEMBER(struct_name, member_name) \
	PLACED(struct_name, member_name, \
	       8 * sizeof_field(struct struct_name, member_name))

/* An array of no fixed length, at the end. */
#define OPEN_ARRAY(struct_name, member_name) PLACED(struct_name, member_name, 0)

/* There is no offsetof() for bit fields. */
#define BIT_FIELD(struct_name, member_name)                        \
	{                                                          \
		.name = #member_name,                              \
		.fill = fill_##struct_name##_##member_name,        \
		.refusal = REFUSAL(#struct_name "." #member_name), \
	}

#define FILL(struct_name, member_name)                                         \
	static void fill_##struct_name##_##member_name(void *zeroes, u64 ones) \
	{                                                                      \
		((struct struct_name *)zeroes)->member_name = ones;            \
	}

#define LAYOUT(struct_name)                                               \
	{                                                                 \
		.name = #struct_name, .size = sizeof(struct struct_name), \
		.refusal = REFUSAL(#struct_name),                         \
		.members = members_of_##struct_name,                      \
	}

FILL(nft_rule_dp, is_last)
FILL(nft_rule_dp, dlen)
FILL(nft_rule_dp, handle)
FILL(nft_table, family)
FILL(nft_payload, base)
FILL(nft_traceinfo, type)
FILL(sk_buff, nf_trace)

static const struct member members_of_nft_chain[] = {
	MEMBER(nft_chain, blob_gen_0), MEMBER(nft_chain, blob_gen_1),
	MEMBER(nft_chain, table),      MEMBER(nft_chain, handle),
	MEMBER(nft_chain, name),       {},
};

static const struct member members_of_nft_base_chain[] = {
	MEMBER(nft_base_chain, policy),
	MEMBER(nft_base_chain, stats),
	MEMBER(nft_base_chain, chain),
	{},
};

static const struct member members_of_nft_table[] = {
	BIT_FIELD(nft_table, family),
	MEMBER(nft_table, handle),
	MEMBER(nft_table, name),
	{},
};

static const struct member members_of_nft_stats[] = {
	MEMBER(nft_stats, pkts),
	MEMBER(nft_stats, bytes),
	MEMBER(nft_stats, syncp),
	{},
};

static const struct member members_of_nft_rule_blob[] = {
	MEMBER(nft_rule_blob, size),
	OPEN_ARRAY(nft_rule_blob, data),
	{},
};

static const struct member members_of_nft_rule_dp[] = {
	BIT_FIELD(nft_rule_dp, is_last),
	BIT_FIELD(nft_rule_dp, dlen),
	BIT_FIELD(nft_rule_dp, handle),
	OPEN_ARRAY(nft_rule_dp, data),
	{},
};

static const struct member members_of_nft_expr[] = {
	MEMBER(nft_expr, ops),
	OPEN_ARRAY(nft_expr, data),
	{},
};

static const struct member members_of_nft_expr_ops[] = {
	MEMBER(nft_expr_ops, eval),
	MEMBER(nft_expr_ops, size),
	{},
};

static const struct member members_of_nft_cmp_fast_expr[] = {
	MEMBER(nft_cmp_fast_expr, data),
	MEMBER(nft_cmp_fast_expr, mask),
	MEMBER(nft_cmp_fast_expr, sreg),
	MEMBER(nft_cmp_fast_expr, inv),
	{},
};

static const struct member members_of_nft_cmp16_fast_expr[] = {
	MEMBER(nft_cmp16_fast_expr, data),
	MEMBER(nft_cmp16_fast_expr, mask),
	MEMBER(nft_cmp16_fast_expr, sreg),
	MEMBER(nft_cmp16_fast_expr, inv),
	{},
};

static const struct member members_of_nft_bitwise_fast_expr[] = {
	MEMBER(nft_bitwise_fast_expr, mask),
	/* clang-format takes the bare name for C++'s operator. */
	MEMBER(nft_bitwise_fast_expr, xor),
	MEMBER(nft_bitwise_fast_expr, sreg),
	MEMBER(nft_bitwise_fast_expr, dreg),
	{},
};

static const struct member members_of_nft_payload[] = {
	BIT_FIELD(nft_payload, base),
	MEMBER(nft_payload, offset),
	MEMBER(nft_payload, len),
	MEMBER(nft_payload, dreg),
	{},
};

static const struct member members_of_nft_regs[] = {
	MEMBER(nft_regs, data),
	MEMBER(nft_regs, verdict),
	{},
};

static const struct member members_of_nft_verdict[] = {
	MEMBER(nft_verdict, code),
	MEMBER(nft_verdict, chain),
	{},
};

static const struct member members_of_nft_pktinfo[] = {
	MEMBER(nft_pktinfo, skb),
	MEMBER(nft_pktinfo, state),
	MEMBER(nft_pktinfo, flags),
#ifdef IPTTRACE_HAVE_NFT_PKTINFO_NHOFF
	MEMBER(nft_pktinfo, nhoff),
#endif
	MEMBER(nft_pktinfo, fragoff),
	MEMBER(nft_pktinfo, thoff),
	{},
};

static const struct member members_of_nft_traceinfo[] = {
	MEMBER(nft_traceinfo, trace),
	MEMBER(nft_traceinfo, nf_trace),
	BIT_FIELD(nft_traceinfo, type),
#ifndef IPTTRACE_HAVE_NFT_TRACE_NOTIFY_PKT
	MEMBER(nft_traceinfo, chain),
	MEMBER(nft_traceinfo, rule),
#endif
	{},
};

static const struct member members_of_nf_hook_state[] = {
	MEMBER(nf_hook_state, hook), MEMBER(nf_hook_state, pf),
	MEMBER(nf_hook_state, in),   MEMBER(nf_hook_state, out),
	MEMBER(nf_hook_state, net),  {},
};

static const struct member members_of_sk_buff[] = {
	MEMBER(sk_buff, sk),
	MEMBER(sk_buff, len),
	MEMBER(sk_buff, data_len),
	MEMBER(sk_buff, protocol),
	MEMBER(sk_buff, network_header),
	MEMBER(sk_buff, tail),
	MEMBER(sk_buff, head),
	MEMBER(sk_buff, data),
	BIT_FIELD(sk_buff, nf_trace),
	{},
};

static const struct member members_of_static_key[] = {
	MEMBER(static_key, enabled),
	{},
};

static const struct member members_of_net[] = {
	MEMBER(net, net_cookie),
	MEMBER(net, nft),
	MEMBER(net, gen),
	{},
};

static const struct member members_of_netns_nftables[] = {
	MEMBER(netns_nftables, gencursor),
#ifdef IPTTRACE_HAVE_NETNS_NFT_BASE_SEQ
	MEMBER(netns_nftables, base_seq),
#endif
	{},
};

#ifndef IPTTRACE_HAVE_NETNS_NFT_BASE_SEQ
static const struct member members_of_nftables_pernet[] = {
	MEMBER(nftables_pernet, base_seq),
	{},
};

static const struct member members_of_net_generic[] = {
	OPEN_ARRAY(net_generic, ptr),
	{},
};
#endif

static const struct layout layouts[] = {
	LAYOUT(nft_chain),
	LAYOUT(nft_base_chain),
	LAYOUT(nft_table),
	LAYOUT(nft_stats),
	LAYOUT(nft_rule_blob),
	LAYOUT(nft_rule_dp),
	LAYOUT(nft_expr),
	LAYOUT(nft_expr_ops),
	LAYOUT(nft_cmp_fast_expr),
	LAYOUT(nft_cmp16_fast_expr),
	LAYOUT(nft_bitwise_fast_expr),
	LAYOUT(nft_payload),
	LAYOUT(nft_regs),
	LAYOUT(nft_verdict),
	LAYOUT(nft_pktinfo),
	LAYOUT(nft_traceinfo),
	LAYOUT(nf_hook_state),
	LAYOUT(sk_buff),
	LAYOUT(static_key),
	LAYOUT(net),
	LAYOUT(netns_nftables),
#ifndef IPTTRACE_HAVE_NETNS_NFT_BASE_SEQ
	LAYOUT(nftables_pernet),
	LAYOUT(net_generic),
#endif
};

/* Serialises comparisons, and modules that come and go; outside ipttrace_lock. */
static DEFINE_MUTEX(compare_lock);

#define FILLED_BITS 16384
/* A struct in which one bit field is filled; under compare_lock. */
static DECLARE_BITMAP(filled, FILLED_BITS);

static_assert(sizeof(filled) >= sizeof(struct nft_rule_dp));
static_assert(sizeof(filled) >= sizeof(struct nft_table));
static_assert(sizeof(filled) >= sizeof(struct nft_payload));
static_assert(sizeof(filled) >= sizeof(struct nft_traceinfo));
static_assert(sizeof(filled) >= sizeof(struct sk_buff));

/* The place of a member in this module. */
static struct ipttrace_btf_place own_place(const struct member *member)
{
	struct ipttrace_btf_place place = member->place;

	lockdep_assert_held(&compare_lock);
	if (!member->fill)
		return place;
	bitmap_zero(filled, FILLED_BITS);
	member->fill(filled, ~0ULL);
	/* in the order in which BTF counts bits, on little-endian machines */
	place.at = find_first_bit(filled, FILLED_BITS);
	place.bits = bitmap_weight(filled, FILLED_BITS);
	return place;
}

/* --- the kernel's -------------------------------------------------------------------------- */

/* Compares a struct of the kernel. Returns what to say if it differs, or NULL. */
static const char *struct_compare(const struct ipttrace_btf *btf, u32 number,
				  const struct layout *layout)
{
	const struct member *member;
	u32 size;

	if (!ipttrace_btf_size(btf, number, &size) || size != layout->size)
		return layout->refusal;
	for (member = layout->members; member->name; member++) {
		const struct ipttrace_btf_place own = own_place(member);
		struct ipttrace_btf_place found;

		if (!ipttrace_btf_member(btf, number, member->name, &found) ||
		    found.at != own.at || found.bits != own.bits)
			return member->refusal;
	}
	return NULL;
}

/*
 * Compares all structs of a name. Those that nf_tables uses itself count, if it has any, else those
 * of the rest of the kernel.
 */
static const char *layout_compare(const struct ipttrace_btf *btf,
				  const struct layout *layout)
{
	const struct ipttrace_btf_part *part = &btf->module;
	const char *refusal;
	u32 number;

	number = ipttrace_btf_next_struct(btf, part, layout->name, 0);
	if (!number) {
		part = &btf->kernel;
		number = ipttrace_btf_next_struct(btf, part, layout->name, 0);
	}
	/* none at all */
	if (!number)
		return layout->refusal;
	while (number) {
		refusal = struct_compare(btf, number, layout);
		if (refusal)
			return refusal;
		number = ipttrace_btf_next_struct(btf, part, layout->name,
						  number);
	}
	return NULL;
}

static const char *layouts_compare(const struct ipttrace_btf *btf)
{
	const char *refusal = NULL;
	unsigned int i;

	for (i = 0; !refusal && i < ARRAY_SIZE(layouts); i++) {
		refusal = layout_compare(btf, &layouts[i]);
		cond_resched();
	}
	return refusal;
}

/* --- results ------------------------------------------------------------------------------- */

#define NOT_TOLD \
	"this kernel does not tell the layouts of nf_tables (CONFIG_DEBUG_INFO_BTF_MODULES), and so nobody knows whether walking through its chains is safe"

/* nf_tables is there; under compare_lock. */
static bool loaded;
/* Written under both locks, read under either. */
static enum ipttrace_layout result = IPTTRACE_LAYOUT_UNCHECKED;
static const char *why;

static void result_set(enum ipttrace_layout layout, const char *refusal)
{
	lockdep_assert_held(&compare_lock);
	mutex_lock(&ipttrace_lock);
	result = layout;
	why = refusal;
	mutex_unlock(&ipttrace_lock);
	if (refusal)
		pr_warn("ipttrace: %s\n", refusal);
}

static bool is_told(const struct ipttrace_btf *btf)
{
	/* without a module's own types, it may be part of the kernel */
	return btf->module.data ||
	       ipttrace_btf_next_struct(btf, &btf->kernel, layouts[0].name, 0);
}

static int compare(void)
{
	struct ipttrace_btf btf;
	const char *refusal;
	int err;

	err = ipttrace_btf_read(&btf, MODULE_NAME);
	if (err == -ENOMEM)
		goto out;
	if (err || !is_told(&btf)) {
		err = 0;
		result_set(IPTTRACE_LAYOUT_UNKNOWN, NOT_TOLD);
		goto out;
	}
	refusal = layouts_compare(&btf);
	result_set(refusal ? IPTTRACE_LAYOUT_DIFFERS : IPTTRACE_LAYOUT_SAME,
		   refusal);
out:
	ipttrace_btf_free(&btf);
	return err;
}

/**
 * ipttrace_nft_layout_compare - compare layouts with the kernel's, unless that was done
 * @found: nf_tables is loaded, as the caller has found out
 *
 * Does nothing while nf_tables is not loaded.
 *
 * Context: process, may sleep, without ipttrace_lock; milliseconds the first time.
 * Return: 0, or -ENOMEM.
 */
int ipttrace_nft_layout_compare(bool found)
{
	int err = 0;

	mutex_lock(&compare_lock);
	/* where there was no memory, looking for its symbols found none */
	loaded |= found;
	if (loaded && result == IPTTRACE_LAYOUT_UNCHECKED)
		err = compare();
	mutex_unlock(&compare_lock);
	return err;
}

/**
 * ipttrace_nft_layout - tell how comparing layouts ended
 * @refusal: set to a constant sentence that says what differs, or why nothing could be compared;
 *	else to NULL
 *
 * Context: with ipttrace_lock held.
 */
enum ipttrace_layout ipttrace_nft_layout(const char **refusal)
{
	lockdep_assert_held(&ipttrace_lock);
	*refusal = why;
	return result;
}

/* Forgets the result when nf_tables goes, since another build of it may come. */
static int module_event(struct notifier_block *nb, unsigned long event,
			void *data)
{
	const struct module *module = data;

	if (event != MODULE_STATE_COMING && event != MODULE_STATE_GOING)
		return NOTIFY_DONE;
	if (strcmp(module->name, MODULE_NAME))
		return NOTIFY_DONE;
	mutex_lock(&compare_lock);
	loaded = event == MODULE_STATE_COMING;
	result_set(IPTTRACE_LAYOUT_UNCHECKED, NULL);
	mutex_unlock(&compare_lock);
	return NOTIFY_OK;
}

/*
 * The kernel's own notifier, which makes the file of a module's types, was registered before and is
 * called first.
 */
static struct notifier_block modules = {
	.notifier_call = module_event,
};

/**
 * ipttrace_nft_layout_init - register for nf_tables to come and go
 *
 * Return: 0 or an errno.
 */
int ipttrace_nft_layout_init(void)
{
	int err;

	err = register_module_notifier(&modules);
	if (err)
		return err;
	mutex_lock(&compare_lock);
	loaded = loaded ||
		 ipttrace_module_symbol_find(MODULE_NAME, "nft_do_chain");
	mutex_unlock(&compare_lock);
	return 0;
}

/**
 * ipttrace_nft_layout_exit - undo ipttrace_nft_layout_init()
 */
void ipttrace_nft_layout_exit(void)
{
	unregister_module_notifier(&modules);
}
