/* SPDX-License-Identifier: GPL-2.0 */
/* Generated from ipttproto/family.py by `make generate`; do not edit. */
#ifndef _IPTTRACE_NETLINK_H
#define _IPTTRACE_NETLINK_H

#ifndef __VMLINUX_H__ /* which has these types itself */
#include <linux/types.h>
#endif

#define IPTTRACE_FAMILY_NAME "ipttrace"
#define IPTTRACE_FAMILY_VERSION 1
#define IPTTRACE_PROTOCOL_MINOR 0
#define IPTTRACE_FEATURES 0xffU
#define IPTTRACE_FINGERPRINT 0x154b6340U
#define IPTTRACE_GROUP_EVENTS "events"
#define IPTTRACE_GROUP_LINKS "links"
#define IPTTRACE_GROUP_NAMESPACES "namespaces"

/* slots are numbered from 1 to below this */
#define IPTTRACE_SLOTS 7
/* links at one kind of hook */
#define IPTTRACE_MAX_LINKS 128
/* links at the hook journey */
#define IPTTRACE_MAX_JOURNEYS 32
/* packets that are followed at a time */
#define IPTTRACE_MAX_FOLLOWED 16384
/* ways that answers are expected on at a time, some three a connection */
#define IPTTRACE_MAX_ANSWERS 16384
/* links that one transaction swaps */
#define IPTTRACE_MAX_CHANGES 32
/* swaps answered at once whose old sets have not ended; the next is answered at their end */
#define IPTTRACE_MAX_RETIRING 64
/* longest time until a swap is rolled back, ms */
#define IPTTRACE_MAX_ROLLBACK 86400000
/* generations of a link that its history reaches back */
#define IPTTRACE_HISTORY_GENERATIONS 16
/* packets of which one is sampled */
#define IPTTRACE_MAX_SAMPLE 1000000000
/* packets or events a second that a limit is */
#define IPTTRACE_MAX_RATE 1000000000
/* thousandths of one CPU's time that a budget is */
#define IPTTRACE_MAX_CPU 1000000
/* bytes that a program adds to an event */
#define IPTTRACE_MAX_PAYLOAD 256
/* instructions of a classic-BPF filter (BPF_MAXINSNS) */
#define IPTTRACE_MAX_FILTER 4096
/* events in one message, which then fill 32 KiB of the kernel's memory */
#define IPTTRACE_BATCH_EVENTS 76
/* events that wait on one CPU */
#define IPTTRACE_RING_EVENTS 4096
/* bytes of a table's name, with its NUL (XT_TABLE_MAXNAMELEN) */
#define IPTTRACE_TABLE_NAME 32
/* bytes of a chain's name, with its NUL */
#define IPTTRACE_CHAIN_NAME 32
/* bytes of a name of nftables, without its NUL (NFT_NAME_MAXLEN) */
#define IPTTRACE_NFT_NAME 255
/* network namespaces of a verifier */
#define IPTTRACE_MAX_TRIALS 64
/* bytes of a program's name, with its NUL (BPF_OBJ_NAME_LEN) */
#define IPTTRACE_PROG_NAME 16
/* bytes of a program's tag (BPF_TAG_SIZE) */
#define IPTTRACE_PROG_TAG 8
/* bytes of a link's name, without its NUL */
#define IPTTRACE_LINK_NAME 63
/* labels of a link */
#define IPTTRACE_MAX_LABELS 8
/* bytes of a label's key, without its NUL */
#define IPTTRACE_LABEL_KEY 31
/* bytes of a label's value, without its NUL */
#define IPTTRACE_LABEL_VALUE 63
/* bytes of the reason given for a change, without its NUL */
#define IPTTRACE_REASON 127
/* guards of a swap */
#define IPTTRACE_MAX_GUARDS 8
/* shortest time over which a condition is measured, ms */
#define IPTTRACE_MIN_WINDOW 100
/* longest time over which a condition is measured, ms */
#define IPTTRACE_MAX_WINDOW 86400000

/* An ability of a module that not every module of the major version has. */
enum ipttrace_feature {
	/* names, labels and reasons of links; exclusive owners, force; rename, release */
	IPTTRACE_FEATURE_LINK_NAMES = 1,
	/* rollback on request; guards of swaps, and what became of a swap */
	IPTTRACE_FEATURE_GUARDS = 2,
	/* shadows of links, with conditions on which they are promoted */
	IPTTRACE_FEATURE_SHADOWS = 4,
	/* links are parked, and restored by the next module */
	IPTTRACE_FEATURE_UPGRADES = 8,
	/* when a swap is answered (swap-ack), and the end of the sets that it replaces */
	IPTTRACE_FEATURE_ENDS = 16,
	/* program sets that leave out events of whole packets: sample, rate, budgets */
	IPTTRACE_FEATURE_LIMITS = 32,
	/* links at the spine: every hook function that a packet meets */
	IPTTRACE_FEATURE_SPINE = 64,
	/* journeys: packets are followed from hook to hook, with copies and ends */
	IPTTRACE_FEATURE_JOURNEYS = 128,
};

/* A place where programs run. */
enum ipttrace_hook {
	/* iptables' tables: ipt_do_table and ip6t_do_table */
	IPTTRACE_HOOK_TABLE = 1,
	/* a netfilter hook of a network namespace */
	IPTTRACE_HOOK_NF = 2,
	/* nftables' chains: nft_do_chain */
	IPTTRACE_HOOK_CHAIN = 3,
	/* the functions that are registered at netfilter hooks: nf_hook_slow */
	IPTTRACE_HOOK_SPINE = 4,
	/* the steps of followed packets between hooks: copies, devices, sockets, ends */
	IPTTRACE_HOOK_JOURNEY = 5,
};

/* A program's role at a hook. */
enum ipttrace_slot {
	/* at entry of a table, base chain or hook; its return value selects the packet */
	IPTTRACE_SLOT_ENTRY = 1,
	/* at each rule that a selected packet matches; non-zero emits an event */
	IPTTRACE_SLOT_RULE = 2,
	/* when a selected packet leaves that again; non-zero emits an event */
	IPTTRACE_SLOT_EXIT = 3,
	/* nf: at each packet; observe: non-zero emits an event; filter: 0 drops the packet */
	IPTTRACE_SLOT_PACKET = 4,
	/*
	 * spine: after each function of a hook that a selected packet met; non-zero emits an
	 * event
	 */
	IPTTRACE_SLOT_FUNCTION = 5,
	/* journey: at each step of a followed packet; non-zero emits an event */
	IPTTRACE_SLOT_STEP = 6,
};

/* Bits that an entry program returns; any non-zero value selects the packet. */
enum ipttrace_select {
	/* follow the packet through this table or base chain: rule and exit programs run */
	IPTTRACE_SELECT_PACKET = 1,
};

/* Bits that a rule or an exit program returns; any non-zero value emits an event. */
enum ipttrace_emit {
	/* emit an event */
	IPTTRACE_EMIT_EVENT = 1,
};

/* Kinds of events. */
enum ipttrace_kind {
	/* a rule matched */
	IPTTRACE_KIND_RULE = 1,
	/* the packet reached the RETURN at the end of a user chain */
	IPTTRACE_KIND_RETURN = 2,
	/* the packet reached the policy of a built-in chain */
	IPTTRACE_KIND_POLICY = 3,
	/* the packet left the table with a verdict */
	IPTTRACE_KIND_EXIT = 4,
	/* nf: a packet passed the hook, or was dropped there: see the verdict */
	IPTTRACE_KIND_PACKET = 5,
	/* chain: a rule matched: see the verdict, and the target of a jump */
	IPTTRACE_KIND_CHAIN_RULE = 6,
	/* chain: the packet reached the end of a chain that is not a base chain */
	IPTTRACE_KIND_CHAIN_END = 7,
	/* chain: the packet reached the policy of the base chain */
	IPTTRACE_KIND_CHAIN_POLICY = 8,
	/* chain: the packet left the base chain with a verdict */
	IPTTRACE_KIND_CHAIN_EXIT = 9,
	/* the nat table was not consulted: NAT knows the packet's connection */
	IPTTRACE_KIND_KNOWN = 10,
	/* chain: a NAT chain was not consulted: NAT knows the packet's connection */
	IPTTRACE_KIND_CHAIN_KNOWN = 11,
	/* nf: the link's shadow decided otherwise than the link: see both verdicts */
	IPTTRACE_KIND_DISAGREE = 12,
	/* of no packet: the link's limits leave packets out; their numbers so far */
	IPTTRACE_KIND_LEFT_OUT = 13,
	/* spine: a function of the hook returned: see the verdict, and the packet as it left it */
	IPTTRACE_KIND_SPINE_FUNCTION = 14,
	/* spine: the packet left the hook with a verdict */
	IPTTRACE_KIND_SPINE_EXIT = 15,
	/* journey: the packet is a new copy, or a part, of another one: see rule_handle */
	IPTTRACE_KIND_JOURNEY_COPY = 16,
	/* journey: the packet was handed to a device, which sends it */
	IPTTRACE_KIND_JOURNEY_SENT = 17,
	/* journey: the packet came in by a device */
	IPTTRACE_KIND_JOURNEY_RECEIVED = 18,
	/* journey: the packet came to a socket, which takes it unless it is dropped next */
	IPTTRACE_KIND_JOURNEY_SOCKET = 19,
	/* journey: the packet was dropped: see verdict_data */
	IPTTRACE_KIND_JOURNEY_DROPPED = 20,
	/* journey: the packet was used up: sent, read or answered */
	IPTTRACE_KIND_JOURNEY_FREED = 21,
	/* journey: the packet came by nowhere for a long time, and is not followed any more */
	IPTTRACE_KIND_JOURNEY_LOST = 22,
	/* journey: GRO merges the packet into another one, unless it goes on: see rule_handle */
	IPTTRACE_KIND_JOURNEY_JOINED = 23,
	/* journey: a fragment waits for the others of the whole that rule_handle names */
	IPTTRACE_KIND_JOURNEY_WAITS = 24,
	/* journey: the packet is the whole that fragments have waited for: see rule_handle */
	IPTTRACE_KIND_JOURNEY_WHOLE = 25,
};

/* Bits of an event's ``flags``. */
enum ipttrace_event_flag {
	/* pid, pid_start, cgroup, uid and comm are the sender's: it happened in its context */
	IPTTRACE_EVENT_FLAG_PID = 1,
	/* dmac is valid */
	IPTTRACE_EVENT_FLAG_DMAC = 2,
	/* somebody else's TRACE follows the packet too */
	IPTTRACE_EVENT_FLAG_FOREIGN = 4,
	/* not the first fragment: there are no ports */
	IPTTRACE_EVENT_FLAG_FRAGMENT = 8,
	/* the packet ends before its transport header does */
	IPTTRACE_EVENT_FLAG_TRUNCATED = 16,
	/* the program added bytes of its own: a payload of the message has them */
	IPTTRACE_EVENT_FLAG_PAYLOAD = 32,
	/* rules is valid: the matching rules of this passage are counted */
	IPTTRACE_EVENT_FLAG_COUNTED = 64,
	/* rule, exit: the packet passes if nobody listens at the queue */
	IPTTRACE_EVENT_FLAG_QUEUE_BYPASS = 128,
	/* table, chain: the ruleset was changing; the rule may be of a later one */
	IPTTRACE_EVENT_FLAG_UNCERTAIN = 256,
	/* spine: priority is valid: the function was not being removed */
	IPTTRACE_EVENT_FLAG_PRIORITY = 512,
	/* journey: dropped, and the kernel gives no reason */
	IPTTRACE_EVENT_FLAG_UNSAID = 1024,
	/* journey: a SYN came to a socket that has as many connections to accept as it may */
	IPTTRACE_EVENT_FLAG_QUEUE_FULL = 2048,
};

/* State of a packet in connection tracking (enum ip_conntrack_info). */
enum ipttrace_conntrack {
	/* it has none: it has not come to connection tracking, or there is none */
	IPTTRACE_CONNTRACK_NONE = 0,
	/* it is not tracked, by order of a rule */
	IPTTRACE_CONNTRACK_UNTRACKED = 1,
	/* it opens a connection */
	IPTTRACE_CONNTRACK_NEW = 2,
	/* it is of a connection that has seen both directions, in the original one */
	IPTTRACE_CONNTRACK_ESTABLISHED = 3,
	/* it opens a connection, or is an error, that belongs to a known one */
	IPTTRACE_CONNTRACK_RELATED = 4,
	/* it is of a connection, in the reply direction */
	IPTTRACE_CONNTRACK_REPLY = 5,
	/* it is an error that belongs to a known one, in the reply direction */
	IPTTRACE_CONNTRACK_RELATED_REPLY = 6,
};

/* Why something was not seen; indexes the batch's ``lost``. */
enum ipttrace_loss {
	/* events: the CPU's ring was full */
	IPTTRACE_LOSS_RING = 0,
	/* events: no memory for the message that was to carry them */
	IPTTRACE_LOSS_MEMORY = 1,
	/* program runs: a program was already running on this CPU */
	IPTTRACE_LOSS_NESTED = 2,
};

/* Bits of a link's ``flags``. */
enum ipttrace_link_flag {
	/* the link outlives the socket that made it */
	IPTTRACE_LINK_FLAG_PERSISTENT = 1,
	/* nf, mode filter: each packet that the link drops is an event */
	IPTTRACE_LINK_FLAG_REPORT_DROPS = 2,
	/* table: exit events tell how many rules matched, without a rule program too */
	IPTTRACE_LINK_FLAG_COUNT_RULES = 4,
	/* nobody but its owner swaps, detaches, adopts or releases the link, unless by force */
	IPTTRACE_LINK_FLAG_EXCLUSIVE = 8,
};

/* Meaning of the return value of a program at a netfilter hook. */
enum ipttrace_nf_mode {
	/* non-zero emits an event; the packet goes on */
	IPTTRACE_NF_MODE_OBSERVE = 1,
	/* 0 drops the packet, anything else lets it go on */
	IPTTRACE_NF_MODE_FILTER = 2,
};

/* Why an nf link is at no hook any more. */
enum ipttrace_gone {
	/* its network namespace was deleted; also of a link at chains or the spine */
	IPTTRACE_GONE_NETNS = 1,
	/* its device was removed, or went to another network namespace */
	IPTTRACE_GONE_DEVICE = 2,
};

/*
 * Whether a walk of ours, through chains or along the spine, may stand in for the
 * kernel's.
 */
enum ipttrace_walk {
	/* not verified: such links are taken for the verifier's namespaces only */
	IPTTRACE_WALK_UNVERIFIED = 1,
	/* it did what the kernel's loop does: such links are taken */
	IPTTRACE_WALK_VERIFIED = 2,
	/* it differed from the kernel's loop: for the verifier's namespaces only, as before */
	IPTTRACE_WALK_DIFFERS = 3,
};

/*
 * Whether the kernel has nf_tables' structures where the module was compiled to find
 * them.
 */
enum ipttrace_layout {
	/* not known yet: nf_tables is not loaded */
	IPTTRACE_LAYOUT_UNCHECKED = 1,
	/* it has, by its own description of its types (BTF) */
	IPTTRACE_LAYOUT_SAME = 2,
	/* it has not: chain links are refused */
	IPTTRACE_LAYOUT_DIFFERS = 3,
	/* it does not describe them: chain links are refused but for the verifier's */
	IPTTRACE_LAYOUT_UNKNOWN = 4,
};

/* How a generation of a link came about. */
enum ipttrace_action {
	/* the link was made */
	IPTTRACE_ACTION_ATTACH = 1,
	/* somebody replaced the program set, alone or with those of other links */
	IPTTRACE_ACTION_SWAP = 2,
	/* a swap was not confirmed in time: the module put the set before it back */
	IPTTRACE_ACTION_ROLLBACK = 3,
	/* somebody had a swap that waited rolled back */
	IPTTRACE_ACTION_ROLLBACK_REQUEST = 4,
	/* a guard of a swap that waited did not hold: the module rolled it back */
	IPTTRACE_ACTION_ROLLBACK_GUARD = 5,
	/* somebody had the link's shadow take the place of the program set */
	IPTTRACE_ACTION_PROMOTE = 6,
	/* what the promotion of the link's shadow waited for was met: the module made it */
	IPTTRACE_ACTION_PROMOTE_IF = 7,
};

/* Why a link went. */
enum ipttrace_detach_reason {
	/* somebody asked for it */
	IPTTRACE_DETACH_REASON_REQUEST = 1,
	/* the socket that owned it was closed */
	IPTTRACE_DETACH_REASON_OWNER = 2,
	/* it was parked: the next module restores it */
	IPTTRACE_DETACH_REASON_UPGRADE = 3,
};

/* A counter of a link that a condition is about. */
enum ipttrace_counter {
	/* packets that reached the hook */
	IPTTRACE_COUNTER_PACKETS = 1,
	/* packets that were selected */
	IPTTRACE_COUNTER_SELECTED = 2,
	/* events emitted, lost ones included */
	IPTTRACE_COUNTER_EVENTS = 3,
	/* program runs left out */
	IPTTRACE_COUNTER_NESTED = 4,
	/* events lost because the CPU's ring was full */
	IPTTRACE_COUNTER_LOST = 5,
	/* packets that the link dropped */
	IPTTRACE_COUNTER_DROPS = 6,
	/* program runs in all slots */
	IPTTRACE_COUNTER_RUNS = 7,
	/* packets for which the link's shadow had the link's verdict */
	IPTTRACE_COUNTER_AGREEMENTS = 8,
	/* packets for which it had another verdict */
	IPTTRACE_COUNTER_DISAGREEMENTS = 9,
};

/* How a condition compares a counter with its threshold. */
enum ipttrace_comparison {
	/* < */
	IPTTRACE_COMPARISON_BELOW = 1,
	/* <= */
	IPTTRACE_COMPARISON_AT_MOST = 2,
	/* > */
	IPTTRACE_COMPARISON_ABOVE = 3,
	/* >= */
	IPTTRACE_COMPARISON_AT_LEAST = 4,
};

/*
 * When a swap is answered, if not once no packet is handled by the sets that it
 * replaces. A swap that can be rolled back is always answered then.
 */
enum ipttrace_swap_ack {
	/* once the new sets are in force; link-ended notifies of the end of the others */
	IPTTRACE_SWAP_ACK_PUBLISHED = 1,
	/* as without, but every CPU is interrupted, so that it takes less time */
	IPTTRACE_SWAP_ACK_EXPEDITED = 2,
};

/* Outcome of the last swap of a link, if it was not for good from the beginning. */
enum ipttrace_swap_outcome {
	/* it waits to be confirmed or rolled back */
	IPTTRACE_SWAP_OUTCOME_WAITING = 1,
	/* it was confirmed */
	IPTTRACE_SWAP_OUTCOME_CONFIRMED = 2,
	/* it was rolled back: nobody confirmed it in time */
	IPTTRACE_SWAP_OUTCOME_ROLLBACK = 3,
	/* it was rolled back: somebody asked for that */
	IPTTRACE_SWAP_OUTCOME_ROLLBACK_REQUEST = 4,
	/* it was rolled back: a guard did not hold */
	IPTTRACE_SWAP_OUTCOME_ROLLBACK_GUARD = 5,
};

/* Messages of the family, requests and notifications. */
enum ipttrace_command {
	/* make a link: put a program set to a hook */
	IPTTRACE_CMD_ATTACH = 1,
	/* replace a link's program set in one step; its generation grows by one */
	IPTTRACE_CMD_SWAP = 2,
	/* remove a link */
	IPTTRACE_CMD_DETACH = 3,
	/* one link, or all of them */
	IPTTRACE_CMD_GET = 4,
	/* the module: versions, features, event stream of each CPU */
	IPTTRACE_CMD_STATS = 5,
	/* notification: a link was made */
	IPTTRACE_CMD_LINK_ATTACHED = 6,
	/* notification: a link has a new program set */
	IPTTRACE_CMD_LINK_SWAPPED = 7,
	/* notification: a link went */
	IPTTRACE_CMD_LINK_DETACHED = 8,
	/* notification: armed, gone, owner, name, rollback-in, outcome or shadow changed */
	IPTTRACE_CMD_LINK_CHANGED = 9,
	/* a batch of events of one CPU */
	IPTTRACE_CMD_EVENTS = 10,
	/* swap several links in one step, all or none; a reply for each change, in order */
	IPTTRACE_CMD_TRANSACT = 11,
	/* keep a swap that waits, for all its links: the roll-back is off */
	IPTTRACE_CMD_CONFIRM = 12,
	/* how the last generations of a link came about */
	IPTTRACE_CMD_HISTORY = 13,
	/* own a persistent link from now on: it goes with the sender's socket */
	IPTTRACE_CMD_ADOPT = 14,
	/* a network namespace is going: nothing of it comes any more */
	IPTTRACE_CMD_NAMESPACE_GONE = 15,
	/*
	 * chain and spine links: take them for a namespace of the sender, who verifies the
	 * walks, until its socket is closed (netns-fd); or end the verification (walk,
	 * spine-walk)
	 */
	IPTTRACE_CMD_VERIFY = 16,
	/* the generation of the rules of a legacy table in a network namespace */
	IPTTRACE_CMD_RULESET = 17,
	/* give a link another name, or its first one; its generation stays */
	IPTTRACE_CMD_RENAME = 18,
	/* make a link persistent, which then belongs to nobody, and is not exclusive */
	IPTTRACE_CMD_RELEASE = 19,
	/* undo a swap that waits, at once, for all its links; a reply for each of them */
	IPTTRACE_CMD_ROLLBACK = 20,
	/*
	 * give a link a shadow: a program set that meets the same packets, and whose verdicts
	 * are compared with the link's, and not used
	 */
	IPTTRACE_CMD_SHADOW = 21,
	/* swap a link's shadow in, for a generation of its own */
	IPTTRACE_CMD_PROMOTE = 22,
	/* take a link's shadow away */
	IPTTRACE_CMD_DROP_SHADOW = 23,
	/*
	 * take all links from their hooks, in one step, to restore them later, here or in the
	 * next module: from now on links are being restored. A dump has their last counters
	 */
	IPTTRACE_CMD_PARK = 24,
	/* the links are restored: from now on others may be made */
	IPTTRACE_CMD_RESTORED = 25,
	/* notification: no packet is handled by a replaced program set any more */
	IPTTRACE_CMD_LINK_ENDED = 26,
};

/* Attributes of every message of the family. */
enum ipttrace_a {
	/* u32: id of the link */
	IPTTRACE_A_LINK = 1,
	/* u32: hook that the link is attached to */
	IPTTRACE_A_HOOK = 2,
	/*
	 * u32: protocol family (NFPROTO_*). Tables: 2 (IPv4), 10 (IPv6), or 0 for both. nf:
	 * these two, 1 (inet: both), 3 (ARP), 5 (netdev), 7 (bridge). Chain: the table's, one of
	 * these, or 0 for all. Spine: the hook's, likewise; 1 has those of IPv4 and IPv6
	 */
	IPTTRACE_A_FAMILY = 3,
	/* u32: bits of enum link-flag */
	IPTTRACE_A_FLAGS = 4,
	/* nest of program-set: the program set */
	IPTTRACE_A_PROGRAMS = 5,
	/* u32: generation of the program set, from 1 */
	IPTTRACE_A_GENERATION = 6,
	/* u32: swap, detach, confirm, rollback: only if the link has this generation */
	IPTTRACE_A_EXPECT_GENERATION = 7,
	/*
	 * nest of expected-program: swap, detach: only if the program in slot has this id; 0 for
	 * an empty slot
	 */
	IPTTRACE_A_EXPECT_PROGRAM = 8,
	/* u32: netlink port of the socket that owns the link; 0: nobody */
	IPTTRACE_A_OWNER_PORTID = 9,
	/* u32: process that made the link, or adopted it */
	IPTTRACE_A_OWNER_PID = 10,
	/* string: command of that process */
	IPTTRACE_A_OWNER_COMM = 11,
	/*
	 * u32: bits: 1, IPv4 tables are watched; 2, IPv6 tables are; 4, the netfilter hook is
	 * there; 8, nftables' chains are watched; 16, the spine is; 32, journeys are. The bit of
	 * tables or chains is missing while the module that holds their code is not loaded, a
	 * hook's when the link is gone from it
	 */
	IPTTRACE_A_ARMED = 12,
	/* nest of link-stats: counters of the link */
	IPTTRACE_A_STATS = 13,
	/* u32: why the link went */
	IPTTRACE_A_REASON = 14,
	/* binary: header of the events in this message */
	IPTTRACE_A_BATCH = 15,
	/* binary: an event */
	IPTTRACE_A_EVENT = 16,
	/* nest of cpu-stats: event stream of a CPU */
	IPTTRACE_A_CPU = 17,
	/* u32: checksum of the protocol's definition (CRC-32) */
	IPTTRACE_A_FINGERPRINT = 18,
	/* string: version of the module */
	IPTTRACE_A_MODULE_VERSION = 19,
	/*
	 * u32: nf, spine: number of the hook in its family (NF_INET_*, NF_BR_*, NF_ARP_*...).
	 * Spine: without it, all of the family
	 */
	IPTTRACE_A_HOOKNUM = 20,
	/* s32: nf: place among the others at the hook, lowest first */
	IPTTRACE_A_PRIORITY = 21,
	/*
	 * u32: request: file descriptor of the network namespace. nf: without it, the initial
	 * one; chain, spine: without it, all
	 */
	IPTTRACE_A_NETNS_FD = 22,
	/* u32: inode number of the network namespace */
	IPTTRACE_A_NETNS = 23,
	/* u32: nf, ingress: the device */
	IPTTRACE_A_IFINDEX = 24,
	/* string: nf, ingress: name of the device */
	IPTTRACE_A_IFNAME = 25,
	/* u32: nf: what the program's return value means; observe if none is given */
	IPTTRACE_A_MODE = 26,
	/* u32: nf: why the link is at no hook any more */
	IPTTRACE_A_GONE = 27,
	/* u32: swap, transact: swap back after this time unless confirmed, ms */
	IPTTRACE_A_ROLLBACK_AFTER = 28,
	/* u32: time until the last swap is rolled back unless confirmed, ms */
	IPTTRACE_A_ROLLBACK_IN = 29,
	/* nest of change: transact: a swap of one link */
	IPTTRACE_A_CHANGE = 30,
	/* nest of history: a generation of the link, oldest first */
	IPTTRACE_A_HISTORY = 31,
	/* nest of payload: events: what a program added to one; behind all events */
	IPTTRACE_A_PAYLOAD = 32,
	/*
	 * u64: cookie of the network namespace (SO_NETNS_COOKIE): no other has it until the next
	 * boot
	 */
	IPTTRACE_A_NETNS_COOKIE = 33,
	/* string: name of the table. Chain: without it, all tables */
	IPTTRACE_A_TABLE = 34,
	/* string: chain: name of the base chain in table; without it, all base chains */
	IPTTRACE_A_CHAIN = 35,
	/* u32: whether chain links are taken */
	IPTTRACE_A_WALK = 36,
	/*
	 * u32: 1: the sources of this kernel's series were compared with the walk; verify,
	 * request: 0: trust the verifier although they were not, or the layouts are unknown
	 */
	IPTTRACE_A_WALK_COMPARED = 37,
	/* u32: whether the structures that the walk uses lie where the module finds them */
	IPTTRACE_A_WALK_LAYOUT = 38,
	/* string: which structure or member does not, or why that is unknown */
	IPTTRACE_A_WALK_REFUSAL = 39,
	/*
	 * u64: number of the last change of any link, which grows with each: in a notification
	 * that of its change, in a dump the one up to which changes are in it
	 */
	IPTTRACE_A_LINKS_SEQUENCE = 40,
	/*
	 * u32: generation of a legacy table's rules: another one for each time that they were
	 * replaced, never used again while the module is loaded
	 */
	IPTTRACE_A_RULESET = 41,
	/* u32: 1: the rules are being replaced, and may be of this generation or of the next */
	IPTTRACE_A_REPLACING = 42,
	/*
	 * string: name of the link, if it has one: no other link has it. Begins with a letter or
	 * '_'; letters, digits, '_', '.' and '-' follow. Attach: the name to give; other
	 * requests: the link, instead of its id
	 */
	IPTTRACE_A_NAME = 43,
	/*
	 * nest of labels: all labels of the link. Swap: those from now on; without, it keeps the
	 * ones that it has
	 */
	IPTTRACE_A_LABELS = 44,
	/*
	 * string: the reason given for the change that made the generation; in a notification
	 * that a link went, the one given for that
	 */
	IPTTRACE_A_REASON_TEXT = 45,
	/*
	 * u64: number of the change that made the generation: see history. Confirm, rollback:
	 * the swap, instead of one of its links
	 */
	IPTTRACE_A_TRANSACTION = 46,
	/* string: rename: the name that the link has from now on */
	IPTTRACE_A_NEW_NAME = 47,
	/*
	 * u32: 1: make the change although somebody else owns the link exclusively, or, to adopt
	 * it, at all; the owner is told
	 */
	IPTTRACE_A_FORCE = 48,
	/* u32: notification: the process that made this change by force, against the owner */
	IPTTRACE_A_FORCED_PID = 49,
	/* string: command of that process */
	IPTTRACE_A_FORCED_COMM = 50,
	/*
	 * nest of condition: swap, transact: a condition that every link has to meet until the
	 * swap is confirmed; otherwise it is rolled back. Link: one of a swap that waits
	 */
	IPTTRACE_A_GUARD = 51,
	/* u32: what became of the last swap */
	IPTTRACE_A_OUTCOME = 52,
	/* nest of violation: the guard that did not hold, if the swap ended so */
	IPTTRACE_A_VIOLATION = 53,
	/* u32: notification of a roll-back that was asked for: the process that asked */
	IPTTRACE_A_REQUESTER_PID = 54,
	/* string: command of that process */
	IPTTRACE_A_REQUESTER_COMM = 55,
	/* nest of shadow: the link's shadow, if it has one */
	IPTTRACE_A_SHADOW = 56,
	/* u64: promote, drop-shadow: only if the link's shadow has this number */
	IPTTRACE_A_EXPECT_SHADOW = 57,
	/*
	 * nest of condition: shadow: promote it when this condition is met, and all others that
	 * are given; counters of shadows only
	 */
	IPTTRACE_A_PROMOTE_IF = 58,
	/* nest of restore: attach: the link is one of before, which is restored */
	IPTTRACE_A_RESTORE = 59,
	/* u32: 1: links are being restored; meanwhile no other is persistent or gets a name */
	IPTTRACE_A_RESTORING = 60,
	/* u32: the highest id that a link has had */
	IPTTRACE_A_LAST_LINK = 61,
	/*
	 * u32: major version of the protocol: client and module of the same one understand each
	 * other
	 */
	IPTTRACE_A_PROTOCOL_MAJOR = 62,
	/* u32: minor version of the protocol, which grows with its features */
	IPTTRACE_A_PROTOCOL_MINOR = 63,
	/* u32: features of the module, bits of enum feature */
	IPTTRACE_A_FEATURES = 64,
	/* u32: swap, transact: when it is answered */
	IPTTRACE_A_SWAP_ACK = 65,
	/*
	 * u32: the last generation whose program set handles no packet any more: the one before
	 * the link's, but while sets end that were replaced
	 */
	IPTTRACE_A_ENDED = 66,
	/* u32: whether links at the spine are taken */
	IPTTRACE_A_SPINE_WALK = 67,
	/*
	 * u32: tables, chain, spine: id of the link at the hook journey that this one is on:
	 * packets that either of them has are followed by both
	 */
	IPTTRACE_A_JOURNEY = 68,
	/* u64: journey: packets that any has followed so far */
	IPTTRACE_A_JOURNEY_FOLLOWED = 69,
	/* u64: journey: times that a packet could not be followed so far, for lack of room */
	IPTTRACE_A_JOURNEY_UNFOLLOWED = 70,
	/* u64: journey: packets that were lost sight of so far, see enum kind */
	IPTTRACE_A_JOURNEY_LOST = 71,
	/*
	 * u32: journey: 1 (also without it): packets that links on it select are followed; 2:
	 * answers too, the packets of the other direction of their connections
	 */
	IPTTRACE_A_JOURNEY_WAYS = 72,
	/*
	 * u64: journey: ways of connections so far that answers were not expected on any more,
	 * for lack of room
	 */
	IPTTRACE_A_JOURNEY_DISPLACED = 73,
	IPTTRACE_A_MAX = 73
};

/*
 * Limits of the events of a program set: all of a packet are left out, or none. Programs
 * run as without them, but for rule and exit programs at packets that are left out.
 */
enum ipttrace_a_limits {
	/* u32: one packet of so many is reported, at random */
	IPTTRACE_A_LIMITS_SAMPLE = 1,
	/* u32: packets reported in a second at most, with bursts of a tenth of a second */
	IPTTRACE_A_LIMITS_RATE = 2,
	/*
	 * u32: governor: once there have been more events a second, packets are left out until
	 * the average is below; with bursts of a second
	 */
	IPTTRACE_A_LIMITS_BUDGET_EVENTS = 3,
	/*
	 * u32: governor: likewise, the time that rule, exit and packet events take, their
	 * programs included but for those that decide over packets, in thousandths of one CPU
	 */
	IPTTRACE_A_LIMITS_BUDGET_CPU = 4,
	IPTTRACE_A_LIMITS_MAX = 4
};

/* The programs of a link with their filter, cookie and limits: replaced as one. */
enum ipttrace_a_program_set {
	/* nest of program: a program, once for each slot in use */
	IPTTRACE_A_PROGRAM_SET_PROGRAM = 1,
	/*
	 * binary: classic-BPF filter (struct sock_filter[]) that runs on the packet, from its IP
	 * header on, before the entry program; a packet for which it returns 0 is passed over.
	 * Returned only when a single link is requested
	 */
	IPTTRACE_A_PROGRAM_SET_FILTER = 2,
	/* u64: what bpf_get_attach_cookie returns to the programs */
	IPTTRACE_A_PROGRAM_SET_COOKIE = 3,
	/* u32: instructions of the filter */
	IPTTRACE_A_PROGRAM_SET_FILTER_LENGTH = 4,
	/*
	 * u32: request: file descriptor of a per-CPU array that a program of the set uses. The
	 * bytes that the program leaves in its first element are added to the event that it asks
	 * for
	 */
	IPTTRACE_A_PROGRAM_SET_PAYLOAD_FD = 5,
	/* u32: id of the payload's map */
	IPTTRACE_A_PROGRAM_SET_PAYLOAD_MAP = 6,
	/* u32: bytes of the payload */
	IPTTRACE_A_PROGRAM_SET_PAYLOAD_SIZE = 7,
	/* nest of limits: packets whose events are left out */
	IPTTRACE_A_PROGRAM_SET_LIMITS = 8,
	IPTTRACE_A_PROGRAM_SET_MAX = 8
};

/* A program in a slot. */
enum ipttrace_a_program {
	/* u32: role of the program */
	IPTTRACE_A_PROGRAM_SLOT = 1,
	/* u32: request: file descriptor of the program */
	IPTTRACE_A_PROGRAM_FD = 2,
	/* u32: id of the program in the kernel */
	IPTTRACE_A_PROGRAM_ID = 3,
	/* binary: tag of the program */
	IPTTRACE_A_PROGRAM_TAG = 4,
	/* string: name of the program */
	IPTTRACE_A_PROGRAM_NAME = 5,
	IPTTRACE_A_PROGRAM_MAX = 5
};

/* The program that a slot must hold for a request to be carried out. */
enum ipttrace_a_expected_program {
	/* u32: role of the program */
	IPTTRACE_A_EXPECTED_PROGRAM_SLOT = 1,
	/* u32: id of the program in the kernel; 0 for an empty slot */
	IPTTRACE_A_EXPECTED_PROGRAM_ID = 3,
	IPTTRACE_A_EXPECTED_PROGRAM_MAX = 3
};

/* Counters of a link, summed over the CPUs and the generations. */
enum ipttrace_a_link_stats {
	/* u64: packets that reached the hook */
	IPTTRACE_A_LINK_STATS_PACKETS = 1,
	/*
	 * u64: packets that the filter and the entry program selected; nf: that the filter let
	 * through
	 */
	IPTTRACE_A_LINK_STATS_SELECTED = 2,
	/* u64: events emitted, lost ones included */
	IPTTRACE_A_LINK_STATS_EVENTS = 3,
	/* u64: program runs left out: one was already running on the CPU */
	IPTTRACE_A_LINK_STATS_NESTED = 4,
	/* u64: events lost because the CPU's ring was full */
	IPTTRACE_A_LINK_STATS_LOST = 5,
	/* u64: packets that the link dropped (nf, mode filter) */
	IPTTRACE_A_LINK_STATS_DROPS = 6,
	/* nest of slot-stats: programs of a slot in use */
	IPTTRACE_A_LINK_STATS_SLOT = 7,
	/*
	 * u64: packets for which the link's last shadow had the link's verdict. The counters of
	 * a shadow start at 0 with each, and stay when it goes
	 */
	IPTTRACE_A_LINK_STATS_AGREED = 8,
	/* u64: packets for which it had another verdict */
	IPTTRACE_A_LINK_STATS_DISAGREED = 9,
	/* u64: runs of the shadow's program */
	IPTTRACE_A_LINK_STATS_SHADOW_RUNS = 10,
	/* u64: time that they took, ns; measured as in slot-stats */
	IPTTRACE_A_LINK_STATS_SHADOW_RUN_TIME = 11,
	/* u64: packets whose events limits left out, because they were not of the sample */
	IPTTRACE_A_LINK_STATS_LEFT_OUT_SAMPLE = 12,
	/* u64: likewise, because of the rate */
	IPTTRACE_A_LINK_STATS_LEFT_OUT_RATE = 13,
	/* u64: likewise, because of a budget */
	IPTTRACE_A_LINK_STATS_LEFT_OUT_GOVERNOR = 14,
	IPTTRACE_A_LINK_STATS_MAX = 14
};

/* Counters of the programs in a slot, summed over the CPUs and the generations. */
enum ipttrace_a_slot_stats {
	/* u32: the slot */
	IPTTRACE_A_SLOT_STATS_SLOT = 1,
	/* u64: program runs */
	IPTTRACE_A_SLOT_STATS_RUNS = 2,
	/*
	 * u64: time that they took, ns; measured only while the kernel's BPF statistics are on
	 * (sysctl kernel.bpf_stats_enabled, BPF_ENABLE_STATS)
	 */
	IPTTRACE_A_SLOT_STATS_RUN_TIME = 3,
	IPTTRACE_A_SLOT_STATS_MAX = 3
};

/* The event stream of one CPU. */
enum ipttrace_a_cpu_stats {
	/* u32: number of the CPU */
	IPTTRACE_A_CPU_STATS_CPU = 1,
	/* u64: number that the CPU's next event will have */
	IPTTRACE_A_CPU_STATS_SEQUENCE = 2,
	/* u64: events: the CPU's ring was full */
	IPTTRACE_A_CPU_STATS_LOST_RING = 3,
	/* u64: events: no memory for the message that was to carry them */
	IPTTRACE_A_CPU_STATS_LOST_MEMORY = 4,
	/* u64: program runs: a program was already running on this CPU */
	IPTTRACE_A_CPU_STATS_LOST_NESTED = 5,
	IPTTRACE_A_CPU_STATS_MAX = 5
};

/* Something that somebody notes about a link. */
enum ipttrace_a_label {
	/* string: its key, once for each link; spelled as names of links are */
	IPTTRACE_A_LABEL_KEY = 1,
	/* string: its value, any text; may be empty */
	IPTTRACE_A_LABEL_VALUE = 2,
	IPTTRACE_A_LABEL_MAX = 2
};

/* All labels of a link. */
enum ipttrace_a_labels {
	/* nest of label: a label */
	IPTTRACE_A_LABELS_LABEL = 1,
	IPTTRACE_A_LABELS_MAX = 1
};

/* A swap of one link in a transaction. */
enum ipttrace_a_change {
	/* u32: id of the link */
	IPTTRACE_A_CHANGE_LINK = 1,
	/* nest of program-set: the program set */
	IPTTRACE_A_CHANGE_PROGRAMS = 2,
	/* u32: only if the link has this generation */
	IPTTRACE_A_CHANGE_EXPECT_GENERATION = 3,
	/* nest of expected-program: only if the program in slot has this id; 0 for an empty slot */
	IPTTRACE_A_CHANGE_EXPECT_PROGRAM = 4,
	/* string: name of the link, instead of its id */
	IPTTRACE_A_CHANGE_NAME = 5,
	/* nest of labels: all its labels from now on; without, it keeps them */
	IPTTRACE_A_CHANGE_LABELS = 6,
	IPTTRACE_A_CHANGE_MAX = 6
};

/*
 * Condition on a counter of a link, counted from the swap on, while the packets are
 * enough.
 */
enum ipttrace_a_condition {
	/* u32: the counter */
	IPTTRACE_A_CONDITION_COUNTER = 1,
	/* u32: how it compares with threshold */
	IPTTRACE_A_CONDITION_COMPARISON = 2,
	/* u32: the number that it is compared with */
	IPTTRACE_A_CONDITION_THRESHOLD = 3,
	/* u32: threshold is a number in this time, ms */
	IPTTRACE_A_CONDITION_PER_TIME = 4,
	/*
	 * u32: threshold is a number in this many packets that reached the hook, or, of a
	 * shadow, that were compared; without this and per-time, it is a number in the window
	 */
	IPTTRACE_A_CONDITION_PER_PACKETS = 5,
	/*
	 * u32: time over which is measured, up to now, ms; without it, per-time, or else all
	 * time since the swap
	 */
	IPTTRACE_A_CONDITION_WINDOW = 6,
	/*
	 * u32: least number of packets in the window: with fewer, the condition is neither met
	 * nor violated; without it, per-packets, or else 1
	 */
	IPTTRACE_A_CONDITION_MINIMUM = 7,
	IPTTRACE_A_CONDITION_MAX = 7
};

/* How a guard did not hold. */
enum ipttrace_a_violation {
	/* nest of condition: the guard */
	IPTTRACE_A_VIOLATION_CONDITION = 1,
	/* u32: the link whose counter it was */
	IPTTRACE_A_VIOLATION_LINK = 2,
	/* u64: what the counter grew by in the window */
	IPTTRACE_A_VIOLATION_COUNT = 3,
	/* u64: packets that reached the hook in the window */
	IPTTRACE_A_VIOLATION_PACKETS = 4,
	/* u64: the window as it was measured, ms */
	IPTTRACE_A_VIOLATION_TIME = 5,
	IPTTRACE_A_VIOLATION_MAX = 5
};

/* A program set whose verdicts are compared with those of the link, and not used. */
enum ipttrace_a_shadow {
	/*
	 * u64: number of the change that gave it to the link (links-sequence): no other shadow
	 * has it
	 */
	IPTTRACE_A_SHADOW_NUMBER = 1,
	/* nest of program-set: the program set */
	IPTTRACE_A_SHADOW_PROGRAMS = 2,
	/* nest of condition: a condition on which the module promotes it, when all are met */
	IPTTRACE_A_SHADOW_PROMOTE_IF = 3,
	IPTTRACE_A_SHADOW_MAX = 3
};

/* How a generation of a link came about. */
enum ipttrace_a_history {
	/* u32: the generation */
	IPTTRACE_A_HISTORY_GENERATION = 1,
	/* u32: how it came about */
	IPTTRACE_A_HISTORY_ACTION = 2,
	/* u64: when: CLOCK_REALTIME, ns */
	IPTTRACE_A_HISTORY_TIME = 3,
	/* u32: process that asked for it; 0 if the module did it by itself */
	IPTTRACE_A_HISTORY_PID = 4,
	/* u32: user of that process, in the initial user namespace */
	IPTTRACE_A_HISTORY_UID = 5,
	/* string: command of that process; empty if there is none */
	IPTTRACE_A_HISTORY_COMM = 6,
	/* nest of program: a program of the set */
	IPTTRACE_A_HISTORY_PROGRAM = 7,
	/*
	 * u64: number of the change (links-sequence): links that were swapped together have the
	 * same. A roll-back has that of the swap that it undoes
	 */
	IPTTRACE_A_HISTORY_TRANSACTION = 8,
	/* string: the reason that was given, if one was */
	IPTTRACE_A_HISTORY_REASON = 9,
	/* nest of violation: the guard that did not hold, if that was the cause */
	IPTTRACE_A_HISTORY_VIOLATION = 10,
	IPTTRACE_A_HISTORY_MAX = 10
};

/* Bytes that a program added to an event. */
enum ipttrace_a_payload {
	/* u32: index of the event in this message, from 0 */
	IPTTRACE_A_PAYLOAD_EVENT = 1,
	/* binary: the bytes */
	IPTTRACE_A_PAYLOAD_DATA = 2,
	IPTTRACE_A_PAYLOAD_MAX = 2
};

/* A program of a generation that is restored; numbered as in program. */
enum ipttrace_a_past_program {
	/* u32: role of the program */
	IPTTRACE_A_PAST_PROGRAM_SLOT = 1,
	/* u32: id that the program had in the kernel */
	IPTTRACE_A_PAST_PROGRAM_ID = 3,
	/* binary: tag of the program */
	IPTTRACE_A_PAST_PROGRAM_TAG = 4,
	/* string: name of the program */
	IPTTRACE_A_PAST_PROGRAM_NAME = 5,
	IPTTRACE_A_PAST_PROGRAM_MAX = 5
};

/* A generation of a link that is restored; numbered as in history. */
enum ipttrace_a_past {
	/* u32: the generation */
	IPTTRACE_A_PAST_GENERATION = 1,
	/* u32: how it came about */
	IPTTRACE_A_PAST_ACTION = 2,
	/* u64: when: CLOCK_REALTIME, ns */
	IPTTRACE_A_PAST_TIME = 3,
	/* u32: process that asked for it, or 0 */
	IPTTRACE_A_PAST_PID = 4,
	/* u32: user of that process, in the initial user namespace */
	IPTTRACE_A_PAST_UID = 5,
	/* string: command of that process */
	IPTTRACE_A_PAST_COMM = 6,
	/* nest of past-program: a program of the set */
	IPTTRACE_A_PAST_PROGRAM = 7,
	/* u64: number of the change */
	IPTTRACE_A_PAST_TRANSACTION = 8,
	/* string: the reason that was given, if one was */
	IPTTRACE_A_PAST_REASON = 9,
	/* nest of violation: the guard that did not hold, if that was the cause */
	IPTTRACE_A_PAST_VIOLATION = 10,
	IPTTRACE_A_PAST_MAX = 10
};

/* What a link was in the module before, and goes on to be. */
enum ipttrace_a_restore {
	/* u32: its id */
	IPTTRACE_A_RESTORE_LINK = 1,
	/* u32: generation of its program set */
	IPTTRACE_A_RESTORE_GENERATION = 2,
	/* u64: number of the change that made the generation */
	IPTTRACE_A_RESTORE_TRANSACTION = 3,
	/* u32: process that made the link, or adopted it */
	IPTTRACE_A_RESTORE_OWNER_PID = 4,
	/* string: command of that process */
	IPTTRACE_A_RESTORE_OWNER_COMM = 5,
	/* nest of link-stats: its counters, which go on from there */
	IPTTRACE_A_RESTORE_STATS = 6,
	/* nest of past: a generation of its history, oldest first */
	IPTTRACE_A_RESTORE_PAST = 7,
	/* u32: what became of its last swap */
	IPTTRACE_A_RESTORE_OUTCOME = 8,
	/* nest of violation: the guard that did not hold, if the swap ended so */
	IPTTRACE_A_RESTORE_VIOLATION = 9,
	IPTTRACE_A_RESTORE_MAX = 9
};

/* Header of a message of events. */
struct ipttrace_batch {
	/* number of the first event; each CPU counts its own, losses included */
	__u64 sequence;
	/* lost on this CPU so far, by cause (enum loss) */
	__u64 lost[3];
	/* CLOCK_REALTIME minus CLOCK_MONOTONIC when the batch was sent, ns */
	__s64 clock_offset;
	/* the CPU that the events happened on */
	__u32 cpu;
	/* events in this message */
	__u32 count;
	/* bytes of each event: a later version may append members, so that an event is longer */
	__u32 event_size;
	/* 0 */
	__u32 reserved;
};

/* An event of a packet. */
struct ipttrace_event {
	/* CLOCK_MONOTONIC, ns */
	__u64 time;
	/* address of the struct sk_buff: tells packets apart while they live */
	__u64 skb;
	/* time from table entry to exit, ns; exit events only */
	__u64 cost;
	/* cookie of the network namespace (SO_NETNS_COOKIE): no other has it until the next boot */
	__u64 netns_cookie;
	/*
	 * chain: handle of the table, which no other has in its namespace; 0 for tables of
	 * iptables. Left out: packets so far that were not of the sample
	 */
	__u64 table_handle;
	/* chain: handle of the chain in its table. Left out: packets so far over the rate */
	__u64 chain_handle;
	/*
	 * chain: handle of the rule in its table; its replacement may have it too; 0 if there is
	 * none. Spine function: a number that no other function gets, another one once a module
	 * was loaded; 0 if there is none. Journey copy: number of the packet that it was copied
	 * from; socket: inode number of the socket, or 0. Disagree: number of the shadow. Left
	 * out: packets so far over a budget
	 */
	__u64 rule_handle;
	/* number of the packet, which no other has until the next boot; 0 if it is not followed */
	__u64 packet;
	/* start of the process that sends it, CLOCK_BOOTTIME ns, if flags say so */
	__u64 pid_start;
	/*
	 * id of that process's cgroup in the unified hierarchy, its inode number there; 0 if the
	 * kernel has no cgroups
	 */
	__u64 cgroup;
	/* id of the link */
	__u32 link;
	/* generation of the link's program set that handled the packet */
	__u32 generation;
	/*
	 * number of this passage through a table, base chain or hook; each CPU counts its own; 0
	 * at links of netfilter hooks
	 */
	__u32 traversal;
	/* inode number of the network namespace, which the next one may get */
	__u32 netns;
	/* process (tgid) that sends the packet, if flags say so */
	__u32 pid;
	/* effective uid of that process, as the initial user namespace has it */
	__u32 uid;
	/* interface it came in by, or 0 */
	__u32 in_ifindex;
	/* interface it goes out by, or 0 */
	__u32 out_ifindex;
	/* port of a bridge that it came in by, or 0 (br_netfilter) */
	__u32 physin_ifindex;
	/* port of a bridge that it goes out by, or 0 (br_netfilter) */
	__u32 physout_ifindex;
	/* skb->mark when the packet entered the table or chain, or was at the hook */
	__u32 mark;
	/* bytes of the packet from its network (IP, ARP) header on */
	__u32 length;
	/*
	 * generation of the rules that the packet met. Chain: of the namespace's ruleset
	 * (NFTA_GEN_ID); table: of this table, as the command ruleset tells it, or 0 if not
	 * known
	 */
	__u32 ruleset;
	/*
	 * number of the rule in its chain, or of the function at its hook, from 1; 0 in exit
	 * events
	 */
	__u32 rulenum;
	/*
	 * rules that matched in this passage so far, ends of chains and the policy included, if
	 * flags say so. Spine: functions that the packet met
	 */
	__u32 rules;
	/*
	 * exit: NF_DROP, NF_ACCEPT, NF_STOLEN, NF_QUEUE...; packet, disagree: the link's; spine
	 * function: its own; chain rule: these, or NFT_CONTINUE, NFT_JUMP, NFT_GOTO, NFT_RETURN
	 * as 32 bits; chain policy: NF_DROP or NF_ACCEPT
	 */
	__u32 verdict;
	/*
	 * exit, rule, function: errno of a drop, or number of the queue; disagree: the shadow's
	 * verdict. Journey dropped: this kernel's enum skb_drop_reason; socket: uid of its owner
	 */
	__u32 verdict_data;
	/*
	 * packet, disagree: priority of the link at its netfilter hook. Spine function: the
	 * function's, if flags say so
	 */
	__s32 priority;
	/* spine: skb->priority */
	__u32 skb_priority;
	/* spine: mark of the connection */
	__u32 ct_mark;
	/*
	 * spine: id of the connection, as conntrack -o id prints it; 0 if it has none. Another
	 * connection may get it
	 */
	__u32 ct_id;
	/* source port, host byte order */
	__u16 sport;
	/* destination port, host byte order */
	__u16 dport;
	/* identifier of an ICMP echo, host byte order */
	__u16 icmp_id;
	/* network protocol of the packet (ETH_P_*), host byte order */
	__u16 ethertype;
	/* ARP: what is asked or answered (ARPOP_*), host byte order */
	__u16 arp_operation;
	/* bits of enum event_flag */
	__u16 flags;
	/* chain: jumps that the packet has not returned from */
	__u16 depth;
	/* spine: zone of the connection in the packet's direction */
	__u16 ct_zone;
	/* spine: state of the packet in connection tracking (enum conntrack) */
	__u16 ct_state;
	/* spine: time to live, or IPv6 hop limit */
	__u16 ttl;
	/* spine: type of service, or IPv6 traffic class: DSCP and ECN */
	__u16 tos;
	/* what the event reports */
	__u8 kind;
	/* NFPROTO_* of the hook that the packet was at */
	__u8 pf;
	/* number of that hook in its family (NF_INET_*, NF_BR_*, NF_ARP_*...) */
	__u8 hook;
	/* chain: NFPROTO_* of the table, such as NFPROTO_INET */
	__u8 family;
	/* transport protocol (IPPROTO_*) */
	__u8 protocol;
	/* byte 13 of the TCP header */
	__u8 tcp_flags;
	/* type of ICMP or ICMPv6 */
	__u8 icmp_type;
	/* code of ICMP or ICMPv6 */
	__u8 icmp_code;
	/* destination MAC address, if flags say so */
	__u8 dmac[6];
	/* source IP address, IPv4 in the first four bytes; ARP: the sender's */
	__u8 saddr[16];
	/* destination IP address, IPv4 in the first four bytes; ARP: the target's */
	__u8 daddr[16];
	/* name of the process that sends it (/proc/PID/comm), if flags say so */
	char comm[16];
	/* name of the interface it came in by */
	char in_name[16];
	/* name of the interface it goes out by */
	char out_name[16];
	/* name of the bridge's port that it came in by */
	char physin_name[16];
	/* name of the bridge's port that it goes out by */
	char physout_name[16];
	/*
	 * name of the table. Spine function: module that has it; empty if it is built in.
	 * Journey dropped: module of the function that did it
	 */
	char table[32];
	/*
	 * name of the chain; exit: of the hook's chain. Spine function: its name. Journey
	 * dropped: function that did it
	 */
	char chain[32];
	/* chain rule: name of the chain that it jumps or goes to */
	char target[32];
};

#endif /* _IPTTRACE_NETLINK_H */
