# SPDX-License-Identifier: GPL-2.0
"""The module's side of the protocol in user space, over a socket pair."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ipttctl.events.records import EventRecord
from ipttctl.link.family import Family
from ipttctl.link.wire import Connection
from ipttproto import (
    FAMILY,
    FINGERPRINT,
    MINOR,
    VERSION,
    Command,
    Conntrack,
    EventFlag,
    Feature,
    Flag,
    Hook,
    JoinedBatches,
    Kind,
    Layout,
    Loss,
    Walk,
    build_request,
    parse_batch,
)
from ipttproto.attributes import HEADER_SIZE, AttributeHeader, align
from ipttproto.family import Batch, Event, Top
from ipttproto.messages import (
    NLMSG_DONE,
    NLMSG_ERROR,
    PAYLOAD_OFFSET,
    ErrorAttributes,
    GenericHeader,
    MessageHeader,
)

FAMILY_ID = 29

LAUGHS = "- &a0 [x]\n" + "".join(
    f"- &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
"""A small YAML text that is large once its aliases are written out."""

#: verdicts of nftables that netfilter does not have, as events have them
NFT_CONTINUE, NFT_JUMP, NFT_GOTO, NFT_RETURN = (n & 0xFFFFFFFF for n in (-1, -3, -4, -5))


@dataclass
class RefusalError(Exception):
    """The exception with which a handler makes the module refuse a request."""

    errno: int
    extack: dict[str, Any] = field(default_factory=dict)


Handler = Callable[[Command, dict[str, Any]], Sequence[Mapping[str, Any]]]


class NetlinkSocket(socket.socket):
    """One end of a socket pair, which accepts a netlink socket's options."""

    def setsockopt(self, *_: Any) -> None:
        """Accept every option."""


class FakeModule:
    """Answers requests with the results of ``handlers``, and sends the messages of a test."""

    def __init__(self) -> None:
        self.handlers: dict[Command, Handler] = {
            Command.STATS: lambda *_: [status(walk=self.walk)],
            Command.GET: lambda *_: [link()],
            Command.VERIFY: self._verify,
        }
        self.walk = Walk.VERIFIED
        """The state of the walk through chains, which a request to verify it changes."""
        self.requests: list[tuple[Command, dict[str, Any]]] = []
        self.dump_flags: list[tuple[Flag, Flag]] = []
        """Further flags of the first part and of the end of each dump; a test fills it."""
        self.groups = {"events": 1, "links": 2, "namespaces": 3}
        self.socket_type = NetlinkSocket
        self.life = FAMILY_ID
        """The family's id: another one after the module was loaded again, 0 while it is not."""
        self.dump_error = 0
        """The error at the end of a dump."""
        self.failures: list[Exception] = []
        """Exceptions in handlers and in the sending of messages; ``close`` raises the first."""
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._due: list[tuple[int, tuple[bytes, ...]]] = []

    def connect(self) -> Connection:
        """A connection to this module."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ends.append(ours)
        thread = threading.Thread(target=self._serve, args=(ours,), daemon=True)
        thread.start()
        self._threads.append(thread)
        for count, messages in self._due:
            if count == len(self._ends):
                for message in messages:
                    ours.send(message)
        return Connection(
            self.socket_type(fileno=theirs.detach()),
            Family(self.life, dict(self.groups)),
            self._family,
        )

    def _family(self) -> Family | None:
        return Family(self.life, dict(self.groups)) if self.life else None

    def reload(self, life: int = FAMILY_ID + 1) -> None:
        """Be unloaded, and loaded again unless ``life`` is 0; connections of before learn of it."""
        gone, self.life = self.life, life
        for end in self._ends:
            end.send(family_gone(gone))

    def multicast(self, message: bytes) -> None:
        """Send a message to every connection."""
        for end in self._ends:
            # the listener may have gone
            with suppress(ConnectionError):
                end.send(message)

    def when_connected(self, count: int, *messages: bytes) -> None:
        """Send messages once there are that many connections: the last of them listens."""
        self._due.append((count, messages))

    def requested(self, command: Command) -> list[dict[str, Any]]:
        """The attributes of the requests of a kind so far."""
        return [attributes for c, attributes in self.requests if c == command]

    def close(self) -> None:
        """End all connections.

        Raises:
            Exception: something went wrong here, and not in the code under test.
        """
        for end in self._ends:
            end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for end in self._ends:
            end.close()
        self._ends.clear()
        self._threads.clear()
        if self.failures:
            raise self.failures[0]

    def _verify(self, _: Command, asked: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        self.walk = Walk(asked.get("walk", self.walk))
        return [{"walk": self.walk, "walk-compared": 1, "spine-walk": self.walk}]

    def _serve(self, end: socket.socket) -> None:
        # signals are for the thread that runs the command, which alone waits for some
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        # the requester may have gone
        with suppress(ConnectionError):
            while request := end.recv(1 << 17):
                for answer in self._answers_or_failure(request):
                    end.send(answer)

    def _answers_or_failure(self, request: bytes) -> list[bytes]:
        try:
            return self._answers(request)
        except Exception as failure:
            self.failures.append(failure)
            return [acknowledgement(request, errno.EIO)]

    def _answers(self, request: bytes) -> list[bytes]:
        header = MessageHeader.parse(request)
        if header.type != self.life:
            # as the kernel says it of a family that it does not know
            return [acknowledgement(request, errno.ENOENT)]
        generic = GenericHeader.parse(request[MessageHeader.sizeof() :])
        command = next(c for c in Command if c == generic.command)
        attributes = Top.parse(request[PAYLOAD_OFFSET:])
        self.requests.append((command, attributes))
        try:
            replies = self.handlers[command](command, attributes)
        except RefusalError as refusal:
            return [acknowledgement(request, refusal.errno, refusal.extack)]
        flags = end_flags = Flag(0)
        dump = header.flags & Flag.DUMP == Flag.DUMP
        if dump and self.dump_flags:
            flags, end_flags = self.dump_flags.pop(0)
        messages = [
            build_request(
                header.type,
                command,
                reply,
                sequence=header.sequence,
                flags=Flag(0) if number else flags,
            )
            for number, reply in enumerate(replies)
        ]
        if dump:
            return [*messages, done(header.sequence, end_flags, self.dump_error)]
        return [*messages, acknowledgement(request, 0)]


def acknowledgement(request: bytes, number: int, extack: Mapping[str, Any] | None = None) -> bytes:
    """The kernel's answer to ``request``: an errno, with an extended acknowledgement."""
    tlvs = ErrorAttributes.build(extack or {})
    body = (-number).to_bytes(4, "little", signed=True) + request[: MessageHeader.sizeof()] + tlvs
    sequence = MessageHeader.parse(request).sequence
    flags = Flag.CAPPED | (Flag.ACK_TLVS if extack else Flag(0))
    return _message(NLMSG_ERROR, flags, sequence, body)


def done(sequence: int, flags: int = 0, number: int = 0) -> bytes:
    """The end of a dump."""
    body = (-number).to_bytes(4, "little", signed=True)
    return _message(NLMSG_DONE, Flag.MULTI | flags, sequence, body)


def family_gone(family: int) -> bytes:
    """The kernel's message that a family is gone."""
    generic = GenericHeader.build({"command": 2, "version": 2, "reserved": 0})
    name = FAMILY.encode() + b"\0"
    attributes = b"".join(
        AttributeHeader.build({"length": HEADER_SIZE + len(value), "type": number})
        + value
        + bytes(align(len(value)) - len(value))
        for number, value in ((2, name), (1, family.to_bytes(2, sys.byteorder)))
    )
    return _message(16, Flag(0), 0, generic + attributes)


def notification(command: Command, attributes: Mapping[str, Any]) -> bytes:
    """A message to a group, of a change that came after the links were listed."""
    later = {"links-sequence": 1, **attributes}
    return build_request(FAMILY_ID, command, later, sequence=0, flags=Flag(0))


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    length = MessageHeader.sizeof() + len(body)
    header = {"type": kind, "flags": int(flags), "sequence": sequence, "portid": 0}
    return MessageHeader.build({"length": length, **header}) + body + bytes(align(length) - length)


def status(
    sequences: Sequence[int] = (0,),
    losses: Sequence[Sequence[int]] | None = None,
    fingerprint: int = FINGERPRINT,
    walk: Walk = Walk.VERIFIED,
    major: int = VERSION,
    features: Feature | None = None,
) -> dict[str, Any]:
    """The attributes of a stats reply; ``losses`` are in the order of ``Loss``, for each CPU."""
    losses = losses or [(0,) * len(Loss)] * len(sequences)
    return {
        "fingerprint": fingerprint,
        "protocol-major": major,
        "protocol-minor": MINOR,
        "features": sum(Feature) if features is None else features,
        "module-version": "0.1.0",
        "walk": walk,
        "spine-walk": walk,
        "walk-compared": 1,
        "walk-layout": Layout.SAME,
        "cpu": [
            {
                "cpu": cpu,
                "sequence": sequence,
                **{f"lost-{c.name.lower()}": lost[c] for c in Loss},
            }
            for cpu, (sequence, lost) in enumerate(zip(sequences, losses, strict=True))
        ],
    }


def in_traffic(module: FakeModule) -> Iterator[int]:
    """Simulate endless traffic: each status comes with a batch, and is one event ahead of it.

    Yields the number of batches so far.
    """
    numbers = itertools.count()

    def tell(*_: Any) -> Sequence[Mapping[str, Any]]:
        number = next(numbers)
        module.multicast(events_message([event()], sequence=number))
        return [status([number + 2], walk=module.walk)]

    module.handlers[Command.STATS] = tell
    return numbers


def link(**changes: Any) -> dict[str, Any]:
    """The attributes of a link."""
    return {
        "link": 3,
        "hook": 1,
        "family": 0,
        "flags": 0,
        "programs": {
            "program": [
                {"slot": 1, "id": 12, "tag": bytes(range(8)), "name": "trace_entry"},
                {"slot": 3, "id": 13, "tag": bytes(8), "name": ""},
            ],
            "cookie": 5,
            "filter-length": 4,
        },
        "generation": 2,
        "owner-portid": 77,
        "owner-pid": 1234,
        "owner-comm": "ipttctl",
        "armed": 1,
        "stats": {"packets": 9, "selected": 5, "events": 20, "nested": 1},
        **changes,
    }


def nf_link(**changes: Any) -> dict[str, Any]:
    """The attributes of a link at the ingress of a device."""
    return link(
        link=4,
        hook=2,
        family=5,
        hooknum=0,
        priority=-10,
        netns=4026532201,
        **{"netns-cookie": 5},
        ifindex=2,
        ifname="eth0",
        mode=2,
        flags=2,
        programs={
            "program": [{"slot": 4, "id": 21, "tag": bytes(range(8)), "name": "drop"}],
            "payload-map": 33,
            "payload-size": 16,
        },
        generation=1,
        armed=4,
        stats={
            "packets": 10,
            "selected": 9,
            "events": 3,
            "lost": 1,
            "drops": 3,
            "slot": [{"slot": 4, "runs": 9, "run-time": 900}],
        },
    ) | {"rollback-in": 1500, **changes}


def chain_link(**changes: Any) -> dict[str, Any]:
    """The attributes of a link at a base chain of nftables, in one network namespace."""
    return link(
        link=5,
        hook=Hook.CHAIN,
        family=1,
        table="filter",
        chain="out",
        netns=4026532201,
        **{"netns-cookie": 5},
        armed=8,
    ) | {**changes}


def event(**changes: Any) -> dict[str, Any]:
    """The members of an event: a rule of OUTPUT matched a TCP segment over IPv4."""
    members: dict[str, Any] = {
        "time": 5_000_000_000,
        "skb": 0xFFFF888012345678,
        "cost": 0,
        "link": 3,
        "generation": 1,
        "traversal": 7,
        "netns": 4026531840,
        "netns_cookie": 1,
        "table_handle": 0,
        "chain_handle": 0,
        "rule_handle": 0,
        "packet": 0,
        "pid_start": 8_000_000_000,
        "cgroup": 5,
        "pid": 4321,
        "uid": 33,
        "in_ifindex": 0,
        "out_ifindex": 2,
        "physin_ifindex": 0,
        "physout_ifindex": 0,
        "mark": 0,
        "length": 60,
        "ruleset": 0,
        "rulenum": 1,
        "rules": 1,
        "verdict": 0,
        "verdict_data": 0,
        "priority": 0,
        "skb_priority": 0,
        "ct_mark": 0,
        "ct_id": 0,
        "sport": 22,
        "dport": 53030,
        "icmp_id": 0,
        "ethertype": 0x0800,
        "arp_operation": 0,
        "flags": 0,
        "depth": 0,
        "ct_zone": 0,
        "ct_state": 0,
        "ttl": 0,
        "tos": 0,
        "kind": Kind.RULE,
        "pf": 2,
        "hook": 3,
        "family": 0,
        "protocol": 6,
        "tcp_flags": 0x18,
        "icmp_type": 0,
        "icmp_code": 0,
        "dmac": bytes.fromhex("0a0b0c0d0e0f"),
        "saddr": socket.inet_aton("192.168.1.138") + bytes(12),
        "daddr": socket.inet_aton("192.168.1.12") + bytes(12),
        "comm": b"curl".ljust(16, b"\0"),
        "in_name": bytes(16),
        "out_name": b"enp0s8".ljust(16, b"\0"),
        "physin_name": bytes(16),
        "physout_name": bytes(16),
        "table": b"filter".ljust(32, b"\0"),
        "chain": b"OUTPUT".ljust(32, b"\0"),
        "target": bytes(32),
    }
    unknown = changes.keys() - members.keys()
    assert not unknown, unknown
    for name, value in changes.items():
        if isinstance(members[name], bytes) and isinstance(value, bytes):
            value = value.ljust(len(members[name]), b"\0")  # noqa: PLW2901 - the same value, padded
        members[name] = value
    return members


def chain_event(**changes: Any) -> dict[str, Any]:
    """The members of an event: a rule of a base chain at OUTPUT jumped, in an inet table."""
    jumped = {
        "kind": Kind.CHAIN_RULE,
        "flags": EventFlag.COUNTED,
        "family": 1,
        "table_handle": 3,
        "chain_handle": 1,
        "rule_handle": 9,
        "ruleset": 7,
        "verdict": NFT_JUMP,
        "chain": b"out",
        "target": b"near",
    }
    return event(**jumped | changes)


def spine_event(**changes: Any) -> dict[str, Any]:
    """The members of an event: conntrack accepted a packet at the output hook."""
    tracked = {
        "kind": Kind.SPINE_FUNCTION,
        "flags": EventFlag.COUNTED | EventFlag.PRIORITY,
        "rule_handle": 12,
        "rulenum": 2,
        "rules": 2,
        "verdict": 1,
        "priority": -200,
        "ct_state": Conntrack.NEW,
        "ttl": 64,
        "table": b"nf_conntrack",
        "chain": b"ipv4_conntrack_local",
    }
    return event(**tracked | changes)


def batch_payload(
    events: Sequence[Mapping[str, Any]],
    *,
    cpu: int = 0,
    sequence: int = 0,
    lost: Sequence[int] = (0, 0, 0),
    clock_offset: int = 1_000_000_000_000_000_000,
    count: int | None = None,
    payloads: Mapping[int, bytes] | None = None,
) -> bytes:
    """The attributes of an events message."""
    header = Batch.build(
        {
            "sequence": sequence,
            "lost": lost,
            "clock_offset": clock_offset,
            "cpu": cpu,
            "count": len(events) if count is None else count,
            "event_size": Event.sizeof(),
            "reserved": 0,
        }
    )
    attributes: dict[str, Any] = {
        "batch": header,
        "event": [Event.build(dict(e)) for e in events],
        "payload": [{"event": e, "data": data} for e, data in (payloads or {}).items()],
    }
    return Top.build(attributes)


def joined(*records: EventRecord) -> JoinedBatches:
    """Events as they are when they are read together, each in a batch of its own."""
    members = event()
    return JoinedBatches.of(
        parse_batch(
            batch_payload(
                [event(**{name: getattr(record, name) for name in members})],
                cpu=record.cpu,
                sequence=record.sequence,
                clock_offset=record.clock_offset,
                payloads={0: record.payload} if record.payload else None,
            )
        )
        for record in records
    )


def events_message(events: Sequence[Mapping[str, Any]], **batch: Any) -> bytes:
    """A message of events, as sent to the group."""
    payload = batch_payload(events, **batch)
    generic = GenericHeader.build({"command": Command.EVENTS, "version": 1, "reserved": 0})
    return _message(FAMILY_ID, Flag(0), 0, generic + payload)


def no_such_link(*_: Any) -> Sequence[Mapping[str, Any]]:
    """A handler that refuses: there is no link with the id."""
    raise RefusalError(errno.ENOENT, {"message": "there is no such link", "offset": PAYLOAD_OFFSET})


def interrupt_when_handled() -> None:
    """Interrupt this process, once it has another handler for that than now."""
    before = signal.getsignal(signal.SIGINT)

    def send() -> None:
        while signal.getsignal(signal.SIGINT) == before:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=send, daemon=True).start()


def when_attached(module: FakeModule, *messages: bytes) -> None:
    """Send messages as soon as a link is requested."""

    def attach(*_: Any) -> Sequence[dict[str, Any]]:
        for message in messages:
            module.multicast(message)
        return [link(generation=1)]

    module.handlers[Command.ATTACH] = attach
