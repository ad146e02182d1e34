# SPDX-License-Identifier: GPL-2.0
"""The words for what happens in a story, which all forms of output have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final, TypeAlias

from ipttctl.escape import escape, word
from ipttctl.events import describe, protocols
from ipttctl.events.records import EventRecord
from ipttctl.families import NfFamily, family_name, ip_version
from ipttctl.show.rule import Rule, RulesOf
from ipttctl.show.story_reasons import OF_QUEUES, drop_words, used_up_words
from ipttctl.show.story_rules import Rules, blamed_at, is_reject, rule_words
from ipttctl.stories.ends import is_waiting
from ipttctl.stories.model import (
    Consultation,
    DeviceStep,
    EndKind,
    FunctionCall,
    PacketChange,
    PacketField,
    Passage,
    Plot,
    Story,
)
from ipttctl.stories.occurrences import Headers, freed
from ipttctl.stories.steps import OF_HOOKS
from ipttctl.system.namespace_names import NameAt
from ipttctl.system.peers import Device, Peer
from ipttctl.system.who import Participant, Receiver, Sending
from ipttproto import Conntrack, EventFlag, InetHook, Kind, Verdict

Part: TypeAlias = str | Callable[[Story], str]
"""A piece of output: the same for all packets of a plot, or made for each."""

SenderOf: TypeAlias = Callable[[Sending], Participant | None]
"""Gives the process that sent a packet; None: not known."""

SocketOf: TypeAlias = Callable[[int, int, int | None], Receiver | None]
"""Gives the socket of an inode number at a time, with a uid, and who holds it; None: not known."""

PeerOf: TypeAlias = Callable[[Device, int], Peer | None]
"""Gives the other end of a veth device at a time; None: there is none, or it is not known."""

Peers: TypeAlias = Mapping[int, Peer]
"""The other ends of devices, by the index of the event that names the device."""

ReasonOf: TypeAlias = Callable[[int], str | None]
"""Gives the name of a drop reason of the kernel, such as ``NO_SOCKET``; None: not known."""


@dataclass(frozen=True, kw_only=True)
class StorySources:
    """Sources of names: all are optional. What they cannot name is shown by its number.

    ``rules`` gives the rules of events, ``names`` those of network namespaces, ``sender`` the
    process that sent a packet, ``socket`` those that hold a socket, ``reason`` the name of a drop
    reason, ``peer`` the other end of a veth device.
    """

    rules: RulesOf | None = None
    names: NameAt | None = None
    sender: SenderOf | None = None
    socket: SocketOf | None = None
    reason: ReasonOf | None = None
    peer: PeerOf | None = None


_FIRST_SEEN: Final[Mapping[int, str]] = {
    Kind.JOURNEY_SENT: "first seen when a device sent it",
    Kind.JOURNEY_SOCKET: "first seen at a socket",
}
_VERSIONS: Final = {0x0800: 4, describe.IPV6: 6}
_FRAGMENT: Final = int(EventFlag.FRAGMENT)
_DSCP_SHIFT: Final = 2
_BRIDGE_NETFILTER: Final = "br_netfilter"
_EVENTS_LOST: Final = ", events were lost meanwhile"


@lru_cache(maxsize=1 << 14)
def _ends_of(headers: Headers, version: int | None, cut: int) -> tuple[str, str]:
    """Source and destination as text, with ports."""
    if version is None and headers.ethertype != describe.ARP:
        return "?", "?"
    source = describe.address(headers.saddr, version)
    destination = describe.address(headers.daddr, version)
    if version and headers.protocol in protocols.WITH_PORTS and not cut:
        if version == 6:
            source, destination = f"[{source}]", f"[{destination}]"
        return f"{source}:{headers.sport}", f"{destination}:{headers.dport}"
    return source, destination


@lru_cache(maxsize=1 << 14)
def _packet(headers: Headers, version: int | None, cut: int) -> str:
    """``tcp 192.0.2.7:51324 > 203.0.113.5:8080 SYN``."""
    if version is None and headers.ethertype != describe.ARP:
        return f"ethertype {describe.ethertype(headers.ethertype)}"
    source, destination = _ends_of(headers, version, cut)
    if headers.ethertype == describe.ARP:
        return f"arp {describe.arp_operation(headers.arp_operation)} {source} > {destination}"
    text = f"{protocol_name(headers)} {source} > {destination}"
    details = ""
    if cut:
        details = "fragment" if cut & _FRAGMENT else "truncated"
    elif headers.protocol == protocols.TCP:
        details = _tcp_flags(headers.tcp_flags)
    elif headers.protocol in {protocols.ICMP, protocols.ICMPV6}:
        details = protocols.icmp(headers.protocol, headers.icmp_type, headers.icmp_code)
    return f"{text} {details}".rstrip()


_tcp_flags = lru_cache(describe.tcp_flags)


@lru_cache(maxsize=256)
def _transport(number: int) -> str:
    return protocols.transport(number).lower()


def protocol_name(headers: Headers) -> str:
    """``tcp``; ``arp`` for what is not IP."""
    if headers.ethertype == describe.ARP:
        return "arp"
    return _transport(headers.protocol)


def version_at(plot: Plot, at: int, headers: Headers) -> int | None:
    """The IP version of the packet at an event."""
    return _VERSIONS.get(headers.ethertype) or ip_version(plot.record(at).pf)


def ends_at(story: Story, at: int) -> tuple[str, str]:
    """Source and destination of the packet at an event."""
    headers = story.headers[at]
    version = version_at(story.plot, at, headers)
    return _ends_of(headers, version, story.plot.cut(at))


def packet_at(story: Story, at: int) -> str:
    """The packet at an event in a few words."""
    headers = story.headers[at]
    version = version_at(story.plot, at, headers)
    return _packet(headers, version, story.plot.cut(at))


def came_in(plot: Plot) -> bool:
    """Whether the first event shows that the packet came in by a device."""
    record = plot.record(0)
    if record.kind not in OF_HOOKS:
        return record.kind == Kind.JOURNEY_RECEIVED
    outward = {"output", "postrouting", "out", "egress"}
    return bool(record.in_name) and describe.hook(record).lower() not in outward


def device_of(record: EventRecord) -> Device:
    """The device that an event is about: the one that sends the packet, or that it came in by."""
    index, name = record.in_ifindex, record.in_name
    if record.kind == Kind.JOURNEY_SENT:
        index, name = record.out_ifindex, record.out_name
    return Device(record.netns_cookie, record.netns, index, name.rstrip(b"\0"))


def device_ats(plot: Plot) -> Iterator[int]:
    """The events that name a device which sent the packet, or by which it came in."""
    if came_in(plot):
        yield 0
    yield from (step.at for step in plot.steps if isinstance(step, DeviceStep) and step.at)


def untold_peers(plot: Plot, peers: Peers) -> Peers:
    """The other ends but for those that the device before or after names anyway."""
    told = set()
    for sent, received in pairwise(one for one in plot.steps if isinstance(one, DeviceStep)):
        if not sent.sent or received.sent:
            continue
        for at, other in ((sent.at, received.at), (received.at, sent.at)):
            # the first event's device has no line if it sent the packet
            if at in peers and other and peers[at].is_of(device_of(plot.record(other))):
                told.add(at)
    return {at: peer for at, peer in peers.items() if at not in told}


def _with_peer(name: bytes, peer: Peer | None) -> str:
    """``veth3a1 (peer of eth0, namespace web)``."""
    return f"{word(name) or 'a device'}{f' ({peer})' if peer else ''}"


def elapsed(nanoseconds: int) -> str:
    """``81 us``, ``12.3 ms``, ``2.50 s``."""
    if nanoseconds < 10_000_000:
        return f"{nanoseconds // 1000} us"
    if nanoseconds < 1_000_000_000:
        return f"{nanoseconds / 1_000_000:.1f} ms"
    return f"{nanoseconds / 1_000_000_000:.2f} s"


def namespace_name(names: NameAt | None, story: Story, at: int) -> str:
    """The namespace of an event: its name then, or its number."""
    record = story.plot.record(at)
    name = names.name(record.netns_cookie, story.times[at]) if names else None
    return word(name) if name else str(record.netns)


def function_name(record: EventRecord) -> str:
    """The name of a function with its module: ``nf_nat_inet_fn (nf_nat)``."""
    name = word(record.chain) if record.chain else f"function #{record.rule_handle or '?'}"
    return f"{name} ({word(record.table)})" if record.table else name


def hook_label(record: EventRecord) -> str:
    """``PREROUTING``; ``bridge FORWARD``, ``netdev INGRESS`` of other families than IP."""
    name = describe.hook(record)
    if record.pf in {NfFamily.IPV4, NfFamily.IPV6}:
        return name
    return f"{family_name(record.pf)} {name}"


def verdict_words(record: EventRecord) -> str:
    """The verdict of a function: ``accept``, ``drop (EPERM)``, ``queue 3``, ``stolen``."""
    if freed(record) or (record.verdict == Verdict.DROP and record.verdict_data):
        return f"drop ({describe.error_name(record.verdict_data)})"
    if record.verdict == Verdict.QUEUE:
        return f"queue {record.verdict_data}"
    return describe.verdict_name(record.verdict).lower()


def field_words(plot: Plot, change: PacketChange) -> str:
    """A change of a field that is no address: ``mark 0x0 > 0x1``, ``TTL 64 > 63``."""
    before, after = plot.record(change.before), plot.record(change.after)
    match change.field:
        case PacketField.TTL:
            words = f"TTL {before.ttl} > {after.ttl}"
        case PacketField.TOS:
            words = _tos_words(before.tos, after.tos)
        case PacketField.CT_STATE:
            words = f"connection {_state(before.ct_state)} > {_state(after.ct_state)}"
        case PacketField.CT_ZONE:
            words = f"connection zone {before.ct_zone} > {after.ct_zone}"
        case PacketField.CT_MARK:
            words = f"connection mark 0x{before.ct_mark:x} > 0x{after.ct_mark:x}"
        case PacketField.PRIORITY:
            words = f"priority {before.skb_priority} > {after.skb_priority}"
        case _:
            words = f"mark 0x{before.mark:x} > 0x{after.mark:x}"
    return words


def way_words(plot: Plot, change: PacketChange) -> str:
    """Where a packet was when something changed between two hooks."""
    before = plot.record(change.before)
    if before.kind in OF_HOOKS and before.verdict == Verdict.QUEUE:
        return f"in queue {before.verdict_data} or on its way here"
    return "on its way here"


def _tos_words(before: int, after: int) -> str:
    if before >> _DSCP_SHIFT != after >> _DSCP_SHIFT:
        return f"DSCP {before >> _DSCP_SHIFT} > {after >> _DSCP_SHIFT}"
    return f"ECN {before & 3} > {after & 3}"


def _state(state: Conntrack | int) -> str:
    return describe.member(state).replace("_", " ")


def is_quiet(call: FunctionCall, plot: Plot) -> bool:
    """Whether a function accepted the packet and changed nothing that counts.

    Hooks of bridges at which br_netfilter hands a packet to those of IP count as little.
    """
    if has_changes(call):
        return False
    if call.at is None:
        return True
    record = plot.record(call.at)
    to_ip = call.at in plot.handed_on and word(record.table) == _BRIDGE_NETFILTER
    return record.verdict == Verdict.ACCEPT or to_ip


def has_changes(call: FunctionCall) -> bool:
    """Whether a function changed anything of the packet that somebody chose."""
    return any(not change.initial for change in call.changes)


def call_words(plot: Plot, at: int) -> str:
    """A function's verdict, in other words if it handed the packet on."""
    return "handed it on" if at in plot.handed_on else verdict_words(plot.record(at))


def consulted_tables(passage: Passage) -> Iterator[Consultation]:
    """The tables and chains of a passage."""
    return (one for call in passage.calls for one in call.consulted)


def blame_words(plot: Plot, at: int, rule: Rule | None) -> str:
    """The rule to blame: ``nft inet filter INPUT 2 "tcp dport 23 drop"``."""
    record = plot.record(at)
    if record.kind in {Kind.SPINE_FUNCTION, Kind.SPINE_EXIT}:
        where = f"at {hook_label(record)}"
        if record.kind == Kind.SPINE_EXIT:
            return f"a function {where}"
        error = f", {describe.error_name(record.verdict_data)}" if record.verdict_data else ""
        return f"{function_name(record)} {where}{error}"
    return rule_words(record, rule)


def place_words(plot: Plot, peers: Peers) -> str:
    """The last place where the packet was seen: ``after POSTROUTING``, ``sent by eth0``."""
    end = plot.end
    steps = [at for at in (end.device, end.socket, end.place) if at is not None]
    if not steps:
        return ""
    record = plot.record(at := max(steps))
    if record.kind == Kind.JOURNEY_SENT:
        return f"with {sent_words(record, peers.get(at))}, which sends it"
    if record.kind == Kind.JOURNEY_RECEIVED:
        return f"after it came in by {word(record.in_name) or 'a device'}"
    if record.kind == Kind.JOURNEY_SOCKET:
        return "at a socket"
    return f"after {hook_label(record)}"


def end_words(plot: Plot, rules: Rules, sources: StorySources, peers: Peers) -> Part:
    """The answer of stories; ``peers`` are the other ends that are told."""
    words = _end_words(plot, rules, sources, peers)
    if not plot.end.events_lost:
        return words
    if isinstance(words, str):
        return f"{words}{_EVENTS_LOST}"
    return lambda story: f"{words(story)}{_EVENTS_LOST}"


def _end_words(plot: Plot, rules: Rules, sources: StorySources, peers: Peers) -> Part:
    end = plot.end
    if end.kind.is_drop:
        return _drop_words(plot, rules, sources)
    if end.kind is EndKind.DELIVERED and end.socket is not None:
        socket = end.socket
        return lambda story: f"delivered to {socket_words(story, socket, sources)}"
    if end.kind is EndKind.LEFT and end.device is not None:
        words = f"left by {sent_words(plot.record(end.device), peers.get(end.device))}"
        return lambda story: f"{words}{_left_words(story)}"
    where = place_words(plot, peers)
    if end.kind is EndKind.CONSUMED and len(plot.branches) == len(plot.folded):
        where, at = f" {where}" if where else "", end.at
        if plot.record(at).kind == Kind.JOURNEY_DROPPED:
            return f"{used_up_words(word(plot.record(at).chain))}{where}"
        return lambda story: f"used up by the kernel ({protocol_name(story.headers[at])}){where}"
    return _other_words(plot, where)


def _other_words(plot: Plot, where: str) -> str:
    """The answer where it is the same for all packets of a way."""
    end = plot.end
    keeper = None if end.blame is None else plot.record(end.blame)
    gone = plot.record(end.at).kind == Kind.JOURNEY_FREED
    match end.kind:
        case EndKind.CONSUMED:
            words = f"used up {where}, its copies or parts went on"
        case EndKind.QUEUED if keeper is not None:
            words = f"went into queue {keeper.verdict_data}, and nothing was heard of it since"
        case EndKind.KEPT if keeper is not None:
            named = f"by {function_name(keeper)} " if keeper.kind == Kind.SPINE_FUNCTION else ""
            words = f"{'taken' if gone else 'kept'} {named}at {hook_label(keeper)}"
            if gone and len(plot.branches) > len(plot.folded):
                words += ", its copies or parts went on"
        case EndKind.JOINED if plot.record(end.at).kind == Kind.JOURNEY_JOINED:
            sent = plot.record(end.device) if end.device is not None else None
            if sent is not None and sent.kind == Kind.JOURNEY_SENT:
                where = f"behind {word(sent.out_name)}"
            words = f"merged into another packet (GRO) {where}"
        case EndKind.JOINED:
            words = f"put together with other {_parts(plot)} {where}"
        case EndKind.LOST:
            words = f"lost sight of {where}"
        case EndKind.OPEN if _waits(plot):
            words = f"waits for other fragments {where}"
        case EndKind.UNFINISHED:
            words = f"left unfinished{f' {where}' if where else ''}: {end.why}"
        case _:
            words = f"still open {where}"
    return words.rstrip()


def _parts(plot: Plot) -> str:
    """The kind of packet that became a part of another one, as a plural."""
    # what has not waited hangs on another packet, for whatever reason
    return "fragments" if _waits(plot) else "packets"


def _waits(plot: Plot) -> bool:
    """Whether the packet is a fragment that waits for others."""
    return is_waiting([one.record.kind for one in plot.occurrences])


def is_refused(plot: Plot) -> bool:
    """Whether a listening socket took the packet, and had no room for the connection."""
    end = plot.end
    at_end = plot.record(end.at).kind
    return end.kind is EndKind.KERNEL and end.socket is not None and at_end == Kind.JOURNEY_FREED


def _drop_words(plot: Plot, rules: Rules, sources: StorySources) -> Part:
    end = plot.end
    blamed = blamed_at(plot, rules)
    if blamed is not None:
        rule = rules.get(blamed)
        verb = "rejected" if is_reject(plot.record(blamed), rule) else "dropped"
        return f"{verb} by {blame_words(plot, blamed, rule)}"
    last = plot.record(end.at)
    reason = sources.reason(last.verdict_data) if sources.reason else None
    name = None if reason is None else word(reason)
    words = drop_words(name, last.verdict_data, word(last.chain))
    if is_refused(plot):
        words = "too many connections wait for it to accept them"
    if end.socket is not None:
        socket = end.socket
        return lambda story: f"dropped at {socket_words(story, socket, sources)}: {words}"
    queue = _queue_of(plot)
    if queue is None:
        return f"dropped: {words}"
    within = word(last.chain).partition(".")[0] in OF_QUEUES
    return f"dropped {'in' if within else 'after'} queue {queue}: {words}"


def _left_words(story: Story) -> str:
    """The addresses with which a packet left, as far as they are worth telling."""
    source, destination = ends_at(story, story.end.at)
    as_whom = f" as {source}" if source != "?" else ""
    to_whom = "" if destination == ends_at(story, 0)[1] else f" to {destination}"
    return f"{as_whom}{to_whom}"


def _queue_of(plot: Plot) -> int | None:
    """The queue that the packet went into last, if it was seen nowhere since.

    No event tells that it came back.
    """
    end = plot.end
    later = max((at for at in (end.device, end.socket) if at is not None), default=-1)
    if end.place is None or end.place < later:
        return None
    record = plot.record(end.place)
    return record.verdict_data if record.verdict == Verdict.QUEUE else None


def sender_of(story: Story, sources: StorySources) -> Participant | None:
    """The process that sent a packet, if it is known."""
    first = story.plot.record(0)
    if not sources.sender or not first.flags & EventFlag.PID:
        return None
    return sources.sender(Sending(first.pid_start, first.cgroup, first.pid, first.uid, first.comm))


def socket_of(story: Story, at: int, sources: StorySources) -> Receiver | None:
    """The socket of an event, if it is known."""
    named = story.named.get(at)
    if named is None or not sources.socket:
        return None
    return sources.socket(named.number, story.times[at], story.plot.record(at).verdict_data)


def socket_words(story: Story, at: int, sources: StorySources) -> str:
    """The socket of an event, by those who hold it or its number."""
    found = socket_of(story, at, sources)
    if found is not None:
        return escape(str(found))
    named = story.named.get(at)
    if named is None or not named.number:
        return "a socket that has no inode number"
    return f"socket {named.number} (uid {story.plot.record(at).verdict_data})"


def in_words(record: EventRecord, peer: Peer | None = None) -> str:
    """``in by eth0``; ``in by veth3a1 (peer of eth0, namespace web)``."""
    return f"in by {_with_peer(record.in_name, peer)}"


def sent_words(record: EventRecord, peer: Peer | None = None) -> str:
    """The device that sends a packet: ``eth0``, ``veth3a1 (peer of eth0, namespace web)``."""
    return _with_peer(record.out_name, peer)


def origin_words(story: Story, sources: StorySources) -> str:
    """Where the packet comes from: ``in by eth0``, ``from curl (pid 12)``."""
    plot = story.plot
    record = plot.record(0)
    if came_in(plot):
        return in_words(record)
    if record.flags & EventFlag.PID:
        sender = sender_of(story, sources)
        return f"from {escape(str(sender)) if sender else f'pid {record.pid}'}"
    if record.kind not in OF_HOOKS:
        return _FIRST_SEEN.get(record.kind, "first seen at its end")
    is_output = record.hook == InetHook.OUTPUT and ip_version(record.pf) is not None
    return "from this host" if is_output else f"first seen at {describe.hook(record)}"


def since_words(plot: Plot) -> str:
    """The moment that times are counted from."""
    if came_in(plot):
        return "after it came in"
    return (
        "after it was sent" if plot.record(0).flags & EventFlag.PID else "after it was first seen"
    )
