# SPDX-License-Identifier: GPL-2.0
"""Numbers of packets: none is given to two packets, and no packet gets two.

The kernel uses the addresses of packets again at once. Each packet here is known by its ports:
IPTT_IDENTITY=1000000 sends so many.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from ipttctl.bpf.filters import compile_filter
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttctl.link.streams import EventStream
from ipttproto import EventBatch, Kind, Slot
from ipttproto.arrays import np, npt
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import run
from tests.kernel.support.network import Namespace, Network, network

PACKETS = int(os.environ.get("IPTT_IDENTITY", "10000"))
#: packets that are checked together, and that are sent at a time: their events have room
TOGETHER = 4096
BURST = 256
PORTS = 50000
SOURCE = 20000
PATIENCE = 120
ENDS = (Kind.JOURNEY_DROPPED, Kind.JOURNEY_FREED)
KEPT = np.dtype(
    [
        ("packet", np.uint64),
        ("time", np.uint64),
        ("sport", np.uint16),
        ("dport", np.uint16),
        ("kind", np.uint16),
        ("protocol", np.uint8),
    ]
)

Events = npt.NDArray[np.void]

RULES = """
table ip t {
    chain forward { type filter hook forward priority 0; numgen inc mod 3 0 drop; }
    chain pre { type filter hook prerouting priority 0; numgen inc mod 5 0 dup to 10.77.2.2; }
}
"""
COUNTING = "table ip t {\nchain in { type filter hook input priority 0; counter; }\n}\n"


def nft(where: Namespace, text: str) -> None:
    run("ip", "netns", "exec", where.name, "nft", "-f", "-", text=text)


@pytest.fixture
def three() -> Iterator[Network]:
    with network("j") as made:
        made.left.ping("10.77.2.2", "-c", "1")
        nft(made.router, RULES)
        nft(made.right, COUNTING)
        yield made


def send_numbered(address: str, orders: Any) -> None:
    """Send as many datagrams as ordered, each from and to a pair of ports that no other has."""
    senders: dict[int, socket.socket] = {}
    while order := orders.recv():
        first, count = order
        for number in range(first, first + count):
            port = SOURCE + number // PORTS
            if port not in senders:
                senders = {port: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)}
                senders[port].bind(("", port))
            # a router that drops, and a host where nobody listens, may say so to the next one
            with suppress(OSError):
                senders[port].sendto(b"x" * (number % 97), (address, 1 + number % PORTS))


class Reader:
    """Reads the events of datagrams, and counts those that have ended."""

    def __init__(self, events: EventStream) -> None:
        self._events = events
        self._parts: list[Events] = []
        self._ended = 0

    def read_until_ended(self, count: int) -> None:
        """Read until so many originals have ended, since the last ``take``."""
        end = time.monotonic() + PATIENCE
        while self._ended < count:
            assert time.monotonic() < end, f"{self._ended} of {count} ended: {self._events.losses}"
            self._add(self._events.read(1))

    def take(self) -> Events:
        """All events since the last time, in the order of their times."""
        self._add(self._events.drain())
        assert not self._events.losses.events
        told = np.concatenate(self._parts)
        self._parts = []
        self._ended = 0
        return told[np.argsort(told["time"], kind="stable")]

    def _add(self, batches: Iterable[EventBatch]) -> None:
        for batch in batches:
            kinds = batch.events["kind"]
            # each copy ends too
            copies = int(np.count_nonzero(kinds == Kind.JOURNEY_COPY))
            self._ended += int(np.count_nonzero(np.isin(kinds, ENDS))) - copies
            # without the members between them, as a view would keep them
            part = np.empty(len(kinds), KEPT)
            for name in KEPT.names or ():
                part[name] = batch.events[name]
            self._parts.append(part)


def test_numbers_when_addresses_are_used_again(
    three: Network, controller: Controller, make_program: MakeProgram
) -> None:
    program = make_program(asm.returning(1)).fd
    orders, received = multiprocessing.Pipe()
    sender = three.left.start(send_numbered, "10.77.2.2", received)
    last = copies = 0
    with controller.events() as events:
        journey = controller.attach(JourneyHook(), ProgramSet({Slot.STEP: program}))
        before = journey.hook
        assert isinstance(before, JourneyHook)
        programs = ProgramSet({Slot.EXIT: program}, compile_filter("udp"))
        controller.attach(SpineHook(), programs, journey=journey.id)
        reader = Reader(events)
        for first in range(0, PACKETS, TOGETHER):
            count = min(TOGETHER, PACKETS - first)
            for sent in range(0, count, BURST):
                burst = min(BURST, count - sent)
                orders.send((first + sent, burst))
                reader.read_until_ended(sent + burst)
            told = reader.take()
            # later than all before
            assert told["packet"].min() > last
            last = told["packet"].max()
            copies += check_numbers(told, first, count)
            check_ends(told)
        hook = controller.link(journey.id).hook
    orders.send(None)
    sender.join()
    assert isinstance(hook, JourneyHook)
    assert not hook.unfollowed
    # the module counts those of all journeys
    assert hook.followed - before.followed == PACKETS + copies
    assert copies


def check_numbers(told: Events, first: int, count: int) -> int:
    """Each number has one pair of ports, and each pair one number, but for copies.

    Returns how many copies there are.
    """
    named = told[(told["dport"] != 0) & (told["protocol"] == socket.IPPROTO_UDP)]
    numbered = (named["sport"].astype(np.int64) - SOURCE) * PORTS + named["dport"] - 1
    order = np.argsort(named["packet"], kind="stable")
    packets, numbered = named["packet"][order], numbered[order]
    begin = np.flatnonzero(np.r_[True, packets[1:] != packets[:-1]])
    assert packets[0]
    assert (np.minimum.reduceat(numbered, begin) == np.maximum.reduceat(numbered, begin)).all()
    copies = told["packet"][told["kind"] == Kind.JOURNEY_COPY]
    originals = numbered[begin][~np.isin(packets[begin], copies)]
    assert (np.sort(originals) == np.arange(first, first + count)).all()
    return len(copies)


def check_ends(told: Events) -> None:
    """Each packet ends once, and nothing but the walk's word on its own drop comes after that."""
    ends = told[np.isin(told["kind"], ENDS)]
    ended, times = np.unique(ends["packet"], return_counts=True)
    assert (times == 1).all()
    assert (ended == np.unique(told["packet"])).all()
    ends = ends[np.argsort(ends["packet"], kind="stable")]
    end_of_each = ends["time"][np.searchsorted(ended, told["packet"])]
    assert set(told["kind"][told["time"] > end_of_each]) <= {Kind.SPINE_EXIT}
