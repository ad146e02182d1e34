# SPDX-License-Identifier: GPL-2.0
"""Hot swaps under load: each packet is seen by exactly one generation."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import TABLE_SLOTS, Kind, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import COMMAND_TIMEOUT, settled, wait_for
from tests.kernel.support.maps import element, one_element_map
from tests.kernel.support.network import Namespace, Network, event, flood_udp
from tests.kernel.support.observing import observing

SECONDS = 10
#: the least number of swaps
ENOUGH = 20


def _rule_counters(namespace: Namespace) -> int:
    """The packets that the one rule of each of raw's chains counted."""
    return sum(namespace.counted(chain, "raw") for chain in ("PREROUTING", "OUTPUT"))


@pytest.fixture
def counters() -> Iterator[list[int]]:
    with one_element_map() as first, one_element_map() as second:
        yield [first, second]


def test_every_packet_is_seen_by_one_generation(
    controller: Controller, make_program: MakeProgram, net: Network, counters: list[int]
) -> None:
    """Two namespaces send through the router, whose raw table alone exists and counts."""
    net.router.iptables("-t", "raw", "-A", "PREROUTING")
    net.router.iptables("-t", "raw", "-A", "OUTPUT")
    sets = [
        ProgramSet({slot: make_program(asm.counting(fd)).fd for slot in (Slot.ENTRY, Slot.EXIT)})
        for fd in counters
    ]
    stop = event()
    link = controller.attach(TableHook(4), sets[0])
    floods = [
        net.left.start(flood_udp, net.right_address, 9, stop),
        net.right.start(flood_udp, net.left_address, 9, stop),
    ]
    _wait_for_packets(controller, link.id)
    swaps = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or swaps <= ENOUGH:
        swaps += 1
        controller.swap(link.id, sets[swaps % 2])
    stop.set()
    for flood in floods:
        flood.join(30)
        assert flood.exitcode == 0
    link = settled(lambda: controller.link(link.id))
    counted = _rule_counters(net.router)
    seen = [element(fd) for fd in counters]
    controller.detach(link.id)

    print(f"{swaps} swaps, {counted} packets counted, {seen} runs by program, {link.stats}")
    assert counted > 1000
    assert link.generation == swaps + 1
    assert link.stats.packets == link.stats.selected == counted
    # entry and exit of the same program: with a torn set their counts would differ
    assert [count % 2 for count in seen] == [0, 0]
    assert sum(seen) == 2 * counted


def _wait_for_packets(controller: Controller, link_id: int) -> None:
    """Wait until a flood has begun, which takes time, most of all on a debug kernel."""
    wait_for(lambda: controller.link(link_id).stats.packets > 0, COMMAND_TIMEOUT, "a flood")


def test_a_packet_is_of_one_generation_from_entry_to_exit(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    """Programs are swapped while packets are in the table; all events of a passage have one set."""
    for _ in range(5):
        net.router.iptables("-t", "mangle", "-A", "FORWARD", "-p", "udp")
    program = make_program()
    programs = ProgramSet(dict.fromkeys(TABLE_SLOTS, program.fd))
    stop = event()
    with observing(controller) as observer:
        link = controller.attach(TableHook(), programs)
        flood = net.left.start(flood_udp, net.right_address, 9, stop, 0.002, 1)
        _wait_for_packets(controller, link.id)
        for _ in range(30):
            controller.swap(link.id, programs)
            observer.take()
        stop.set()
        flood.join(30)
        controller.detach(link.id)
        observer.drain()
    generations: dict[tuple[int, int, int], set[int]] = {}
    ends: Counter[tuple[int, int, int]] = Counter()
    for cpu, one in zip(observer.cpus, observer.events, strict=True):
        # each CPU numbers its own passages: two may use a number for two packets, and the second
        # packet may have the memory that the first one had
        passage = (cpu, int(one["traversal"]), int(one["skb"]))
        generations.setdefault(passage, set()).add(int(one["generation"]))
        ends[passage] += one["kind"] == Kind.EXIT
    assert len({g for gs in generations.values() for g in gs}) > 10
    assert [gs for gs in generations.values() if len(gs) != 1] == []
    assert max(ends.values()) == 1
