# SPDX-License-Identifier: GPL-2.0
"""Numbers of packets: none is given to two packets, and no packet gets two.

The kernel uses the addresses of packets again at once. Each packet here is known by its ports:
IPTT_IDENTITY=1000000 sends so many.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from ipttctl.bpf.filters import compile_filter
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import EventBatch, Kind, Slot
from ipttproto.arrays import np, npt
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import run
from tests.kernel.support.network import Namespace, Network, network

PACKETS = int(os.environ.get("IPTT_IDENTITY", "10000"))
TOGETHER = 2000
PORTS = 50000
MEMBERS = ["packet", "time", "rule_handle", "sport", "dport", "kind", "protocol"]

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


def send_numbered(address: str, first: int, count: int) -> None:
    """Send datagrams, each from and to a pair of ports that no other has."""
    for number in range(first, first + count):
        if number % PORTS == 0 or number == first:
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sender.bind(("", 20000 + number // PORTS))
        with suppress(OSError):
            sender.sendto(b"x" * (number % 97), (address, 1 + number % PORTS))
        if number % 16 == 0:
            # the reader's turn
            time.sleep(0.001)


def kept(batch: EventBatch) -> npt.NDArray[np.void]:
    return batch.events[MEMBERS].copy()


def test_numbers_when_addresses_are_used_again(
    three: Network, controller: Controller, make_program: MakeProgram
) -> None:
    program = make_program(asm.returning(1)).fd
    seen: list[npt.NDArray[np.void]] = []
    with controller.events() as events:
        journey = controller.attach(JourneyHook(), ProgramSet({Slot.STEP: program}))
        programs = ProgramSet({Slot.EXIT: program}, compile_filter("udp"))
        controller.attach(SpineHook(), programs, journey=journey.id)
        for first in range(0, PACKETS, TOGETHER):
            count = min(TOGETHER, PACKETS - first)
            process = three.left.start(send_numbered, "10.77.2.2", first, count)
            while process.is_alive():
                seen += map(kept, events.read(0.1))
            process.join()
        hook = controller.link(journey.id).hook
        seen += map(kept, events.drain())
        assert not events.losses.events
    assert isinstance(hook, JourneyHook)
    assert not hook.unfollowed
    told = np.concatenate(seen)
    told = told[np.argsort(told["time"], kind="stable")]
    check_numbers(told)
    check_ends(told)


def check_numbers(told: npt.NDArray[np.void]) -> None:
    """Each number has one pair of ports, and each pair one number, but for copies."""
    named = told[(told["dport"] != 0) & (told["protocol"] == socket.IPPROTO_UDP)]
    ports = named["sport"].astype(np.uint64) << np.uint64(16) | named["dport"]
    order = np.argsort(named["packet"], kind="stable")
    numbers, ports = named["packet"][order], ports[order]
    begin = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]])
    assert numbers[0]
    assert (np.minimum.reduceat(ports, begin) == np.maximum.reduceat(ports, begin)).all()
    copies = told["packet"][told["kind"] == Kind.JOURNEY_COPY]
    assert len(copies)
    originals = ports[begin][~np.isin(numbers[begin], copies)]
    assert len(originals) == len(np.unique(originals)) == PACKETS


def check_ends(told: npt.NDArray[np.void]) -> None:
    """Each packet ends once, and nothing but the walk's word on its own drop comes after that."""
    ends = told[np.isin(told["kind"], (Kind.JOURNEY_DROPPED, Kind.JOURNEY_FREED))]
    ended, times = np.unique(ends["packet"], return_counts=True)
    assert (times == 1).all()
    assert (ended == np.unique(told["packet"])).all()
    end = dict(zip(ends["packet"].tolist(), ends["time"].tolist(), strict=True))
    rows = zip(told["packet"].tolist(), told["time"].tolist(), told["kind"].tolist(), strict=True)
    later = {kind for packet, moment, kind in rows if moment > end[packet]}
    assert later <= {Kind.SPINE_EXIT}
