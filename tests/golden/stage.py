# SPDX-License-Identifier: GPL-2.0
"""The place where recorded requests make sense: a module just loaded, and descriptors by number."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.link.family import resolve_family
from ipttctl.link.wire import Connection
from ipttproto import (
    FAMILY,
    Acknowledgement,
    Action,
    Command,
    Done,
    Flag,
    Group,
    Hook,
    LinkFlag,
    Message,
    NfMode,
    Slot,
    SwapAck,
    SwapOutcome,
    Walk,
    build_request,
    parse_datagram,
)
from ipttproto.enumerations import Comparison, Counter
from ipttproto.messages import MessageHeader
from tests.golden.recording import Answer, Exchange, plain
from tests.kernel.support import assembler as asm
from tests.kernel.support.maps import PERCPU_ARRAY, one_element_map
from tests.kernel.support.network import Namespace, enter_namespace, namespace

#: descriptors in requests
TRACER, PACKET, PAYLOAD, NETNS, VERDICT = 200, 201, 202, 203, 204

_LOOPBACK: Final = 1
_MINUTES: Final = 600_000
_PASS_ALL: Final = struct.pack("=HBBI", 0x06, 0, 0, 0xFFFF)
_TABLE: Final = {"program": [{"slot": slot, "fd": TRACER} for slot in (1, 2, 3)]}
_EXIT: Final = {"program": _TABLE["program"][2:]}
_PACKET: Final = {"program": [{"slot": Slot.PACKET, "fd": PACKET}]}
_VERDICT: Final = {"program": [{"slot": Slot.PACKET, "fd": VERDICT}]}
_FUNCTION: Final = {"program": [{"slot": Slot.FUNCTION, "fd": TRACER}]}
_STEP: Final = {"program": [{"slot": Slot.STEP, "fd": TRACER}]}
_EMPTY_SLOT: Final = [{"slot": Slot.RULE, "id": 0}]
_LABELS: Final = {"label": [{"key": "team", "value": "core"}, {"key": "note", "value": ""}]}
#: they hold as long as the recording lasts
_GUARDS: Final = [
    {
        "counter": Counter.DROPS,
        "comparison": Comparison.BELOW,
        "threshold": 1_000_000,
        "per-time": 1000,
        "window": 60_000,
        "minimum": 10,
    },
    {
        "counter": Counter.NESTED,
        "comparison": Comparison.AT_MOST,
        "threshold": 900,
        "per-packets": 1000,
    },
]
#: it is not met as long as the recording lasts
_PROMOTE_IF: Final = [
    {
        "counter": Counter.DISAGREEMENTS,
        "comparison": Comparison.BELOW,
        "threshold": 1,
        "per-packets": 1_000_000,
        "window": 60_000,
    }
]
_VIOLATION: Final = {
    "condition": {**_GUARDS[0]},
    "link": 1,
    "count": 2_000_000,
    "packets": 3_000_000,
    "time": 60_000,
}
#: what link 1 was before
_RESTORE: Final = {
    "link": 1,
    "generation": 3,
    "transaction": 1,
    "owner-pid": 7,
    "owner-comm": "before",
    "stats": {
        "packets": 90,
        "selected": 80,
        "events": 70,
        "nested": 1,
        "lost": 2,
        "drops": 60,
        "left-out-sample": 30,
        "left-out-rate": 40,
        "left-out-governor": 50,
        "slot": [{"slot": Slot.PACKET, "runs": 80, "run-time": 8000}],
        "agreed": 5,
        "disagreed": 4,
        "shadow-runs": 9,
        "shadow-run-time": 900,
    },
    "past": [
        {
            "generation": 3,
            "action": Action.ROLLBACK_GUARD,
            "time": 1_700_000_000_000_000_000,
            "pid": 8,
            "uid": 9,
            "comm": "earlier",
            "program": [{"slot": Slot.PACKET, "id": 5, "tag": bytes(range(8)), "name": "old"}],
            "transaction": 1,
            "reason": "it dropped too much",
            "violation": _VIOLATION,
        }
    ],
    "outcome": SwapOutcome.ROLLBACK_GUARD,
    "violation": _VIOLATION,
}


#: link 1
_FILTER: Final[dict[str, Any]] = {
    "hook": Hook.NF,
    "family": 5,
    "hooknum": 0,
    "priority": 10,
    "netns_fd": NETNS,
    "ifindex": _LOOPBACK,
    "mode": NfMode.FILTER,
    "flags": LinkFlag.REPORT_DROPS | LinkFlag.PERSISTENT,
    "programs": _PACKET,
}


@dataclass(frozen=True)
class Step:
    """A request of the scenario, and the errno that it is meant to have; a dump or not."""

    command: Command
    attributes: Mapping[str, Any] = field(default_factory=dict)
    errno: int = 0
    dump: bool = False


def _step(command: Command, *, errno: int = 0, dump: bool = False, **attributes: Any) -> Step:
    named = {name.replace("_", "-"): value for name, value in attributes.items()}
    return Step(command, named, errno, dump)


#: links get the ids 1 to 7; link 1 gets its shadow with change 4, and its programs with change 5
_LIMITS: Final = {
    "sample": 2,
    "rate": 1_000_000,
    "budget-events": 1_000_000,
    "budget-cpu": 1000,
}
SCENARIO: Final = (
    _step(Command.STATS),
    # --- a link that is parked and restored
    _step(Command.ATTACH, **_FILTER),
    _step(Command.RESTORED, errno=errno.EINVAL),
    _step(Command.PARK, errno=errno.ESTALE, links_sequence=99),
    _step(Command.PARK, links_sequence=1, reason_text="an upgrade", force=1),
    _step(Command.PARK, dump=True),
    _step(Command.STATS),
    _step(Command.ATTACH, **_FILTER, restore=_RESTORE),
    _step(Command.RESTORED),
    # --- its shadow
    _step(
        Command.SHADOW,
        link=1,
        programs=_VERDICT,
        expect_generation=3,
        labels=_LABELS,
        force=1,
        promote_if=_PROMOTE_IF,
    ),
    _step(Command.GET, link=1),
    _step(
        Command.PROMOTE,
        link=1,
        expect_generation=3,
        expect_shadow=4,
        rollback_after=_MINUTES,
        guard=_GUARDS,
        reason_text="it agrees",
        force=1,
    ),
    _step(Command.GET, link=1),
    _step(Command.CONFIRM, transaction=5),
    _step(Command.RENAME, link=1, new_name="filter"),
    _step(
        Command.SHADOW,
        errno=errno.ESTALE,
        name="filter",
        programs=_VERDICT,
        expect_program=[{"slot": Slot.PACKET, "id": 0}],
    ),
    _step(Command.SHADOW, name="filter", programs=_VERDICT),
    _step(Command.DROP_SHADOW, errno=errno.ESTALE, link=1, expect_shadow=1),
    _step(Command.DROP_SHADOW, name="filter", expect_generation=4, force=1),
    _step(Command.PROMOTE, errno=errno.ENODATA, name="filter"),
    # --- links of the other kinds
    _step(
        Command.ATTACH,
        hook=Hook.TABLE,
        family=2,
        flags=LinkFlag.PERSISTENT | LinkFlag.COUNT_RULES,
        programs={**_TABLE, "filter": _PASS_ALL, "cookie": 7},
        name="first",
        labels=_LABELS,
        reason_text="a beginning",
    ),
    _step(
        Command.ATTACH,
        hook=Hook.NF,
        family=2,
        hooknum=3,
        priority=-300,
        netns_fd=NETNS,
        programs={**_PACKET, "payload-fd": PAYLOAD},
    ),
    _step(
        Command.ATTACH,
        hook=Hook.CHAIN,
        family=1,
        table="t",
        chain="c",
        netns_fd=NETNS,
        programs=_TABLE,
    ),
    _step(
        Command.ATTACH,
        hook=Hook.SPINE,
        family=2,
        hooknum=3,
        netns_fd=NETNS,
        programs=_FUNCTION,
    ),
    # --- a journey, and a link on it: neither is ever persistent
    _step(Command.ATTACH, hook=Hook.JOURNEY, programs=_STEP, journey_ways=2),
    _step(
        Command.ATTACH,
        hook=Hook.SPINE,
        family=2,
        hooknum=3,
        netns_fd=NETNS,
        journey=6,
        programs=_FUNCTION,
    ),
    _step(
        Command.ATTACH,
        errno=errno.EOPNOTSUPP,
        hook=Hook.JOURNEY,
        flags=LinkFlag.PERSISTENT,
        programs=_STEP,
    ),
    _step(
        Command.ATTACH,
        errno=errno.EOPNOTSUPP,
        hook=Hook.SPINE,
        flags=LinkFlag.PERSISTENT,
        journey=6,
        programs=_FUNCTION,
    ),
    _step(Command.ATTACH, errno=errno.EINVAL, hook=Hook.TABLE, journey=5, programs=_TABLE),
    _step(Command.RELEASE, errno=errno.EOPNOTSUPP, link=7),
    _step(Command.GET, link=6),
    _step(Command.GET, link=7),
    _step(Command.GET, link=2),
    _step(Command.GET, name="first"),
    _step(Command.GET, dump=True),
    # --- swaps
    _step(
        Command.SWAP,
        link=2,
        programs={**_TABLE, "limits": _LIMITS},
        expect_generation=1,
        rollback_after=_MINUTES,
        labels=_LABELS,
        reason_text="a canary",
        force=1,
        guard=_GUARDS,
    ),
    _step(Command.SWAP, errno=errno.EINPROGRESS, link=2, programs=_TABLE),
    _step(Command.CONFIRM, link=2, expect_generation=2),
    _step(Command.CONFIRM, errno=errno.EALREADY, link=2),
    _step(Command.SWAP, name="first", programs=_EXIT, force=1),
    _step(
        Command.TRANSACT,
        change=[
            {
                "name": "first",
                "programs": _TABLE,
                "expect-generation": 3,
                "expect-program": _EMPTY_SLOT,
                "labels": {},
            },
            {"link": 4, "programs": _TABLE},
        ],
        rollback_after=_MINUTES,
        reason_text="both",
        force=1,
        guard=_GUARDS,
    ),
    _step(Command.ROLLBACK, link=4, expect_generation=2, reason_text="a change of mind", force=1),
    _step(Command.ROLLBACK, errno=errno.ECANCELED, name="first"),
    _step(Command.ROLLBACK, errno=errno.ENOENT, transaction=1000),
    _step(Command.SWAP, name="first", programs=_TABLE, rollback_after=_MINUTES),
    _step(Command.CONFIRM, name="first"),
    _step(
        Command.TRANSACT,
        change=[{"link": 4, "programs": _TABLE}],
        swap_ack=SwapAck.EXPEDITED,
    ),
    _step(Command.HISTORY, link=2),
    _step(Command.HISTORY, name="first"),
    # --- owners and names
    _step(Command.ADOPT, name="first", flags=LinkFlag.EXCLUSIVE, force=1),
    _step(Command.RELEASE, link=2, force=1),
    _step(Command.ADOPT, link=2),
    _step(Command.RELEASE, name="first"),
    _step(Command.RENAME, name="first", new_name="second"),
    _step(Command.RENAME, link=4, new_name="first"),
    _step(Command.RENAME, errno=errno.EEXIST, link=4, new_name="second"),
    # --- what is known of the kernel
    _step(Command.RULESET, netns_fd=NETNS, family=2, table="filter"),
    _step(Command.VERIFY, netns_fd=NETNS),
    _step(Command.VERIFY, walk=Walk.VERIFIED, spine_walk=Walk.VERIFIED, walk_compared=0),
    # --- refusals
    _step(Command.DETACH, errno=errno.ENOENT, link=99),
    _step(Command.DETACH, errno=errno.ESTALE, link=3, expect_generation=9),
    _step(
        Command.SWAP,
        errno=errno.EINVAL,
        link=3,
        programs={"program": [{"slot": Slot.PACKET, "fd": NETNS}]},
    ),
    _step(Command.SWAP, errno=errno.ESTALE, link=4, programs=_TABLE, expect_program=_EMPTY_SLOT),
    # --- the end
    _step(Command.DETACH, link=3, expect_generation=1, reason_text="an end", force=1),
    _step(Command.DETACH, errno=errno.ESTALE, name="first", expect_program=_EMPTY_SLOT),
    _step(Command.DETACH, name="second"),
    _step(Command.DETACH, name="filter"),
    _step(Command.DETACH, link=5),
    _step(Command.DETACH, link=6),
    # the journey is gone; the link that was on it stays
    _step(Command.GET, link=7),
    _step(Command.DETACH, link=7),
    _step(Command.STATS),
    # the end of the set that this replaces is a change whose moment nobody knows: nothing follows
    _step(Command.SWAP, link=4, programs=_TABLE, swap_ack=SwapAck.PUBLISHED),
)


def request(step: Step) -> Exchange:
    """The request of a step, with nothing said yet."""
    whole = build_request(0, step.command, step.attributes, sequence=0)
    return Exchange(
        step.command.name.lower(),
        plain(step.attributes),
        step.dump,
        whole[MessageHeader.sizeof() :],
        step.errno,
    )


class Player:
    """A socket that exchanges messages as they are recorded; the family is where it is made."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
        self._socket.bind((0, 0))
        self._socket.settimeout(60)
        self._family = resolve_family(self._socket, FAMILY).id
        self._sequence = 0

    def close(self) -> None:
        """Close the socket: its links go."""
        self._socket.close()

    def exchange(self, request: bytes, *, dump: bool) -> tuple[int, list[Answer]]:
        """Send a request, given behind its netlink header; its errno, and the replies."""
        self._sequence += 1
        header = {
            "length": MessageHeader.sizeof() + len(request),
            "type": self._family,
            "flags": int(Flag.REQUEST | (Flag.DUMP if dump else Flag.ACK)),
            "sequence": self._sequence,
            "portid": 0,
        }
        self._socket.send(MessageHeader.build(header) + request)
        replies: list[Answer] = []
        while True:
            for answer in parse_datagram(self._family, self._socket.recv(1 << 18)):
                if isinstance(answer, Message):
                    replies.append(_answer(answer))
                elif isinstance(answer, Acknowledgement | Done):
                    return answer.errno, replies


class Observer:
    """A socket that receives the notifications of changes."""

    def __init__(self) -> None:
        self._connection = Connection.open()
        self._connection.join(Group.LINKS)

    def close(self) -> None:
        """Stop listening."""
        self._connection.close()

    def told(self) -> list[Answer]:
        """The notifications until now; those of a request come before its acknowledgement.

        That a set has ended may come before, or later.
        """
        found: list[Answer] = []
        while messages := self._connection.receive():
            found += [_answer(m) for m in messages if m.command != Command.LINK_ENDED]
        return found


def _answer(message: Message) -> Answer:
    name = Command(message.command).name.lower()
    return Answer(name, bytes(message.payload), plain(message.attributes()))


@contextmanager
def stage() -> Iterator[Namespace]:
    """The namespace, and the descriptors by their numbers; the caller is in that namespace.

    Recordings of released versions need it as it is: more may come, but nothing may go.
    """
    with ExitStack() as opened:
        place = opened.enter_context(namespace("golden"))
        # the kernel takes a last rule without conditions for the policy
        place.iptables("-A", "OUTPUT", "-p", "udp")
        place.iptables("-A", "OUTPUT", "-j", "ACCEPT")
        place.run(
            "nft", "table inet t { chain c { type filter hook output priority 5; accept; }; }"
        )
        payload = opened.enter_context(one_element_map(PERCPU_ARRAY, 16))
        inside = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC)
        opened.callback(os.close, inside)
        storing = asm.storing(payload, asm.mov(asm.R0, 5))
        given = {
            TRACER: _loaded(opened, "tracer", asm.returning(1)),
            PACKET: _loaded(opened, "packet", storing, ProgramType.SOCKET_FILTER),
            VERDICT: _loaded(opened, "verdict", asm.returning(1), ProgramType.SOCKET_FILTER),
            PAYLOAD: payload,
            NETNS: inside,
        }
        for number, descriptor in given.items():
            os.dup2(descriptor, number, inheritable=False)
            opened.callback(os.close, number)
        enter_namespace(place.path)
        yield place


def _loaded(
    opened: ExitStack, name: str, code: bytes, kind: ProgramType = ProgramType.KPROBE
) -> int:
    return opened.enter_context(Program.load(code, name=name, type=kind)).fd
