# SPDX-License-Identifier: GPL-2.0
"""The generic-netlink family ``ipttrace``: the only definition of its records and attributes.

``operations`` has the messages that carry them, ``enumerations`` the names of numbers. The C
header, the policy bounds and the YNL spec are generated from these (``ipttproto.generate``).
Numbers are never reused: the number of a removed name stays in a comment.
"""

from __future__ import annotations

from typing import Final

from construct import (
    Array,
    Bytes,
    Int8un,
    Int16un,
    Int32sn,
    Int32un,
    Int64sn,
    Int64un,
    Struct,
)

from ipttproto.attributes import BINARY, S32, STRING, U32, U64, Attribute, AttributeSet
from ipttproto.enumerations import (
    Action,
    Comparison,
    Conntrack,
    Counter,
    DetachReason,
    EventFlag,
    Feature,
    Gone,
    Hook,
    Kind,
    Layout,
    LinkFlag,
    Loss,
    NfMode,
    Slot,
    SwapAck,
    SwapOutcome,
    Walk,
)
from ipttproto.layout import Chars, EnumField

FAMILY: Final = "ipttrace"
VERSION: Final = 1
"""The major version: what a client of it says, each module of it understands or refuses."""

MINOR: Final = 0
"""The minor version: grows with the features and with the records."""

# --- limits --------------------------------------------------------------------------------------

LIMITS: Final[dict[str, tuple[int, str]]] = {
    "SLOTS": (7, "slots are numbered from 1 to below this"),
    "MAX_LINKS": (128, "links at one kind of hook"),
    "MAX_JOURNEYS": (32, "links at the hook journey"),
    "MAX_FOLLOWED": (16384, "packets that are followed at a time"),
    "MAX_ANSWERS": (16384, "ways that answers are expected on at a time, some three a connection"),
    "MAX_CHANGES": (32, "links that one transaction swaps"),
    "MAX_RETIRING": (
        64,
        "swaps answered at once whose old sets have not ended; the next is answered at their end",
    ),
    "MAX_ROLLBACK": (86_400_000, "longest time until a swap is rolled back, ms"),
    "HISTORY_GENERATIONS": (16, "generations of a link that its history reaches back"),
    "MAX_SAMPLE": (1_000_000_000, "packets of which one is sampled"),
    "MAX_RATE": (1_000_000_000, "packets or events a second that a limit is"),
    "MAX_CPU": (1_000_000, "thousandths of one CPU's time that a budget is"),
    "MAX_PAYLOAD": (256, "bytes that a program adds to an event"),
    "MAX_FILTER": (4096, "instructions of a classic-BPF filter (BPF_MAXINSNS)"),
    "BATCH_EVENTS": (76, "events in one message, which then fill 32 KiB of the kernel's memory"),
    "RING_EVENTS": (4096, "events that wait on one CPU"),
    "TABLE_NAME": (32, "bytes of a table's name, with its NUL (XT_TABLE_MAXNAMELEN)"),
    "CHAIN_NAME": (32, "bytes of a chain's name, with its NUL"),
    "NFT_NAME": (255, "bytes of a name of nftables, without its NUL (NFT_NAME_MAXLEN)"),
    "MAX_TRIALS": (64, "network namespaces of a verifier"),
    "PROG_NAME": (16, "bytes of a program's name, with its NUL (BPF_OBJ_NAME_LEN)"),
    "PROG_TAG": (8, "bytes of a program's tag (BPF_TAG_SIZE)"),
    "LINK_NAME": (63, "bytes of a link's name, without its NUL"),
    "MAX_LABELS": (8, "labels of a link"),
    "LABEL_KEY": (31, "bytes of a label's key, without its NUL"),
    "LABEL_VALUE": (63, "bytes of a label's value, without its NUL"),
    "REASON": (127, "bytes of the reason given for a change, without its NUL"),
    "MAX_GUARDS": (8, "guards of a swap"),
    "MIN_WINDOW": (100, "shortest time over which a condition is measured, ms"),
    "MAX_WINDOW": (86_400_000, "longest time over which a condition is measured, ms"),
}


def limit(name: str) -> int:
    """The value of a limit by its name in LIMITS."""
    return LIMITS[name][0]


# --- records -------------------------------------------------------------------------------------

Batch: Final = Struct(
    "sequence" / Int64un * "number of the first event; each CPU counts its own, losses included",
    "lost" / Array(len(Loss), Int64un) * "lost on this CPU so far, by cause (enum loss)",
    "clock_offset" / Int64sn * "CLOCK_REALTIME minus CLOCK_MONOTONIC when the batch was sent, ns",
    "cpu" / Int32un * "the CPU that the events happened on",
    "count" / Int32un * "events in this message",
    "event_size"
    / Int32un
    * "bytes of each event: a later version may append members, so that an event is longer",
    "reserved" / Int32un * "0",
)

Event: Final = Struct(
    "time" / Int64un * "CLOCK_MONOTONIC, ns",
    "skb" / Int64un * "address of the struct sk_buff: tells packets apart while they live",
    "cost" / Int64un * "time from table entry to exit, ns; exit events only",
    "netns_cookie"
    / Int64un
    * "cookie of the network namespace (SO_NETNS_COOKIE): no other has it until the next boot",
    "table_handle"
    / Int64un
    * "chain: handle of the table, which no other has in its namespace; 0 for tables of iptables. "
    "Left out: packets so far that were not of the sample",
    "chain_handle"
    / Int64un
    * "chain: handle of the chain in its table. Left out: packets so far over the rate",
    "rule_handle"
    / Int64un
    * "chain: handle of the rule in its table; its replacement may have it too; 0 if there is "
    "none. Spine function: a number that no other function gets, another one once a module was "
    "loaded; 0 if there is none. "
    "Journey copy: number of the packet that it was copied from; socket: inode number of the "
    "socket, or 0. "
    "Disagree: number of the shadow. Left out: packets so far over a budget",
    "packet"
    / Int64un
    * "number of the packet, which no other has until the next boot; 0 if it is not followed",
    "pid_start"
    / Int64un
    * "start of the process that sends it, CLOCK_BOOTTIME ns, if flags say so",
    "cgroup"
    / Int64un
    * "id of that process's cgroup in the unified hierarchy, its inode number there; 0 if the "
    "kernel has no cgroups",
    "link" / Int32un * "id of the link",
    "generation" / Int32un * "generation of the link's program set that handled the packet",
    "traversal"
    / Int32un
    * "number of this passage through a table, base chain or hook; each CPU counts its own; 0 at "
    "links of netfilter hooks",
    "netns" / Int32un * "inode number of the network namespace, which the next one may get",
    "pid" / Int32un * "process (tgid) that sends the packet, if flags say so",
    "uid" / Int32un * "effective uid of that process, as the initial user namespace has it",
    "in_ifindex" / Int32un * "interface it came in by, or 0",
    "out_ifindex" / Int32un * "interface it goes out by, or 0",
    "physin_ifindex" / Int32un * "port of a bridge that it came in by, or 0 (br_netfilter)",
    "physout_ifindex" / Int32un * "port of a bridge that it goes out by, or 0 (br_netfilter)",
    "mark" / Int32un * "skb->mark when the packet entered the table or chain, or was at the hook",
    "length" / Int32un * "bytes of the packet from its network (IP, ARP) header on",
    "ruleset"
    / Int32un
    * "generation of the rules that the packet met. Chain: of the namespace's ruleset "
    "(NFTA_GEN_ID); table: of this table, as the command ruleset tells it, or 0 if not known",
    "rulenum"
    / Int32un
    * "number of the rule in its chain, or of the function at its hook, from 1; 0 in exit events",
    "rules"
    / Int32un
    * "rules that matched in this passage so far, ends of chains and the policy included, if flags "
    "say so. Spine: functions that the packet met",
    "verdict"
    / Int32un
    * "exit: NF_DROP, NF_ACCEPT, NF_STOLEN, NF_QUEUE...; packet, disagree: the link's; spine "
    "function: its own; chain rule: "
    "these, or "
    "NFT_CONTINUE, NFT_JUMP, NFT_GOTO, NFT_RETURN as 32 bits; chain policy: NF_DROP or NF_ACCEPT",
    "verdict_data"
    / Int32un
    * "exit, rule, function: errno of a drop, or number of the queue; disagree: the shadow's "
    "verdict. Journey dropped: this kernel's enum skb_drop_reason; socket: uid of its owner",
    "priority"
    / Int32sn
    * "packet, disagree: priority of the link at its netfilter hook. Spine function: the "
    "function's, if flags say so",
    "skb_priority" / Int32un * "spine: skb->priority",
    "ct_mark" / Int32un * "spine: mark of the connection",
    "ct_id"
    / Int32un
    * "spine: id of the connection, as conntrack -o id prints it; 0 if it has none. Another "
    "connection may get it",
    "sport" / Int16un * "source port, host byte order",
    "dport" / Int16un * "destination port, host byte order",
    "icmp_id" / Int16un * "identifier of an ICMP echo, host byte order",
    "ethertype" / Int16un * "network protocol of the packet (ETH_P_*), host byte order",
    "arp_operation" / Int16un * "ARP: what is asked or answered (ARPOP_*), host byte order",
    "flags" / EnumField(Int16un, EventFlag) * "bits of enum event_flag",
    "depth" / Int16un * "chain: jumps that the packet has not returned from",
    "ct_zone" / Int16un * "spine: zone of the connection in the packet's direction",
    "ct_state"
    / EnumField(Int16un, Conntrack)
    * "spine: state of the packet in connection tracking (enum conntrack)",
    "ttl" / Int16un * "spine: time to live, or IPv6 hop limit",
    "tos" / Int16un * "spine: type of service, or IPv6 traffic class: DSCP and ECN",
    "kind" / EnumField(Int8un, Kind) * "what the event reports",
    "pf" / Int8un * "NFPROTO_* of the hook that the packet was at",
    "hook" / Int8un * "number of that hook in its family (NF_INET_*, NF_BR_*, NF_ARP_*...)",
    "family" / Int8un * "chain: NFPROTO_* of the table, such as NFPROTO_INET",
    "protocol" / Int8un * "transport protocol (IPPROTO_*)",
    "tcp_flags" / Int8un * "byte 13 of the TCP header",
    "icmp_type" / Int8un * "type of ICMP or ICMPv6",
    "icmp_code" / Int8un * "code of ICMP or ICMPv6",
    "dmac" / Bytes(6) * "destination MAC address, if flags say so",
    "saddr" / Bytes(16) * "source IP address, IPv4 in the first four bytes; ARP: the sender's",
    "daddr" / Bytes(16) * "destination IP address, IPv4 in the first four bytes; ARP: the target's",
    "comm" / Chars(16) * "name of the process that sends it (/proc/PID/comm), if flags say so",
    "in_name" / Chars(16) * "name of the interface it came in by",
    "out_name" / Chars(16) * "name of the interface it goes out by",
    "physin_name" / Chars(16) * "name of the bridge's port that it came in by",
    "physout_name" / Chars(16) * "name of the bridge's port that it goes out by",
    "table"
    / Chars(limit("TABLE_NAME"))
    * "name of the table. Spine function: module that has it; empty if it is built in. Journey "
    "dropped: module of the function that did it",
    "chain"
    / Chars(limit("CHAIN_NAME"))
    * "name of the chain; exit: of the hook's chain. Spine function: its name. Journey dropped: "
    "function that did it",
    "target"
    / Chars(limit("CHAIN_NAME"))
    * "chain rule: name of the chain that it jumps or goes to",
)

RECORDS: Final[dict[str, tuple[Struct, str]]] = {
    "batch": (Batch, "Header of a message of events."),
    "event": (Event, "An event of a packet."),
}

FIRST_SIZES: Final = {"batch": 56, "event": 408}
"""The bytes of each record in the first minor version; later ones are longer."""

# --- attributes ----------------------------------------------------------------------------------

Program: Final = AttributeSet(
    "program",
    "A program in a slot.",
    Attribute("slot", 1, U32, "role of the program", enum=Slot, minimum=1, maximum=max(Slot)),
    Attribute("fd", 2, U32, "request: file descriptor of the program"),
    Attribute("id", 3, U32, "id of the program in the kernel", reply=True),
    Attribute("tag", 4, BINARY, "tag of the program", max_length=limit("PROG_TAG"), reply=True),
    Attribute(
        "name", 5, STRING, "name of the program", max_length=limit("PROG_NAME") - 1, reply=True
    ),
)

ExpectedProgram: Final = AttributeSet(
    "expected-program",
    "The program that a slot must hold for a request to be carried out.",
    Attribute("slot", 1, U32, "role of the program", enum=Slot, minimum=1, maximum=max(Slot)),
    # 2 is the descriptor of a program
    Attribute("id", 3, U32, "id of the program in the kernel; 0 for an empty slot"),
)

EventLimits: Final = AttributeSet(
    "limits",
    "Limits of the events of a program set: all of a packet are left out, or none. Programs run as "
    "without them, but for rule and exit programs at packets that are left out.",
    Attribute(
        "sample",
        1,
        U32,
        "one packet of so many is reported, at random",
        minimum=2,
        maximum=limit("MAX_SAMPLE"),
    ),
    Attribute(
        "rate",
        2,
        U32,
        "packets reported in a second at most, with bursts of a tenth of a second",
        minimum=1,
        maximum=limit("MAX_RATE"),
    ),
    Attribute(
        "budget-events",
        3,
        U32,
        "governor: once there have been more events a second, packets are left out until the "
        "average is below; with bursts of a second",
        minimum=1,
        maximum=limit("MAX_RATE"),
    ),
    Attribute(
        "budget-cpu",
        4,
        U32,
        "governor: likewise, the time that rule, exit and packet events take, their programs "
        "included but for those that decide over packets, in thousandths of one CPU",
        minimum=1,
        maximum=limit("MAX_CPU"),
    ),
)

ProgramSet: Final = AttributeSet(
    "program-set",
    "The programs of a link with their filter, cookie and limits: replaced as one.",
    Attribute("program", 1, Program, "a program, once for each slot in use", multi=True),
    Attribute(
        "filter",
        2,
        BINARY,
        "classic-BPF filter (struct sock_filter[]) that runs on the packet, from its IP header on, "
        "before the entry program; a packet for which it returns 0 is passed over. Returned "
        "only when a single link is requested",
        max_length=limit("MAX_FILTER") * 8,
    ),
    Attribute("cookie", 3, U64, "what bpf_get_attach_cookie returns to the programs"),
    Attribute("filter-length", 4, U32, "instructions of the filter", reply=True),
    Attribute(
        "payload-fd",
        5,
        U32,
        "request: file descriptor of a per-CPU array that a program of the set uses. The bytes "
        "that the program leaves in its first element are added to the event that it asks for",
    ),
    Attribute("payload-map", 6, U32, "id of the payload's map", reply=True),
    Attribute("payload-size", 7, U32, "bytes of the payload", reply=True),
    Attribute("limits", 8, EventLimits, "packets whose events are left out", since=Feature.LIMITS),
)

SlotStats: Final = AttributeSet(
    "slot-stats",
    "Counters of the programs in a slot, summed over the CPUs and the generations.",
    Attribute("slot", 1, U32, "the slot", enum=Slot, minimum=1, maximum=max(Slot)),
    Attribute("runs", 2, U64, "program runs"),
    Attribute(
        "run-time",
        3,
        U64,
        "time that they took, ns; measured only while the kernel's BPF statistics are on (sysctl "
        "kernel.bpf_stats_enabled, BPF_ENABLE_STATS)",
    ),
)

LinkStats: Final = AttributeSet(
    "link-stats",
    "Counters of a link, summed over the CPUs and the generations.",
    Attribute("packets", 1, U64, "packets that reached the hook"),
    Attribute(
        "selected",
        2,
        U64,
        "packets that the filter and the entry program selected; nf: that the filter let through",
    ),
    Attribute("events", 3, U64, "events emitted, lost ones included"),
    Attribute("nested", 4, U64, "program runs left out: one was already running on the CPU"),
    Attribute("lost", 5, U64, "events lost because the CPU's ring was full"),
    Attribute("drops", 6, U64, "packets that the link dropped (nf, mode filter)"),
    Attribute("slot", 7, SlotStats, "programs of a slot in use", multi=True),
    Attribute(
        "agreed",
        8,
        U64,
        "packets for which the link's last shadow had the link's verdict. The counters of a shadow "
        "start at 0 with each, and stay when it goes",
    ),
    Attribute("disagreed", 9, U64, "packets for which it had another verdict"),
    Attribute("shadow-runs", 10, U64, "runs of the shadow's program"),
    Attribute("shadow-run-time", 11, U64, "time that they took, ns; measured as in slot-stats"),
    Attribute(
        "left-out-sample",
        12,
        U64,
        "packets whose events limits left out, because they were not of the sample",
    ),
    Attribute("left-out-rate", 13, U64, "likewise, because of the rate"),
    Attribute("left-out-governor", 14, U64, "likewise, because of a budget"),
)

CpuStats: Final = AttributeSet(
    "cpu-stats",
    "The event stream of one CPU.",
    Attribute("cpu", 1, U32, "number of the CPU"),
    Attribute("sequence", 2, U64, "number that the CPU's next event will have"),
    Attribute("lost-ring", 3, U64, Loss.RING.doc),
    Attribute("lost-memory", 4, U64, Loss.MEMORY.doc),
    Attribute("lost-nested", 5, U64, Loss.NESTED.doc),
)

Label: Final = AttributeSet(
    "label",
    "Something that somebody notes about a link.",
    Attribute(
        "key",
        1,
        STRING,
        "its key, once for each link; spelled as names of links are",
        max_length=limit("LABEL_KEY"),
    ),
    Attribute(
        "value", 2, STRING, "its value, any text; may be empty", max_length=limit("LABEL_VALUE")
    ),
)

Labels: Final = AttributeSet(
    "labels",
    "All labels of a link.",
    Attribute("label", 1, Label, "a label", multi=True),
)

Change: Final = AttributeSet(
    "change",
    "A swap of one link in a transaction.",
    Attribute("link", 1, U32, "id of the link", minimum=1),
    Attribute("programs", 2, ProgramSet, "the program set"),
    Attribute("expect-generation", 3, U32, "only if the link has this generation", minimum=1),
    Attribute(
        "expect-program",
        4,
        ExpectedProgram,
        "only if the program in slot has this id; 0 for an empty slot",
        multi=True,
    ),
    Attribute(
        "name",
        5,
        STRING,
        "name of the link, instead of its id",
        max_length=limit("LINK_NAME"),
        since=Feature.LINK_NAMES,
    ),
    Attribute(
        "labels",
        6,
        Labels,
        "all its labels from now on; without, it keeps them",
        since=Feature.LINK_NAMES,
    ),
)

Condition: Final = AttributeSet(
    "condition",
    "Condition on a counter of a link, counted from the swap on, while the packets are enough.",
    Attribute("counter", 1, U32, "the counter", enum=Counter, minimum=1, maximum=max(Counter)),
    Attribute(
        "comparison",
        2,
        U32,
        "how it compares with threshold",
        enum=Comparison,
        minimum=1,
        maximum=max(Comparison),
    ),
    Attribute("threshold", 3, U32, "the number that it is compared with"),
    Attribute(
        "per-time",
        4,
        U32,
        "threshold is a number in this time, ms",
        minimum=1,
        maximum=limit("MAX_WINDOW"),
    ),
    Attribute(
        "per-packets",
        5,
        U32,
        "threshold is a number in this many packets that reached the hook, or, of a shadow, that "
        "were compared; without this and per-time, it is a number in the window",
        minimum=1,
    ),
    Attribute(
        "window",
        6,
        U32,
        "time over which is measured, up to now, ms; without it, per-time, or else all time since "
        "the swap",
        minimum=limit("MIN_WINDOW"),
        maximum=limit("MAX_WINDOW"),
    ),
    Attribute(
        "minimum",
        7,
        U32,
        "least number of packets in the window: with fewer, the condition is neither met nor "
        "violated; without it, per-packets, or else 1",
        minimum=1,
    ),
)

Violation: Final = AttributeSet(
    "violation",
    "How a guard did not hold.",
    Attribute("condition", 1, Condition, "the guard"),
    Attribute("link", 2, U32, "the link whose counter it was"),
    Attribute("count", 3, U64, "what the counter grew by in the window"),
    Attribute("packets", 4, U64, "packets that reached the hook in the window"),
    Attribute("time", 5, U64, "the window as it was measured, ms"),
)

Shadow: Final = AttributeSet(
    "shadow",
    "A program set whose verdicts are compared with those of the link, and not used.",
    Attribute(
        "number",
        1,
        U64,
        "number of the change that gave it to the link (links-sequence): no other shadow has it",
    ),
    Attribute("programs", 2, ProgramSet, "the program set"),
    Attribute(
        "promote-if",
        3,
        Condition,
        "a condition on which the module promotes it, when all are met",
        multi=True,
    ),
)

History: Final = AttributeSet(
    "history",
    "How a generation of a link came about.",
    Attribute("generation", 1, U32, "the generation"),
    Attribute("action", 2, U32, "how it came about", enum=Action),
    Attribute("time", 3, U64, "when: CLOCK_REALTIME, ns"),
    Attribute("pid", 4, U32, "process that asked for it; 0 if the module did it by itself"),
    Attribute("uid", 5, U32, "user of that process, in the initial user namespace"),
    Attribute("comm", 6, STRING, "command of that process; empty if there is none", max_length=15),
    Attribute("program", 7, Program, "a program of the set", multi=True),
    Attribute(
        "transaction",
        8,
        U64,
        "number of the change (links-sequence): links that were swapped together have the same. A "
        "roll-back has that of the swap that it undoes",
    ),
    Attribute(
        "reason", 9, STRING, "the reason that was given, if one was", max_length=limit("REASON")
    ),
    Attribute("violation", 10, Violation, "the guard that did not hold, if that was the cause"),
)

PastProgram: Final = AttributeSet(
    "past-program",
    "A program of a generation that is restored; numbered as in program.",
    Attribute("slot", 1, U32, "role of the program", enum=Slot, minimum=1, maximum=max(Slot)),
    # 2 is the descriptor of a program
    Attribute("id", 3, U32, "id that the program had in the kernel", minimum=1),
    Attribute("tag", 4, BINARY, "tag of the program", max_length=limit("PROG_TAG")),
    Attribute("name", 5, STRING, "name of the program", max_length=limit("PROG_NAME") - 1),
)

Past: Final = AttributeSet(
    "past",
    "A generation of a link that is restored; numbered as in history.",
    Attribute("generation", 1, U32, "the generation", minimum=1),
    Attribute("action", 2, U32, "how it came about", enum=Action),
    Attribute("time", 3, U64, "when: CLOCK_REALTIME, ns"),
    Attribute("pid", 4, U32, "process that asked for it, or 0"),
    Attribute("uid", 5, U32, "user of that process, in the initial user namespace"),
    Attribute("comm", 6, STRING, "command of that process", max_length=15),
    Attribute("program", 7, PastProgram, "a program of the set", multi=True),
    Attribute("transaction", 8, U64, "number of the change"),
    Attribute(
        "reason", 9, STRING, "the reason that was given, if one was", max_length=limit("REASON")
    ),
    Attribute("violation", 10, Violation, "the guard that did not hold, if that was the cause"),
)

Restore: Final = AttributeSet(
    "restore",
    "What a link was in the module before, and goes on to be.",
    Attribute("link", 1, U32, "its id", minimum=1),
    Attribute("generation", 2, U32, "generation of its program set", minimum=1),
    Attribute("transaction", 3, U64, "number of the change that made the generation"),
    Attribute("owner-pid", 4, U32, "process that made the link, or adopted it"),
    Attribute("owner-comm", 5, STRING, "command of that process", max_length=15),
    Attribute("stats", 6, LinkStats, "its counters, which go on from there"),
    Attribute("past", 7, Past, "a generation of its history, oldest first", multi=True),
    Attribute(
        "outcome",
        8,
        U32,
        "what became of its last swap",
        enum=SwapOutcome,
        minimum=SwapOutcome.CONFIRMED,
        maximum=max(SwapOutcome),
    ),
    Attribute("violation", 9, Violation, "the guard that did not hold, if the swap ended so"),
)

Payload: Final = AttributeSet(
    "payload",
    "Bytes that a program added to an event.",
    Attribute("event", 1, U32, "index of the event in this message, from 0"),
    Attribute("data", 2, BINARY, "the bytes", max_length=limit("MAX_PAYLOAD")),
)

Top: Final = AttributeSet(
    "ipttrace",
    "Attributes of every message of the family.",
    Attribute("link", 1, U32, "id of the link", minimum=1),
    Attribute("hook", 2, U32, "hook that the link is attached to", enum=Hook),
    Attribute(
        "family",
        3,
        U32,
        "protocol family (NFPROTO_*). Tables: 2 (IPv4), 10 (IPv6), or 0 for both. nf: these two, 1 "
        "(inet: both), 3 (ARP), 5 (netdev), 7 (bridge). Chain: the table's, one of these, or 0 for "
        "all. Spine: the hook's, likewise; 1 has those of IPv4 and IPv6",
        maximum=10,
    ),
    Attribute("flags", 4, U32, "bits of enum link-flag", bits=LinkFlag, maximum=sum(LinkFlag)),
    Attribute("programs", 5, ProgramSet, "the program set"),
    Attribute("generation", 6, U32, "generation of the program set, from 1"),
    Attribute(
        "expect-generation",
        7,
        U32,
        "swap, detach, confirm, rollback: only if the link has this generation",
        minimum=1,
    ),
    Attribute(
        "expect-program",
        8,
        ExpectedProgram,
        "swap, detach: only if the program in slot has this id; 0 for an empty slot",
        multi=True,
    ),
    Attribute("owner-portid", 9, U32, "netlink port of the socket that owns the link; 0: nobody"),
    Attribute("owner-pid", 10, U32, "process that made the link, or adopted it"),
    Attribute("owner-comm", 11, STRING, "command of that process", max_length=15),
    Attribute(
        "armed",
        12,
        U32,
        "bits: 1, IPv4 tables are watched; 2, IPv6 tables are; 4, the netfilter hook is there; "
        "8, nftables' chains are watched; 16, the spine is; 32, journeys are. The bit of tables or "
        "chains is missing while the module that holds their code is not loaded, a hook's when the "
        "link is gone from it",
    ),
    Attribute("stats", 13, LinkStats, "counters of the link"),
    Attribute("reason", 14, U32, "why the link went", enum=DetachReason),
    Attribute("batch", 15, BINARY, "header of the events in this message", record="batch"),
    Attribute("event", 16, BINARY, "an event", multi=True, record="event"),
    Attribute("cpu", 17, CpuStats, "event stream of a CPU", multi=True),
    Attribute("fingerprint", 18, U32, "checksum of the protocol's definition (CRC-32)"),
    Attribute("module-version", 19, STRING, "version of the module", max_length=63),
    Attribute(
        "hooknum",
        20,
        U32,
        "nf, spine: number of the hook in its family (NF_INET_*, NF_BR_*, NF_ARP_*...). Spine: "
        "without it, all of the family",
    ),
    Attribute("priority", 21, S32, "nf: place among the others at the hook, lowest first"),
    Attribute(
        "netns-fd",
        22,
        U32,
        "request: file descriptor of the network namespace. nf: without it, the initial one; "
        "chain, spine: without it, all",
    ),
    Attribute("netns", 23, U32, "inode number of the network namespace"),
    Attribute("ifindex", 24, U32, "nf, ingress: the device", minimum=1),
    Attribute("ifname", 25, STRING, "nf, ingress: name of the device", max_length=15),
    Attribute(
        "mode",
        26,
        U32,
        "nf: what the program's return value means; observe if none is given",
        enum=NfMode,
        minimum=min(NfMode),
        maximum=max(NfMode),
    ),
    Attribute("gone", 27, U32, "nf: why the link is at no hook any more", enum=Gone),
    Attribute(
        "rollback-after",
        28,
        U32,
        "swap, transact: swap back after this time unless confirmed, ms",
        minimum=1,
        maximum=limit("MAX_ROLLBACK"),
    ),
    Attribute(
        "rollback-in", 29, U32, "time until the last swap is rolled back unless confirmed, ms"
    ),
    Attribute("change", 30, Change, "transact: a swap of one link", multi=True),
    Attribute("history", 31, History, "a generation of the link, oldest first", multi=True),
    Attribute(
        "payload", 32, Payload, "events: what a program added to one; behind all events", multi=True
    ),
    Attribute(
        "netns-cookie",
        33,
        U64,
        "cookie of the network namespace (SO_NETNS_COOKIE): no other has it until the next boot",
    ),
    Attribute(
        "table",
        34,
        STRING,
        "name of the table. Chain: without it, all tables",
        max_length=limit("NFT_NAME"),
    ),
    Attribute(
        "chain",
        35,
        STRING,
        "chain: name of the base chain in table; without it, all base chains",
        max_length=limit("NFT_NAME"),
    ),
    Attribute(
        "walk",
        36,
        U32,
        "whether chain links are taken",
        enum=Walk,
        minimum=min(Walk),
        maximum=max(Walk),
    ),
    Attribute(
        "walk-compared",
        37,
        U32,
        "1: the sources of this kernel's series were compared with the walk; verify, request: 0: "
        "trust the verifier although they were not, or the layouts are unknown",
        maximum=1,
    ),
    Attribute(
        "walk-layout",
        38,
        U32,
        "whether the structures that the walk uses lie where the module finds them",
        enum=Layout,
    ),
    Attribute(
        "walk-refusal",
        39,
        STRING,
        "which structure or member does not, or why that is unknown",
        max_length=255,
    ),
    Attribute(
        "links-sequence",
        40,
        U64,
        "number of the last change of any link, which grows with each: in a notification that of "
        "its change, in a dump the one up to which changes are in it",
    ),
    Attribute(
        "ruleset",
        41,
        U32,
        "generation of a legacy table's rules: another one for each time that they were replaced, "
        "never used again while the module is loaded",
    ),
    Attribute(
        "replacing",
        42,
        U32,
        "1: the rules are being replaced, and may be of this generation or of the next",
    ),
    Attribute(
        "name",
        43,
        STRING,
        "name of the link, if it has one: no other link has it. Begins with a letter or '_'; "
        "letters, digits, '_', '.' and '-' follow. Attach: the name to give; other requests: the "
        "link, instead of its id",
        max_length=limit("LINK_NAME"),
        since=Feature.LINK_NAMES,
    ),
    Attribute(
        "labels",
        44,
        Labels,
        "all labels of the link. Swap: those from now on; without, it keeps the ones that it has",
        since=Feature.LINK_NAMES,
    ),
    Attribute(
        "reason-text",
        45,
        STRING,
        "the reason given for the change that made the generation; in a notification that a link "
        "went, the one given for that",
        max_length=limit("REASON"),
        since=Feature.LINK_NAMES,
    ),
    Attribute(
        "transaction",
        46,
        U64,
        "number of the change that made the generation: see history. Confirm, rollback: the swap, "
        "instead of one of its links",
        since=Feature.GUARDS,
    ),
    Attribute(
        "new-name",
        47,
        STRING,
        "rename: the name that the link has from now on",
        max_length=limit("LINK_NAME"),
        since=Feature.LINK_NAMES,
    ),
    Attribute(
        "force",
        48,
        U32,
        "1: make the change although somebody else owns the link exclusively, or, to adopt it, at "
        "all; the owner is told",
        maximum=1,
        since=Feature.LINK_NAMES,
    ),
    Attribute(
        "forced-pid",
        49,
        U32,
        "notification: the process that made this change by force, against the owner",
    ),
    Attribute(
        "forced-comm",
        50,
        STRING,
        "command of that process",
        max_length=15,
    ),
    Attribute(
        "guard",
        51,
        Condition,
        "swap, transact: a condition that every link has to meet until the swap is confirmed; "
        "otherwise it is rolled back. Link: one of a swap that waits",
        multi=True,
        since=Feature.GUARDS,
    ),
    Attribute(
        "outcome",
        52,
        U32,
        "what became of the last swap",
        enum=SwapOutcome,
    ),
    Attribute(
        "violation",
        53,
        Violation,
        "the guard that did not hold, if the swap ended so",
    ),
    Attribute(
        "requester-pid",
        54,
        U32,
        "notification of a roll-back that was asked for: the process that asked",
    ),
    Attribute(
        "requester-comm",
        55,
        STRING,
        "command of that process",
        max_length=15,
    ),
    Attribute("shadow", 56, Shadow, "the link's shadow, if it has one"),
    Attribute(
        "expect-shadow",
        57,
        U64,
        "promote, drop-shadow: only if the link's shadow has this number",
        since=Feature.SHADOWS,
    ),
    Attribute(
        "promote-if",
        58,
        Condition,
        "shadow: promote it when this condition is met, and all others that are given; counters of "
        "shadows only",
        multi=True,
        since=Feature.SHADOWS,
    ),
    Attribute(
        "restore",
        59,
        Restore,
        "attach: the link is one of before, which is restored",
        since=Feature.UPGRADES,
    ),
    Attribute(
        "restoring",
        60,
        U32,
        "1: links are being restored; meanwhile no other is persistent or gets a name",
    ),
    Attribute("last-link", 61, U32, "the highest id that a link has had"),
    Attribute(
        "protocol-major",
        62,
        U32,
        "major version of the protocol: client and module of the same one understand each other",
    ),
    Attribute(
        "protocol-minor", 63, U32, "minor version of the protocol, which grows with its features"
    ),
    Attribute("features", 64, U32, "features of the module, bits of enum feature", bits=Feature),
    Attribute(
        "swap-ack",
        65,
        U32,
        "swap, transact: when it is answered",
        enum=SwapAck,
        minimum=min(SwapAck),
        maximum=max(SwapAck),
        since=Feature.ENDS,
    ),
    Attribute(
        "ended",
        66,
        U32,
        "the last generation whose program set handles no packet any more: the one before the "
        "link's, but while sets end that were replaced",
    ),
    Attribute(
        "spine-walk",
        67,
        U32,
        "whether links at the spine are taken",
        enum=Walk,
        minimum=min(Walk),
        maximum=max(Walk),
        since=Feature.SPINE,
    ),
    Attribute(
        "journey",
        68,
        U32,
        "tables, chain, spine: id of the link at the hook journey that this one is on: packets "
        "that either of them has are followed by both",
        minimum=1,
        since=Feature.JOURNEYS,
    ),
    Attribute("journey-followed", 69, U64, "journey: packets that any has followed so far"),
    Attribute(
        "journey-unfollowed",
        70,
        U64,
        "journey: times that a packet could not be followed so far, for lack of room",
    ),
    Attribute(
        "journey-lost", 71, U64, "journey: packets that were lost sight of so far, see enum kind"
    ),
    Attribute(
        "journey-ways",
        72,
        U32,
        "journey: 1 (also without it): packets that links on it select are followed; 2: answers "
        "too, the packets of the other direction of their connections",
        minimum=1,
        maximum=2,
        since=Feature.JOURNEYS,
    ),
    Attribute(
        "journey-displaced",
        73,
        U64,
        "journey: ways of connections so far that answers were not expected on any more, for lack "
        "of room",
    ),
)

ATTRIBUTE_SETS: Final = (
    Top,
    EventLimits,
    ProgramSet,
    Program,
    ExpectedProgram,
    LinkStats,
    SlotStats,
    CpuStats,
    Label,
    Labels,
    Change,
    Condition,
    Violation,
    Shadow,
    History,
    Payload,
    PastProgram,
    Past,
    Restore,
)
