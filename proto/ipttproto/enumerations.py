# SPDX-License-Identifier: GPL-2.0
"""The enumerations of the family ``ipttrace``. Numbers are never reused."""

from __future__ import annotations

import enum
from typing import Final, Self, TypeAlias, TypeVar

_Member = TypeVar("_Member", bound="Documented | DocumentedFlag")


def _make(cls: type[_Member], value: int, doc: str, since: Feature | None) -> _Member:
    member: _Member = int.__new__(cls, value)
    member._value_ = value
    member.doc = doc
    member.since = since
    return member


class Documented(enum.IntEnum):
    """An enumeration whose members have a description, and perhaps the feature they came with."""

    doc: str
    since: Feature | None

    def __new__(cls, value: int, doc: str = "", since: Feature | None = None) -> Self:
        """Make a member with its description."""
        return _make(cls, value, doc, since)

    def __init_subclass__(cls) -> None:
        """Add the enumeration to the definition."""
        DEFINED.append(cls)


class DocumentedFlag(enum.IntFlag):
    """Bits that have a description, and perhaps the feature that they came with."""

    doc: str
    since: Feature | None

    def __new__(cls, value: int, doc: str = "", since: Feature | None = None) -> Self:
        """Make a bit with its description."""
        return _make(cls, value, doc, since)

    def __init_subclass__(cls) -> None:
        """Add the bits to the definition."""
        DEFINED.append(cls)


DocumentedType: TypeAlias = type[Documented] | type[DocumentedFlag]

DEFINED: Final[list[DocumentedType]] = []
"""The enumerations of the protocol, in the order in which they are defined."""


class Feature(DocumentedFlag):
    """An ability of a module that not every module of the major version has."""

    LINK_NAMES = 1, "names, labels and reasons of links; exclusive owners, force; rename, release"
    GUARDS = 2, "rollback on request; guards of swaps, and what became of a swap"
    SHADOWS = 4, "shadows of links, with conditions on which they are promoted"
    UPGRADES = 8, "links are parked, and restored by the next module"
    ENDS = 16, "when a swap is answered (swap-ack), and the end of the sets that it replaces"
    LIMITS = 32, "program sets that leave out events of whole packets: sample, rate, budgets"
    SPINE = 64, "links at the spine: every hook function that a packet meets"
    JOURNEYS = 128, "journeys: packets are followed from hook to hook, with copies and ends"


class Hook(Documented):
    """A place where programs run."""

    TABLE = 1, "iptables' tables: ipt_do_table and ip6t_do_table"
    NF = 2, "a netfilter hook of a network namespace"
    CHAIN = 3, "nftables' chains: nft_do_chain"
    SPINE = 4, "the functions that are registered at netfilter hooks: nf_hook_slow", Feature.SPINE
    JOURNEY = (
        5,
        "the steps of followed packets between hooks: copies, devices, sockets, ends",
        Feature.JOURNEYS,
    )


class Slot(Documented):
    """A program's role at a hook."""

    ENTRY = 1, "at entry of a table, base chain or hook; its return value selects the packet"
    RULE = 2, "at each rule that a selected packet matches; non-zero emits an event"
    EXIT = 3, "when a selected packet leaves that again; non-zero emits an event"
    PACKET = 4, "nf: at each packet; observe: non-zero emits an event; filter: 0 drops the packet"
    FUNCTION = (
        5,
        "spine: after each function of a hook that a selected packet met; non-zero emits an event",
        Feature.SPINE,
    )
    STEP = (
        6,
        "journey: at each step of a followed packet; non-zero emits an event",
        Feature.JOURNEYS,
    )


TABLE_SLOTS: Final = (Slot.ENTRY, Slot.RULE, Slot.EXIT)
"""The slots of tables and of chains."""

SPINE_SLOTS: Final = (Slot.ENTRY, Slot.FUNCTION, Slot.EXIT)
"""The slots of the spine."""

JOURNEY_SLOTS: Final = (Slot.STEP,)
"""The slots of a journey."""


class Select(DocumentedFlag):
    """Bits that an entry program returns; any non-zero value selects the packet."""

    PACKET = 1, "follow the packet through this table or base chain: rule and exit programs run"


class Emit(DocumentedFlag):
    """Bits that a rule or an exit program returns; any non-zero value emits an event."""

    EVENT = 1, "emit an event"


class Kind(Documented):
    """Kinds of events."""

    RULE = 1, "a rule matched"
    RETURN = 2, "the packet reached the RETURN at the end of a user chain"
    POLICY = 3, "the packet reached the policy of a built-in chain"
    EXIT = 4, "the packet left the table with a verdict"
    PACKET = 5, "nf: a packet passed the hook, or was dropped there: see the verdict"
    CHAIN_RULE = 6, "chain: a rule matched: see the verdict, and the target of a jump"
    CHAIN_END = 7, "chain: the packet reached the end of a chain that is not a base chain"
    CHAIN_POLICY = 8, "chain: the packet reached the policy of the base chain"
    CHAIN_EXIT = 9, "chain: the packet left the base chain with a verdict"
    KNOWN = 10, "the nat table was not consulted: NAT knows the packet's connection"
    CHAIN_KNOWN = 11, "chain: a NAT chain was not consulted: NAT knows the packet's connection"
    DISAGREE = 12, "nf: the link's shadow decided otherwise than the link: see both verdicts"
    LEFT_OUT = 13, "of no packet: the link's limits leave packets out; their numbers so far"
    SPINE_FUNCTION = (
        14,
        "spine: a function of the hook returned: see the verdict, and the packet as it left it",
        Feature.SPINE,
    )
    SPINE_EXIT = 15, "spine: the packet left the hook with a verdict", Feature.SPINE
    JOURNEY_COPY = (
        16,
        "journey: the packet is a new copy, or a part, of another one: see rule_handle",
        Feature.JOURNEYS,
    )
    JOURNEY_SENT = (
        17,
        "journey: the packet was handed to a device, which sends it",
        Feature.JOURNEYS,
    )
    JOURNEY_RECEIVED = 18, "journey: the packet came in by a device", Feature.JOURNEYS
    JOURNEY_SOCKET = (
        19,
        "journey: the packet came to a socket, which takes it unless it is dropped next",
        Feature.JOURNEYS,
    )
    JOURNEY_DROPPED = 20, "journey: the packet was dropped: see verdict_data", Feature.JOURNEYS
    JOURNEY_FREED = 21, "journey: the packet was used up: sent, read or answered", Feature.JOURNEYS
    JOURNEY_LOST = (
        22,
        "journey: the packet came by nowhere for a long time, and is not followed any more",
        Feature.JOURNEYS,
    )
    JOURNEY_JOINED = (
        23,
        "journey: GRO merges the packet into another one, unless it goes on: see rule_handle",
        Feature.JOURNEYS,
    )
    JOURNEY_WAITS = (
        24,
        "journey: a fragment waits for the others of the whole that rule_handle names",
        Feature.JOURNEYS,
    )
    JOURNEY_WHOLE = (
        25,
        "journey: the packet is the whole that fragments have waited for: see rule_handle",
        Feature.JOURNEYS,
    )


class EventFlag(DocumentedFlag):
    """Bits of an event's ``flags``."""

    PID = 1, "pid, pid_start, cgroup, uid and comm are the sender's: it happened in its context"
    DMAC = 2, "dmac is valid"
    FOREIGN = 4, "somebody else's TRACE follows the packet too"
    FRAGMENT = 8, "not the first fragment: there are no ports"
    TRUNCATED = 16, "the packet ends before its transport header does"
    PAYLOAD = 32, "the program added bytes of its own: a payload of the message has them"
    COUNTED = 64, "rules is valid: the matching rules of this passage are counted"
    QUEUE_BYPASS = 128, "rule, exit: the packet passes if nobody listens at the queue"
    UNCERTAIN = 256, "table, chain: the ruleset was changing; the rule may be of a later one"
    PRIORITY = 512, "spine: priority is valid: the function was not being removed", Feature.SPINE
    UNSAID = 1024, "journey: dropped, and the kernel gives no reason", Feature.JOURNEYS
    QUEUE_FULL = (
        2048,
        "journey: a SYN came to a socket that has as many connections to accept as it may",
        Feature.JOURNEYS,
    )


class Conntrack(Documented):
    """State of a packet in connection tracking (enum ip_conntrack_info)."""

    NONE = 0, "it has none: it has not come to connection tracking, or there is none"
    UNTRACKED = 1, "it is not tracked, by order of a rule"
    NEW = 2, "it opens a connection"
    ESTABLISHED = 3, "it is of a connection that has seen both directions, in the original one"
    RELATED = 4, "it opens a connection, or is an error, that belongs to a known one"
    REPLY = 5, "it is of a connection, in the reply direction"
    RELATED_REPLY = 6, "it is an error that belongs to a known one, in the reply direction"


class Loss(Documented):
    """Why something was not seen; indexes the batch's ``lost``."""

    RING = 0, "events: the CPU's ring was full"
    MEMORY = 1, "events: no memory for the message that was to carry them"
    NESTED = 2, "program runs: a program was already running on this CPU"


class LinkFlag(DocumentedFlag):
    """Bits of a link's ``flags``."""

    PERSISTENT = 1, "the link outlives the socket that made it"
    REPORT_DROPS = 2, "nf, mode filter: each packet that the link drops is an event"
    COUNT_RULES = 4, "table: exit events tell how many rules matched, without a rule program too"
    EXCLUSIVE = (
        8,
        "nobody but its owner swaps, detaches, adopts or releases the link, unless by force",
        Feature.LINK_NAMES,
    )


class NfMode(Documented):
    """Meaning of the return value of a program at a netfilter hook."""

    OBSERVE = 1, "non-zero emits an event; the packet goes on"
    FILTER = 2, "0 drops the packet, anything else lets it go on"


class Gone(Documented):
    """Why an nf link is at no hook any more."""

    NETNS = 1, "its network namespace was deleted; also of a link at chains or the spine"
    DEVICE = 2, "its device was removed, or went to another network namespace"


class Walk(Documented):
    """Whether a walk of ours, through chains or along the spine, may stand in for the kernel's."""

    UNVERIFIED = 1, "not verified: such links are taken for the verifier's namespaces only"
    VERIFIED = 2, "it did what the kernel's loop does: such links are taken"
    DIFFERS = 3, "it differed from the kernel's loop: for the verifier's namespaces only, as before"


class Layout(Documented):
    """Whether the kernel has nf_tables' structures where the module was compiled to find them."""

    UNCHECKED = 1, "not known yet: nf_tables is not loaded"
    SAME = 2, "it has, by its own description of its types (BTF)"
    DIFFERS = 3, "it has not: chain links are refused"
    UNKNOWN = 4, "it does not describe them: chain links are refused but for the verifier's"


class Action(Documented):
    """How a generation of a link came about."""

    ATTACH = 1, "the link was made"
    SWAP = 2, "somebody replaced the program set, alone or with those of other links"
    ROLLBACK = 3, "a swap was not confirmed in time: the module put the set before it back"
    ROLLBACK_REQUEST = 4, "somebody had a swap that waited rolled back"
    ROLLBACK_GUARD = 5, "a guard of a swap that waited did not hold: the module rolled it back"
    PROMOTE = 6, "somebody had the link's shadow take the place of the program set"
    PROMOTE_IF = 7, "what the promotion of the link's shadow waited for was met: the module made it"


class DetachReason(Documented):
    """Why a link went."""

    REQUEST = 1, "somebody asked for it"
    OWNER = 2, "the socket that owned it was closed"
    UPGRADE = 3, "it was parked: the next module restores it"


class Counter(Documented):
    """A counter of a link that a condition is about."""

    PACKETS = 1, "packets that reached the hook"
    SELECTED = 2, "packets that were selected"
    EVENTS = 3, "events emitted, lost ones included"
    NESTED = 4, "program runs left out"
    LOST = 5, "events lost because the CPU's ring was full"
    DROPS = 6, "packets that the link dropped"
    RUNS = 7, "program runs in all slots"
    AGREEMENTS = (
        8,
        "packets for which the link's shadow had the link's verdict",
        Feature.SHADOWS,
    )
    DISAGREEMENTS = 9, "packets for which it had another verdict", Feature.SHADOWS


class Comparison(Documented):
    """How a condition compares a counter with its threshold."""

    BELOW = 1, "<"
    AT_MOST = 2, "<="
    ABOVE = 3, ">"
    AT_LEAST = 4, ">="


class SwapAck(Documented):
    """When a swap is answered, if not once no packet is handled by the sets that it replaces.

    A swap that can be rolled back is always answered then.
    """

    PUBLISHED = 1, "once the new sets are in force; link-ended notifies of the end of the others"
    EXPEDITED = 2, "as without, but every CPU is interrupted, so that it takes less time"


class SwapOutcome(Documented):
    """Outcome of the last swap of a link, if it was not for good from the beginning."""

    WAITING = 1, "it waits to be confirmed or rolled back"
    CONFIRMED = 2, "it was confirmed"
    ROLLBACK = 3, "it was rolled back: nobody confirmed it in time"
    ROLLBACK_REQUEST = 4, "it was rolled back: somebody asked for that"
    ROLLBACK_GUARD = 5, "it was rolled back: a guard did not hold"
