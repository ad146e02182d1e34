/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The contract that BPF programs of ipttrace are written against.
 *
 * A program of a slot at tables, chains, the spine or a journey has type BPF_PROG_TYPE_KPROBE,
 * expected attach type 0, and a struct pt_regs as its context, with the registers that a kprobe
 * (entry, rule) or a kretprobe (exit) on the kernel's own function would see, and a little more.
 * Read it with the accessors below. Pointers that they return point into the kernel: read through
 * IPTTRACE_FIELD() or bpf_probe_read_kernel().
 *
 * A program of a netfilter hook's slot has type BPF_PROG_TYPE_SOCKET_FILTER and the packet, a
 * struct __sk_buff, as its context, just as `iptables -m bpf` runs it. See the end of this file.
 *
 * The same source compiles with bpfcc and with clang and libbpf's headers: `ipttctl cflags` prints
 * the options. It may include the kernel's types (vmlinux.h, from bpftool) before this file.
 */
#ifndef _IPTTRACE_H
#define _IPTTRACE_H

#ifdef BCC_SEC /* from the header that bpfcc puts in front of every source */
#define IPTTRACE_BPFCC 1
#endif

#ifdef IPTTRACE_BPFCC
#include <uapi/linux/ptrace.h>
#include <linux/types.h>
#else
#ifndef __VMLINUX_H__
#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/ptrace.h>
#endif
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#endif

#include "ipttrace_netlink.h"

struct net;
struct net_device;
struct nf_hook_state;
struct nf_loginfo;
struct sk_buff;
struct sock;
struct xt_table;

#define IPTTRACE_INLINE static inline __attribute__((always_inline))

/*
 * IPTTRACE_PROGRAM marks a program: `IPTTRACE_PROGRAM int name(struct pt_regs *ctx)`. bpfcc makes a
 * program of every function that is not static; elsewhere the section tells its type.
 * IPTTRACE_PACKET_PROGRAM marks one of the slot `packet`: `int name(struct __sk_buff *skb)`.
 */
#ifdef IPTTRACE_BPFCC
#define IPTTRACE_PROGRAM
#define IPTTRACE_PACKET_PROGRAM
#else
#define IPTTRACE_PROGRAM SEC("kprobe")
#define IPTTRACE_PACKET_PROGRAM SEC("socket")
#endif

/* IPTTRACE_LICENSE("GPL"); once in each source. */
#ifdef IPTTRACE_BPFCC
#define IPTTRACE_LICENSE(license) struct ipttrace_license_is_gpl
#else
#define IPTTRACE_LICENSE(license) char LICENSE[] SEC("license") = license
#endif

/*
 * Constants that are set before load.
 *
 *	IPTTRACE_CONST(__u16, want_port);		at file scope
 *	if (port == IPTTRACE_GET(want_port))		anywhere
 *
 * A constant that nobody sets is 0. The verifier knows the value and removes branches that it rules
 * out.
 *
 * Under bpfcc, which has no read-only data, each use is a 64-bit immediate load of a marker: the
 * upper half is IPTTRACE_CONST_MARK, the lower the FNV-1a hash of the name, filled up with zeros to
 * 32 bytes. The loader replaces it. Elsewhere it is an ordinary `const volatile` variable, which
 * lies in .rodata.
 */
#define IPTTRACE_CONST_MARK 0x1b77c0deULL

/* clang-format off */ /* empty lines padded with spaces, calls in calls as stairs */
#ifdef IPTTRACE_BPFCC
/* One step of the hash takes a byte; past the name's end they are 0, so that no step is skipped. */
#define ipttrace_hash1(name, i, hash)					\
	(((hash) ^ (__u8)(name)[(i) < sizeof(name) ? (i) : sizeof(name) - 1]) * 16777619U)
#define ipttrace_hash4(name, i, hash)					\
	ipttrace_hash1(name, (i) + 3, ipttrace_hash1(name, (i) + 2,	\
	ipttrace_hash1(name, (i) + 1, ipttrace_hash1(name, i, hash))))
#define ipttrace_hash16(name, i, hash)					\
	ipttrace_hash4(name, (i) + 12, ipttrace_hash4(name, (i) + 8,	\
	ipttrace_hash4(name, (i) + 4, ipttrace_hash4(name, i, hash))))
#define ipttrace_hash32(name)						\
	ipttrace_hash16(name, 16, ipttrace_hash16(name, 0, 2166136261U))

#define ipttrace_const_value(name)					\
({									\
	__u64 ipttrace_value;						\
									\
	_Static_assert(sizeof(name) <= 33, "name of 32 bytes at most");	\
	asm("%0 = %1 ll" : "=r"(ipttrace_value) :			\
	    "i"(IPTTRACE_CONST_MARK << 32 | ipttrace_hash32(name)));	\
	ipttrace_value;							\
})

#define IPTTRACE_CONST(type, name)					\
	IPTTRACE_INLINE type ipttrace_const_##name(void)		\
	{								\
		return (type)ipttrace_const_value(#name);		\
	}								\
	struct ipttrace_const_##name##_semicolon
#else
#define IPTTRACE_CONST(type, name)					\
	const volatile type name = 0;					\
	IPTTRACE_INLINE type ipttrace_const_##name(void)		\
	{								\
		return name;						\
	}								\
	struct ipttrace_const_##name##_semicolon
#endif
/* clang-format on */

#define IPTTRACE_GET(name) ipttrace_const_##name()

/*
 * Fields of the kernel's own structs, without the kernel's headers.
 *
 *	IPTTRACE_FIELD(__u32, net_inum, net, ns.inum);	at file scope
 *	inum = net_inum(net);				anywhere
 *
 * declares a function that reads one field from kernel memory. It returns zeros where the address
 * is bad. It is not for bit fields and arrays. The running kernel's type information (BTF) gives
 * the offset at load: under bpfcc it is a constant like those above, elsewhere a relocation (CO-RE)
 * of a struct that the source or its vmlinux.h declares.
 */
#ifdef IPTTRACE_BPFCC
#define ipttrace_offset(structure, member) \
	ipttrace_const_value(#structure "." #member)
#else
#define ipttrace_offset(structure, member) \
	__builtin_preserve_field_info(((struct structure *)0)->member, 0)
#endif

/* clang-format off */ /* empty lines padded with spaces */
#define IPTTRACE_FIELD(type, name, structure, member)			\
	IPTTRACE_INLINE type name(const struct structure *pointer)	\
	{								\
		type value;						\
									\
		bpf_probe_read_kernel(&value, sizeof(value),		\
				      (const char *)pointer +		\
				      ipttrace_offset(structure, member)); \
		return value;						\
	}								\
	struct ipttrace_field_##name##_semicolon
/* clang-format on */

/* The sixth argument, which not every header has a name for. */
IPTTRACE_INLINE unsigned long ipttrace_sixth(struct pt_regs *ctx)
{
#ifdef PT_REGS_PARM6
	return PT_REGS_PARM6(ctx);
#elif defined(__TARGET_ARCH_arm64)
	return ((const __u64 *)ctx)[5];
#elif defined(__x86_64__) || defined(__TARGET_ARCH_x86)
	return ctx->r9;
#else
#error "where is the sixth argument on this architecture?"
#endif
}

/* The cookie of the link's program set, or 0. In every slot but packet. */
IPTTRACE_INLINE __u64 ipttrace_cookie(struct pt_regs *ctx)
{
	return bpf_get_attach_cookie(ctx);
}

/*
 * Tables and chains: entry, rule, exit
 *
 * entry and exit have the packet, the state of its hook, and the sender or the cost, at the same
 * place at tables and at chains: a program that reads no more runs at both. At chains the arguments
 * are ours, the same on every kernel; those that only chains have come after the tables' below.
 */

/*
 * entry: a packet comes to a table. A kprobe on ipt_do_table or ip6t_do_table of kernels >= 5.16.
 *
 * Returns 0 to pass the packet over, or bits of enum ipttrace_select.
 */

/* At a table: the table. */
IPTTRACE_INLINE struct xt_table *ipttrace_entry_table(struct pt_regs *ctx)
{
	return (struct xt_table *)PT_REGS_PARM1(ctx);
}

/* The packet; skb->data is at its IP header. */
IPTTRACE_INLINE struct sk_buff *ipttrace_entry_skb(struct pt_regs *ctx)
{
	return (struct sk_buff *)PT_REGS_PARM2(ctx);
}

/* The hook's state: hook number, family, network namespace, devices. */
IPTTRACE_INLINE const struct nf_hook_state *
ipttrace_entry_state(struct pt_regs *ctx)
{
	return (const struct nf_hook_state *)PT_REGS_PARM3(ctx);
}

/* The process (tgid) that sends the packet, or 0 where that is not certain to be this one. */
IPTTRACE_INLINE __u32 ipttrace_entry_tgid(struct pt_regs *ctx)
{
	return (__u32)PT_REGS_PARM4(ctx);
}

/*
 * rule: a selected packet matches a rule, or reaches the end of a user chain or a policy; or the
 * nat table is not consulted, since NAT knows the packet's connection: then the entry program is
 * asked as well. A kprobe on nf_log_trace.
 *
 * Returns 0 for no event, or bits of enum ipttrace_emit.
 */

IPTTRACE_INLINE struct net *ipttrace_rule_net(struct pt_regs *ctx)
{
	return (struct net *)PT_REGS_PARM1(ctx);
}

/* NFPROTO_IPV4 or NFPROTO_IPV6. */
IPTTRACE_INLINE __u8 ipttrace_rule_pf(struct pt_regs *ctx)
{
	return (__u8)PT_REGS_PARM2(ctx);
}

/* NF_INET_*. */
IPTTRACE_INLINE __u32 ipttrace_rule_hook(struct pt_regs *ctx)
{
	return (__u32)PT_REGS_PARM3(ctx);
}

IPTTRACE_INLINE const struct sk_buff *ipttrace_rule_skb(struct pt_regs *ctx)
{
	return (const struct sk_buff *)PT_REGS_PARM4(ctx);
}

/* The device it came in by, or NULL. */
IPTTRACE_INLINE const struct net_device *ipttrace_rule_in(struct pt_regs *ctx)
{
	return (const struct net_device *)PT_REGS_PARM5(ctx);
}

/* The device it goes out by, or NULL. */
IPTTRACE_INLINE const struct net_device *ipttrace_rule_out(struct pt_regs *ctx)
{
	return (const struct net_device *)ipttrace_sixth(ctx);
}

/* nf_log_trace's arguments from the ninth on lie on the stack; this reads the one at a slot. */
IPTTRACE_INLINE unsigned long ipttrace_rule_stack(struct pt_regs *ctx, int slot)
{
	unsigned long value = 0;

	bpf_probe_read_kernel(
		&value, sizeof(value),
		(const void *)(PT_REGS_SP(ctx) + slot * sizeof(value)));
	return value;
}

/*
 * x86-64 passes six arguments in registers, and the return address lies below the others; arm64
 * passes eight and has the return address in a register.
 */
#if defined(__aarch64__) || defined(__TARGET_ARCH_arm64)
#define IPTTRACE_RULE_TABLE_SLOT 0
#else
#define IPTTRACE_RULE_TABLE_SLOT 3
#endif

/* Name of the table, a string in the kernel: bpf_probe_read_kernel_str(). */
IPTTRACE_INLINE const char *ipttrace_rule_table_name(struct pt_regs *ctx)
{
	return (const char *)ipttrace_rule_stack(ctx, IPTTRACE_RULE_TABLE_SLOT);
}

/* Name of the chain, a string in the kernel. */
IPTTRACE_INLINE const char *ipttrace_rule_chain_name(struct pt_regs *ctx)
{
	return (const char *)ipttrace_rule_stack(ctx,
						 IPTTRACE_RULE_TABLE_SLOT + 1);
}

/* "rule", "return", "policy", or "known" if the table is not consulted; a string in the kernel. */
IPTTRACE_INLINE const char *ipttrace_rule_comment(struct pt_regs *ctx)
{
	return (const char *)ipttrace_rule_stack(ctx,
						 IPTTRACE_RULE_TABLE_SLOT + 2);
}

/* Number of the rule in its chain, from 1; 0 if the table is not consulted. */
IPTTRACE_INLINE __u32 ipttrace_rule_number(struct pt_regs *ctx)
{
	return (__u32)ipttrace_rule_stack(ctx, IPTTRACE_RULE_TABLE_SLOT + 3);
}

/*
 * exit: a selected packet leaves the table. A kretprobe on ipt_do_table or ip6t_do_table whose
 * argument registers hold what they held at entry, then the cost and the rules.
 *
 * Returns 0 for no event, or bits of enum ipttrace_emit.
 */

/* NF_VERDICT_MASK and NF_STOLEN */
#define IPTTRACE_VERDICT_MASK 0xffU
#define IPTTRACE_VERDICT_STOLEN 2U

/* NF_* in the low byte, errno or queue number above it, as the kernel keeps it. */
IPTTRACE_INLINE __u32 ipttrace_exit_verdict(struct pt_regs *ctx)
{
	return (__u32)PT_REGS_RC(ctx);
}

IPTTRACE_INLINE struct xt_table *ipttrace_exit_table(struct pt_regs *ctx)
{
	return (struct xt_table *)PT_REGS_PARM1(ctx);
}

/* The packet, or NULL where the table took it (NF_STOLEN): it may be gone. */
IPTTRACE_INLINE struct sk_buff *ipttrace_exit_skb(struct pt_regs *ctx)
{
	if ((ipttrace_exit_verdict(ctx) & IPTTRACE_VERDICT_MASK) ==
	    IPTTRACE_VERDICT_STOLEN)
		return 0;
	return (struct sk_buff *)PT_REGS_PARM2(ctx);
}

IPTTRACE_INLINE const struct nf_hook_state *
ipttrace_exit_state(struct pt_regs *ctx)
{
	return (const struct nf_hook_state *)PT_REGS_PARM3(ctx);
}

/* Time spent in the table, ns. */
IPTTRACE_INLINE __u64 ipttrace_exit_cost(struct pt_regs *ctx)
{
	return PT_REGS_PARM4(ctx);
}

/* Number of rules that matched. */
IPTTRACE_INLINE __u32 ipttrace_exit_rules(struct pt_regs *ctx)
{
	return (__u32)PT_REGS_PARM5(ctx);
}

/*
 * Chains
 *
 * entry: a packet comes to a base chain. ipttrace_entry_skb(), _state() and _tgid() as above. The
 * packet's data begins at its network header; at egress of a device at its link layer's.
 */

/* Name of the table, a string in the kernel. */
IPTTRACE_INLINE const char *ipttrace_chain_entry_table(struct pt_regs *ctx)
{
	return (const char *)PT_REGS_PARM1(ctx);
}

/* Name of the base chain, a string in the kernel. */
IPTTRACE_INLINE const char *ipttrace_chain_entry_chain(struct pt_regs *ctx)
{
	return (const char *)PT_REGS_PARM5(ctx);
}

/* Family of the table: NFPROTO_INET for one of both IP versions. */
IPTTRACE_INLINE __u8 ipttrace_chain_entry_family(struct pt_regs *ctx)
{
	return (__u8)ipttrace_sixth(ctx);
}

/*
 * rule: a selected packet matches a rule, or reaches the end of a chain; or a base chain of NAT is
 * not consulted, since NAT knows the packet's connection: then the entry program is asked as well.
 */

/* Name of the chain, a string in the kernel. */
IPTTRACE_INLINE const char *ipttrace_chain_rule_chain(struct pt_regs *ctx)
{
	return (const char *)PT_REGS_PARM1(ctx);
}

/* The packet, or NULL where the rule took it (NF_STOLEN): it may be gone. */
IPTTRACE_INLINE struct sk_buff *ipttrace_chain_rule_skb(struct pt_regs *ctx)
{
	return (struct sk_buff *)PT_REGS_PARM2(ctx);
}

IPTTRACE_INLINE const struct nf_hook_state *
ipttrace_chain_rule_state(struct pt_regs *ctx)
{
	return (const struct nf_hook_state *)PT_REGS_PARM3(ctx);
}

/* Number of the rule in its chain, from 1; 0 where there is no rule. */
IPTTRACE_INLINE __u32 ipttrace_chain_rule_number(struct pt_regs *ctx)
{
	return (__u32)PT_REGS_PARM4(ctx);
}

/* Handle of the rule in its table; 0 where there is no rule. */
IPTTRACE_INLINE __u64 ipttrace_chain_rule_handle(struct pt_regs *ctx)
{
	return PT_REGS_PARM5(ctx);
}

/*
 * The rule's decision: NF_* in the low byte and the queue number above it, or NFT_CONTINUE (-1),
 * NFT_JUMP, NFT_GOTO, NFT_RETURN. At the end of a chain NFT_RETURN, or the policy; NFT_CONTINUE if
 * the chain is not consulted.
 */
IPTTRACE_INLINE int ipttrace_chain_rule_verdict(struct pt_regs *ctx)
{
	return (int)ipttrace_sixth(ctx);
}

/* Non-zero if this is no rule: the base chain is not consulted. */
IPTTRACE_INLINE int ipttrace_chain_rule_known(struct pt_regs *ctx)
{
	return !ipttrace_chain_rule_number(ctx) &&
	       ipttrace_chain_rule_verdict(ctx) == -1;
}

/*
 * exit: a selected packet leaves the base chain. ipttrace_exit_verdict(), _skb(), _state(), _cost()
 * and _rules() as above. A packet that is to be dropped is still there.
 */

/* Name of the base chain, a string in the kernel. */
IPTTRACE_INLINE const char *ipttrace_chain_exit_chain(struct pt_regs *ctx)
{
	return (const char *)PT_REGS_PARM1(ctx);
}

/*
 * The spine: entry, function, exit. Its arguments are ours, the same on every kernel.
 *
 * entry: a packet comes to a hook, which may have no functions. ipttrace_entry_skb(), _state() and
 * _tgid() as above. The packet's data begins as at chains.
 */

/* NFPROTO_* of the hook. */
IPTTRACE_INLINE __u8 ipttrace_spine_entry_pf(struct pt_regs *ctx)
{
	return (__u8)PT_REGS_PARM1(ctx);
}

/* Number of the hook in its family. */
IPTTRACE_INLINE __u32 ipttrace_spine_entry_hook(struct pt_regs *ctx)
{
	return (__u32)PT_REGS_PARM5(ctx);
}

/* Number of functions that the packet will meet if each accepts it. */
IPTTRACE_INLINE __u32 ipttrace_spine_entry_functions(struct pt_regs *ctx)
{
	return (__u32)ipttrace_sixth(ctx);
}

/* function: a function of the hook has returned; the packet is as it left it. */

/* Address of the function. */
IPTTRACE_INLINE const void *ipttrace_function_address(struct pt_regs *ctx)
{
	return (const void *)PT_REGS_PARM1(ctx);
}

/* The packet, or NULL where the function took it (NF_STOLEN): it may be gone. */
IPTTRACE_INLINE struct sk_buff *ipttrace_function_skb(struct pt_regs *ctx)
{
	return (struct sk_buff *)PT_REGS_PARM2(ctx);
}

IPTTRACE_INLINE const struct nf_hook_state *
ipttrace_function_state(struct pt_regs *ctx)
{
	return (const struct nf_hook_state *)PT_REGS_PARM3(ctx);
}

/* Number of the function at its hook, from 1. */
IPTTRACE_INLINE __u32 ipttrace_function_number(struct pt_regs *ctx)
{
	return (__u32)PT_REGS_PARM4(ctx);
}

/* Number of functions that the packet has met here, this one included. */
IPTTRACE_INLINE __u32 ipttrace_function_count(struct pt_regs *ctx)
{
	return (__u32)PT_REGS_PARM5(ctx);
}

/*
 * NF_* in the low byte, errno or queue number above it. NF_STOLEN with an errno: the function
 * dropped the packet itself.
 */
IPTTRACE_INLINE __u32 ipttrace_function_verdict(struct pt_regs *ctx)
{
	return (__u32)ipttrace_sixth(ctx);
}

/*
 * exit: a selected packet leaves the hook. ipttrace_exit_verdict(), _state() and _cost() as above.
 * A packet that is to be dropped is still there.
 */

/* The packet, or NULL where it was stolen or queued: it may be gone. */
IPTTRACE_INLINE struct sk_buff *ipttrace_spine_exit_skb(struct pt_regs *ctx)
{
	return (struct sk_buff *)PT_REGS_PARM2(ctx);
}

/* Number of functions that the packet met. */
IPTTRACE_INLINE __u32 ipttrace_spine_exit_functions(struct pt_regs *ctx)
{
	return (__u32)PT_REGS_PARM5(ctx);
}

/*
 * Journeys: step. Its arguments are ours, the same on every kernel.
 *
 * step: something happened to a followed packet between hooks, or after its last one: see enum
 * ipttrace_kind from IPTTRACE_KIND_JOURNEY_COPY on. Links at other hooks that are on the journey
 * choose the packets. It runs with interrupts off, in whatever context the packet was in.
 *
 * Returns 0 for no event, or bits of enum ipttrace_emit.
 */

/* IPTTRACE_KIND_JOURNEY_*: what happened. */
IPTTRACE_INLINE __u32 ipttrace_step_kind(struct pt_regs *ctx)
{
	return (__u32)PT_REGS_PARM1(ctx);
}

/*
 * The packet, or NULL where it was lost sight of: it may be gone. Between hooks skb->data is at any
 * header. Of a packet that is freed, or dropped, the headers may be overwritten already.
 */
IPTTRACE_INLINE const struct sk_buff *ipttrace_step_skb(struct pt_regs *ctx)
{
	return (const struct sk_buff *)PT_REGS_PARM2(ctx);
}

/* Where it was sent or received: the device. */
IPTTRACE_INLINE const struct net_device *
ipttrace_step_device(struct pt_regs *ctx)
{
	return (const struct net_device *)PT_REGS_PARM3(ctx);
}

/* Where it came to a socket: the socket. */
IPTTRACE_INLINE const struct sock *ipttrace_step_socket(struct pt_regs *ctx)
{
	return (const struct sock *)PT_REGS_PARM3(ctx);
}

/* Where it is a copy: the packet that it was copied from. Where it is joined: the whole. */
IPTTRACE_INLINE const struct sk_buff *
ipttrace_step_original(struct pt_regs *ctx)
{
	return (const struct sk_buff *)PT_REGS_PARM3(ctx);
}

/* Where it was dropped: the address in the kernel's code. */
IPTTRACE_INLINE const void *ipttrace_step_place(struct pt_regs *ctx)
{
	return (const void *)PT_REGS_PARM3(ctx);
}

/* Number of the packet, which no other gets until the next boot. */
IPTTRACE_INLINE __u64 ipttrace_step_packet(struct pt_regs *ctx)
{
	return PT_REGS_PARM4(ctx);
}

/* Number of the packet that it was copied from, or is merged into; or 0. */
IPTTRACE_INLINE __u64 ipttrace_step_origin(struct pt_regs *ctx)
{
	return PT_REGS_PARM5(ctx);
}

/* Where it was dropped: the reason, of this kernel's enum skb_drop_reason. */
IPTTRACE_INLINE __u32 ipttrace_step_reason(struct pt_regs *ctx)
{
	return (__u32)ipttrace_sixth(ctx);
}

/* Where it came to a socket: uid of the socket's owner, in the initial user namespace. */
IPTTRACE_INLINE __u32 ipttrace_step_uid(struct pt_regs *ctx)
{
	return (__u32)ipttrace_sixth(ctx);
}

/*
 * packet: a packet is at a netfilter hook. Loads at constant offsets (bpf_skb_load_bytes(),
 * load_byte() of bpfcc) count from the network header; of ARP packets on their way out (arp/out)
 * from the link layer's. __sk_buff has the rest: len, protocol, mark, ifindex, ingress_ifindex,
 * vlan_tci, hash, and cb[], which is zeroed for the program and put back after it.
 *
 * Mode observe: returns 0 for no event, or bits of enum ipttrace_emit.
 * Mode filter: returns IPTTRACE_DROP, or anything else to let the packet go on.
 */
#define IPTTRACE_DROP 0
#define IPTTRACE_ACCEPT 1

/*
 * Payload: bytes that a program adds to its event. The set names a map of the program
 * (BPF_MAP_TYPE_PERCPU_ARRAY, values of 256 bytes at most). The value of element 0 when the
 * program asks for an event (rule, function, exit, step, packet) goes with that event. Elements
 * keep their value from run to run: write all of it each time.
 */

#endif /* _IPTTRACE_H */
