# SPDX-License-Identifier: GPL-2.0
"""The generic-netlink family ``ipttrace``: the one definition of everything that travels.

The C header, the policy bounds and the YNL spec are generated from here (``ipttproto.generate``).
Numbers are never reused: a name that goes leaves its number behind in a comment.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Self

from construct import (
    Array,
    Bytes,
    Int8un,
    Int16un,
    Int32un,
    Int64sn,
    Int64un,
    Struct,
)

from ipttproto.attributes import BINARY, STRING, U32, U64, Attribute, AttributeSet
from ipttproto.layout import Chars, EnumField

FAMILY: Final = "ipttrace"
VERSION: Final = 1


class Documented(enum.IntEnum):
    """An enumeration whose members carry their meaning."""

    doc: str

    def __new__(cls, value: int, doc: str = "") -> Self:
        """A member with its meaning."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.doc = doc
        return member


class Hook(Documented):
    """A place where programs run."""

    TABLE = 1, "iptables' tables: ipt_do_table and ip6t_do_table"


class Slot(Documented):
    """A program's role at a hook."""

    ENTRY = 1, "at table entry; its return value selects the packet"
    RULE = 2, "at each rule that a selected packet matches; non-zero emits an event"
    EXIT = 3, "when a selected packet leaves the table; non-zero emits an event"


class Select(Documented):
    """Bits that an entry program returns; any non-zero value selects the packet."""

    PACKET = 1, "follow the packet through this table: rule and exit programs run"


class Emit(Documented):
    """Bits that a rule or an exit program returns; any non-zero value emits an event."""

    EVENT = 1, "emit an event"


class Kind(Documented):
    """What an event reports."""

    RULE = 1, "a rule matched"
    RETURN = 2, "the packet reached the RETURN at the end of a user chain"
    POLICY = 3, "the packet reached the policy of a built-in chain"
    EXIT = 4, "the packet left the table with a verdict"


class EventFlag(Documented):
    """Bits of an event's ``flags``."""

    PID = 1, "pid is the sender's: the event happened in its process context"
    DMAC = 2, "dmac is valid"
    FOREIGN = 4, "somebody else's TRACE follows the packet too"
    FRAGMENT = 8, "not the first fragment: there are no ports"
    TRUNCATED = 16, "the packet ends before its transport header does"


class Loss(Documented):
    """Why something was not seen; indexes the batch's ``lost``."""

    RING = 0, "events: the CPU's ring was full"
    MEMORY = 1, "events: no memory for the message that was to carry them"
    NESTED = 2, "program runs: a program was already running on this CPU"


class LinkFlag(Documented):
    """Bits of a link's ``flags``."""

    PERSISTENT = 1, "the link outlives the socket that made it"


class DetachReason(Documented):
    """Why a link went."""

    REQUEST = 1, "somebody asked for it"
    OWNER = 2, "the socket that owned it was closed"


# --- limits --------------------------------------------------------------------------------------

LIMITS: Final[dict[str, tuple[int, str]]] = {
    "SLOTS": (4, "slots are numbered from 1 to below this"),
    "MAX_LINKS": (128, "links at one hook"),
    "MAX_FILTER": (4096, "instructions of a classic-BPF filter (BPF_MAXINSNS)"),
    "BATCH_EVENTS": (64, "events in one message"),
    "RING_EVENTS": (4096, "events that wait on one CPU"),
    "TABLE_NAME": (32, "bytes of a table's name, with its NUL (XT_TABLE_MAXNAMELEN)"),
    "CHAIN_NAME": (32, "bytes of a chain's name, with its NUL"),
    "PROG_NAME": (16, "bytes of a program's name, with its NUL (BPF_OBJ_NAME_LEN)"),
    "PROG_TAG": (8, "bytes of a program's tag (BPF_TAG_SIZE)"),
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
)

Event: Final = Struct(
    "time" / Int64un * "CLOCK_MONOTONIC, ns",
    "skb" / Int64un * "address of the struct sk_buff: tells packets apart while they live",
    "cost" / Int64un * "time from table entry to exit, ns; exit events only",
    "link" / Int32un * "id of the link",
    "generation" / Int32un * "generation of the link's program set that handled the packet",
    "traversal" / Int32un * "number of this passage through a table; each CPU counts its own",
    "netns" / Int32un * "inode number of the network namespace",
    "pid" / Int32un * "process (tgid) that sends the packet, if flags say so",
    "in_ifindex" / Int32un * "interface it came in by, or 0",
    "out_ifindex" / Int32un * "interface it goes out by, or 0",
    "mark" / Int32un * "skb->mark when the packet entered the table",
    "length" / Int32un * "bytes of the packet from its IP header on",
    "rulenum" / Int32un * "number of the rule in its chain, from 1; 0 in exit events",
    "rules"
    / Int32un
    * "rules that matched in this passage so far, ends of chains and the policy included",
    "verdict" / Int32un * "exit: NF_DROP, NF_ACCEPT, NF_STOLEN, NF_QUEUE...",
    "verdict_data" / Int32un * "exit: errno of a drop, or number of the queue",
    "sport" / Int16un * "source port, host byte order",
    "dport" / Int16un * "destination port, host byte order",
    "icmp_id" / Int16un * "identifier of an ICMP echo, host byte order",
    "kind" / EnumField(Int8un, Kind) * "what the event reports",
    "pf" / Int8un * "NFPROTO_IPV4 or NFPROTO_IPV6",
    "hook" / Int8un * "netfilter hook number (NF_INET_*)",
    "flags" / Int8un * "bits of enum event_flag",
    "protocol" / Int8un * "transport protocol (IPPROTO_*)",
    "tcp_flags" / Int8un * "byte 13 of the TCP header",
    "icmp_type" / Int8un * "type of ICMP or ICMPv6",
    "icmp_code" / Int8un * "code of ICMP or ICMPv6",
    "dmac" / Bytes(6) * "destination MAC address, if flags say so",
    "saddr" / Bytes(16) * "source address; IPv4 in the first four bytes",
    "daddr" / Bytes(16) * "destination address; IPv4 in the first four bytes",
    "in_name" / Chars(16) * "name of the interface it came in by",
    "out_name" / Chars(16) * "name of the interface it goes out by",
    "table" / Chars(limit("TABLE_NAME")) * "name of the table",
    "chain" / Chars(limit("CHAIN_NAME")) * "name of the chain; exit: of the hook's chain",
)

RECORDS: Final[dict[str, tuple[Struct, str]]] = {
    "batch": (Batch, "Header of a message of events."),
    "event": (Event, "What happened to a packet."),
}

# --- attributes ----------------------------------------------------------------------------------

Program: Final = AttributeSet(
    "program",
    "A program in a slot.",
    Attribute("slot", 1, U32, "role of the program", enum=Slot, minimum=1, maximum=max(Slot)),
    Attribute("fd", 2, U32, "request: file descriptor of the program"),
    Attribute("id", 3, U32, "id of the program in the kernel"),
    Attribute("tag", 4, BINARY, "tag of the program", max_length=limit("PROG_TAG")),
    Attribute("name", 5, STRING, "name of the program", max_length=limit("PROG_NAME") - 1),
)

ProgramSet: Final = AttributeSet(
    "program-set",
    "The programs of a link with their filter and cookie: replaced as one.",
    Attribute("program", 1, Program, "a program, once for each slot in use", multi=True),
    Attribute(
        "filter",
        2,
        BINARY,
        "request: classic-BPF filter (struct sock_filter[]) that runs on the packet, from its IP "
        "header on, before the entry program; a packet for which it returns 0 is passed over",
        max_length=limit("MAX_FILTER") * 8,
    ),
    Attribute("cookie", 3, U64, "what bpf_get_attach_cookie returns to the programs"),
    Attribute("filter-length", 4, U32, "reply: instructions of the filter"),
)

LinkStats: Final = AttributeSet(
    "link-stats",
    "What a link did so far, summed over the CPUs and the generations.",
    Attribute("packets", 1, U64, "packets that reached the hook"),
    Attribute("selected", 2, U64, "packets that the filter and the entry program selected"),
    Attribute("events", 3, U64, "events emitted, lost ones included"),
    Attribute("nested", 4, U64, "program runs left out: one was already running on the CPU"),
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

Top: Final = AttributeSet(
    "ipttrace",
    "Attributes of every message of the family.",
    Attribute("link", 1, U32, "id of the link", minimum=1),
    Attribute("hook", 2, U32, "hook that the link is attached to", enum=Hook),
    Attribute(
        "family",
        3,
        U32,
        "protocol family: 2 (NFPROTO_IPV4), 10 (NFPROTO_IPV6), or 0 for both",
        maximum=10,
    ),
    Attribute("flags", 4, U32, "bits of enum link-flag", maximum=sum(LinkFlag)),
    Attribute("programs", 5, ProgramSet, "the program set"),
    Attribute("generation", 6, U32, "generation of the program set, from 1"),
    Attribute(
        "expect-generation", 7, U32, "swap, detach: only if the link has this generation", minimum=1
    ),
    Attribute(
        "expect-program",
        8,
        Program,
        "swap: only if the program in slot has this id; 0 for an empty slot",
        multi=True,
    ),
    Attribute("owner-portid", 9, U32, "netlink port of the socket that owns the link; 0: nobody"),
    Attribute("owner-pid", 10, U32, "process that made the link"),
    Attribute("owner-comm", 11, STRING, "command of that process", max_length=15),
    Attribute(
        "armed",
        12,
        U32,
        "bits: 1, IPv4 tables are watched; 2, IPv6 tables are. A bit is missing while the module "
        "that holds the table code is not loaded",
    ),
    Attribute("stats", 13, LinkStats, "counters of the link"),
    Attribute("reason", 14, U32, "why the link went", enum=DetachReason),
    Attribute("batch", 15, BINARY, "header of the events in this message", record="batch"),
    Attribute("event", 16, BINARY, "an event", multi=True, record="event"),
    Attribute("cpu", 17, CpuStats, "event stream of a CPU", multi=True),
    Attribute("fingerprint", 18, U32, "checksum of the protocol's definition (CRC-32)"),
    Attribute("module-version", 19, STRING, "version of the module", max_length=63),
)

ATTRIBUTE_SETS: Final = (Top, ProgramSet, Program, LinkStats, CpuStats)

# --- commands ------------------------------------------------------------------------------------


class Group(enum.StrEnum):
    """Multicast groups."""

    EVENTS = "events"
    LINKS = "links"


class Command(Documented):
    """Messages of the family, requests and notifications."""

    ATTACH = 1, "make a link: put a program set to a hook"
    SWAP = 2, "replace a link's program set in one step; its generation grows by one"
    DETACH = 3, "remove a link"
    GET = 4, "one link, or all of them"
    STATS = 5, "the module: version, protocol fingerprint, event stream of each CPU"
    LINK_ATTACHED = 6, "notification: a link was made"
    LINK_SWAPPED = 7, "notification: a link has a new program set"
    LINK_DETACHED = 8, "notification: a link went"
    LINK_CHANGED = 9, "notification: table code came or went, so that armed changed"
    EVENTS = 10, "a batch of events of one CPU"


@dataclass(frozen=True)
class Operation:
    """What a command takes and what it answers; or, with ``group``, what is sent there."""

    command: Command
    request: tuple[str, ...] = ()
    reply: tuple[str, ...] = ()
    dump: bool = False
    group: Group | None = None
    notify: Command | None = None


_LINK: Final = (
    "link",
    "hook",
    "family",
    "flags",
    "programs",
    "generation",
    "owner-portid",
    "owner-pid",
    "owner-comm",
    "armed",
    "stats",
)

OPERATIONS: Final = (
    Operation(Command.ATTACH, ("hook", "family", "flags", "programs"), _LINK),
    Operation(Command.SWAP, ("link", "programs", "expect-generation", "expect-program"), _LINK),
    Operation(Command.DETACH, ("link", "expect-generation"), _LINK),
    Operation(Command.GET, ("link",), (*_LINK, "reason"), dump=True),
    Operation(Command.STATS, (), ("fingerprint", "module-version", "cpu")),
    Operation(Command.LINK_ATTACHED, notify=Command.GET, group=Group.LINKS),
    Operation(Command.LINK_SWAPPED, notify=Command.GET, group=Group.LINKS),
    Operation(Command.LINK_DETACHED, notify=Command.GET, group=Group.LINKS),
    Operation(Command.LINK_CHANGED, notify=Command.GET, group=Group.LINKS),
    Operation(Command.EVENTS, reply=("batch", "event"), group=Group.EVENTS),
)
