# SPDX-License-Identifier: GPL-2.0
"""Limits of a program set: packets are left out whole, and that is counted and told."""

from __future__ import annotations

import errno
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

from ipttctl.bpf.filters import compile_filter
from ipttctl.errors import KernelError
from ipttctl.events.records import EventRecord, decode_events
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.nf import NfHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.limits import LeftOut, Limits
from ipttctl.link.model import Link, LinkStats, Part, ProgramSet
from ipttctl.link.restore import Restorer
from ipttctl.link.streams import EventStream
from ipttproto import EventBatch, Kind, NfMode, Slot
from ipttproto.family import limit
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.cli import running, trace_command
from tests.kernel.support.journeys import Journey
from tests.kernel.support.kernel import COMMAND_TIMEOUT, run, wait_for
from tests.kernel.support.network import Namespace, Network, event, namespace, network, send_udp
from tests.kernel.support.nf import socket_filter

PACKETS = 300
FIRST_PORT = 20000
#: of processes that send at once, and of ports that each sends to. A socket has room for all
#: events: on a debug kernel the reader has its turn late
SENDERS = 4
PORTS = 2000
#: events a second of a link on a journey
BUDGET = 2000
CHAINS = "".join(
    f"chain {hook} {{ type filter hook {hook} priority 0; counter; }}\n"
    for hook in ("prerouting", "input", "forward", "output", "postrouting")
)
MASQUERADE = "chain nat { type nat hook postrouting priority 100; masquerade; }\n"


@pytest.fixture(scope="module")
def place() -> Iterator[Namespace]:
    with namespace("limits") as made:
        nft(made, CHAINS)
        made.restore("*filter\n-A OUTPUT -p udp\n-A INPUT -p udp\nCOMMIT\n")
        yield made


@pytest.fixture(scope="module")
def routed() -> Iterator[Network]:
    with network("lim") as net:
        for where in (net.left, net.router, net.right):
            nft(where, CHAINS)
        nft(net.router, MASQUERADE)
        # neighbours are known: packets that wait for them may be dropped
        net.left.ping(net.right_address)
        yield net


def nft(where: Namespace, chains: str) -> None:
    run("ip", "netns", "exec", where.name, "nft", "-f", "-", text=f"table inet t {{\n{chains}}}")


def to_ports(address: str) -> None:
    """Send a datagram to each of some ports: all packets are alike but for that."""
    for port in range(FIRST_PORT, FIRST_PORT + PACKETS):
        send_udp(address, port, [b"x"])


def attach(
    controller: Controller, make_program: MakeProgram, hook: Hook, limits: Limits | None
) -> Link:
    fd = make_program(asm.returning(1)).fd
    programs = dict.fromkeys((Slot.ENTRY, Slot.RULE, Slot.EXIT), fd)
    return controller.attach(hook, ProgramSet(programs, compile_filter("udp"), limits=limits))


class Seen(NamedTuple):
    """The events of packets that a link has reported, and its last counters."""

    records: list[EventRecord]
    stats: LinkStats

    @property
    def by_port(self) -> Counter[int]:
        """How many events there are of each destination port."""
        return Counter(one.dport for one in self.records)

    def left_at(self, port: int) -> Counter[str]:
        """How many packets of a port left each chain."""
        return Counter(
            one.chain.decode()
            for one in self.records
            if one.kind == Kind.CHAIN_EXIT and one.dport == port
        )


def read_until(done: threading.Event, events: EventStream) -> list[EventBatch]:
    batches: list[EventBatch] = []
    while not done.is_set():
        batches += events.read(0.1)
    return batches


def seen_while(
    controller: Controller, link: Link, work: Callable[..., None], *arguments: Any
) -> Seen:
    """The reports of a link while work is done; it goes then. All that it leaves out is told of."""
    done = threading.Event()
    with controller.events() as events, ThreadPoolExecutor(1) as reader:
        reading = reader.submit(read_until, done, events)
        try:
            work(*arguments)
        finally:
            done.set()
        batches = reading.result()
        stats = controller.detach(link.id).stats
        batches += events.drain()
        records = [record for batch in batches for record in decode_events(batch)]
        assert events.losses.events == 0
    assert stats.events == len(records)
    told = [LeftOut.from_record(one) for one in records if one.kind == Kind.LEFT_OUT]
    assert (told[-1] if told else LeftOut()) == stats.left_out
    assert all(before.packets < after.packets for before, after in pairwise(told))
    return Seen([one for one in records if one.kind != Kind.LEFT_OUT], stats)


def send_all(net: Network) -> None:
    net.left.call(to_ports, net.right_address)


def test_a_sampled_packet_is_whole(
    controller: Controller, make_program: MakeProgram, routed: Network
) -> None:
    """Through three namespaces and NAT: all its events are there, or none."""
    link = attach(controller, make_program, ChainHook(), None)
    [every] = {*seen_while(controller, link, send_all, routed).by_port.values()}
    assert every >= 14

    link = attach(controller, make_program, ChainHook(), Limits(sample=4))
    seen = seen_while(controller, link, send_all, routed)
    assert {*seen.by_port.values()} == {every}
    # 75 of 300, standard deviation 7.5
    assert 40 <= len(seen.by_port) <= 110
    assert seen.stats.left_out == LeftOut(sample=PACKETS - len(seen.by_port))


def test_a_sampled_packet_is_whole_on_every_processor(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """Packets that are decided over at once do not make each other forgotten."""
    fd = make_program(asm.returning(1)).fd
    programs = ProgramSet({Slot.EXIT: fd}, compile_filter("udp"), limits=Limits(sample=3))
    link = controller.attach(ChainHook(netns=place.path), programs)
    seen = seen_while(controller, link, send_at_once, place)
    assert {*seen.by_port.values()} == {4}
    assert len(seen.by_port) + seen.stats.left_out.packets == SENDERS * PORTS


def send_at_once(place: Namespace) -> None:
    """Send from several processes on each processor, each to ports of its own."""
    start = event()
    senders = [place.start(to_own_ports, start, number) for number in range(SENDERS)]
    start.set()
    for sender in senders:
        sender.join()
        assert sender.exitcode == 0


def to_own_ports(start: Any, number: int) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[number % len(cpus)]})
    start.wait()
    first = FIRST_PORT + number * PORTS
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in range(first, first + PORTS):
            sender.sendto(b"x", ("127.0.0.1", port))


@pytest.mark.parametrize("hook", [ChainHook(), TableHook()])
def test_packets_that_are_alike_are_sampled(
    controller: Controller, make_program: MakeProgram, place: Namespace, hook: Hook
) -> None:
    """They have the same bytes, and the same address again and again."""
    link = attach(controller, make_program, hook, None)
    one = seen_while(controller, link, place.call, send_udp, "127.0.0.1", 9, [b"x"])
    every = len(one.records)

    link = attach(controller, make_program, hook, Limits(sample=3))
    seen = seen_while(controller, link, place.call, send_udp, "127.0.0.1", 9, [b"x"] * PACKETS)
    count, rest = divmod(len(seen.records), every)
    assert rest == 0
    assert count + seen.stats.left_out.packets == PACKETS
    # 100 of 300, standard deviation 8.2
    assert 60 <= count <= 140


def test_a_forwarded_stream_is_sampled(
    controller: Controller, make_program: MakeProgram, routed: Network
) -> None:
    """Its packets are alike but for their address, where others ended elsewhere before."""
    link = attach(controller, make_program, ChainHook(netns=routed.router.path), Limits(sample=3))
    seen = seen_while(controller, link, stream_through, routed)
    through, own = seen.left_at(9), seen.left_at(10)
    [count] = {through[chain] for chain in ("prerouting", "forward", "postrouting")}
    [own_count] = {own[chain] for chain in ("output", "postrouting", "prerouting", "input")}
    assert count + own_count + seen.stats.left_out.packets == 3 * (PACKETS + 3)
    # 300 of 900, standard deviation 14
    assert 230 <= count <= 370


def stream_through(net: Network) -> None:
    """Send through the router, and between that in it."""
    for _ in range(3):
        net.router.call(send_udp, "::1", 10, [b"x"] * 3)
        net.left.call(send_udp, net.right_address6, 9, [b"x"] * PACKETS)


def test_a_rate_lets_so_many_through(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    rate = 50
    link = attach(controller, make_program, ChainHook(netns=place.path), Limits(rate=rate))
    start = time.monotonic()
    seen = seen_while(controller, link, place.call, to_ports, "127.0.0.1")
    seconds = time.monotonic() - start
    assert len({*seen.by_port.values()}) == 1
    assert 1 <= len(seen.by_port) <= (seconds + 0.1) * rate + 1
    assert seen.stats.left_out == LeftOut(rate=PACKETS - len(seen.by_port))
    assert seen.stats.selected == 4 * PACKETS


@pytest.mark.parametrize("budget", [{"budget_events": 100}, {"budget_cpu": 1}])
def test_a_governor_leaves_packets_out_until_there_is_room(
    controller: Controller, make_program: MakeProgram, place: Namespace, budget: dict[str, int]
) -> None:
    link = attach(controller, make_program, ChainHook(netns=place.path), Limits(**budget))

    def left_out() -> LeftOut:
        return controller.link(link.id).stats.left_out

    def admitted() -> bool:
        before = left_out()
        place.call(send_udp, "127.0.0.1", 9, [b"x"])
        return left_out() == before

    def flood_and_wait() -> None:
        place.call(to_ports, "127.0.0.1")
        assert 0 < left_out().packets < PACKETS
        # a thousandth of a CPU pays for its time, of which a debug kernel takes much
        wait_for(admitted, timeout=COMMAND_TIMEOUT / 3)

    seen = seen_while(controller, link, flood_and_wait)
    assert len({*seen.by_port.values()}) == 1
    assert 9 in seen.by_port
    assert seen.stats.left_out == LeftOut(governor=seen.stats.left_out.packets)


@pytest.mark.parametrize("deciding", [Limits(budget_events=BUDGET), None])
def test_a_governor_governs_a_journey(
    controller: Controller, make_program: MakeProgram, deciding: Limits | None
) -> None:
    """One link decides over packets, and has few events of each; the other has hundreds."""
    rules = 400
    counters = "counter\n" * rules
    with namespace("busy") as busy:
        nft(busy, f"chain many {{ type filter hook output priority 0;\n{counters} }}\n")
        journey = Journey(controller, make_program(asm.returning(1)).fd)
        at_output = SpineHook.parse("spine:inet4/output", netns=busy.path)
        first = journey.follow("udp port 9", at_output, limits=deciding)
        many = journey.follow(
            "udp port 9", ChainHook(netns=busy.path), limits=Limits(budget_events=BUDGET)
        )

        def events() -> int:
            return controller.link(many.id).stats.events

        def admitted() -> bool:
            before = events()
            busy.call(send_udp, "127.0.0.1", 9, [b"x"])
            return events() > before

        start = time.monotonic()
        assert admitted()
        whole = events()
        busy.call(send_udp, "127.0.0.1", 9, [b"x"] * PACKETS)
        seconds = time.monotonic() - start
        stats = controller.link(first.id).stats
        reported = 1 + PACKETS - stats.left_out.packets
        assert stats.left_out == LeftOut(governor=stats.left_out.packets)
        # alone it would have let all through
        assert stats.events < BUDGET
        assert whole > rules
        assert events() == reported * whole
        assert events() <= BUDGET * (1 + seconds) + 2 * whole
        assert controller.link(many.id).stats.left_out == LeftOut()
        wait_for(admitted, timeout=COMMAND_TIMEOUT / 3)
        journey.end()


def test_they_are_told_of_in_time(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """Nothing else has to come for that."""
    link = attach(
        controller, make_program, ChainHook(netns=place.path), Limits(sample=limit("MAX_SAMPLE"))
    )
    with controller.events() as events:
        for count in (10, 15):
            more = count - controller.link(link.id).stats.left_out.packets
            place.call(send_udp, "127.0.0.1", 9, [b"x"] * more)
            told: list[LeftOut] = []
            while not told or told[-1].packets < count:
                batches = events.read(COMMAND_TIMEOUT)
                assert batches
                told += [LeftOut.from_record(r) for b in batches for r in decode_events(b)]
            assert told[-1] == LeftOut(sample=count)
    controller.detach(link.id)


def dropping(place: Namespace) -> NfHook:
    return NfHook.parse("nf:inet4/output", netns=place.path, mode=NfMode.FILTER, report_drops=True)


def test_nothing_slips_past_a_filter(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """Programs at netfilter hooks decide over every packet, reported or not."""
    drop = socket_filter(make_program, asm.returning(0))
    programs = ProgramSet({Slot.PACKET: drop.fd}, compile_filter("udp"), limits=Limits(sample=10))
    link = controller.attach(dropping(place), programs)
    seen = seen_while(controller, link, place.call, send_dropped)
    assert seen.stats.drops == seen.stats.selected == PACKETS
    # 30 of 300, standard deviation 5.2
    assert 5 <= len(seen.records) <= 60
    assert seen.stats.left_out == LeftOut(sample=PACKETS - len(seen.records))


def send_dropped() -> None:
    for port in range(FIRST_PORT, FIRST_PORT + PACKETS):
        with suppress(PermissionError):
            send_udp("127.0.0.1", port, [b"x"])


def test_a_shadow_disagrees_in_whole(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """The packet's drop and the disagreement about it are reported, or neither is."""
    drop, accept = (socket_filter(make_program, asm.returning(value)) for value in (0, 1))
    only_udp = compile_filter("udp")
    programs = ProgramSet({Slot.PACKET: drop.fd}, only_udp, limits=Limits(sample=3))
    link = controller.attach(dropping(place), programs)
    controller.shadow(link.id, ProgramSet({Slot.PACKET: accept.fd}, only_udp))
    seen = seen_while(controller, link, place.call, send_dropped)
    assert seen.stats.disagreed == PACKETS
    assert {*seen.by_port.values()} == {2}
    assert len(seen.by_port) + seen.stats.left_out.packets == PACKETS


LIMITS = Limits(sample=7, rate=1000, budget_events=5000, budget_cpu=125)


def test_they_are_of_the_set(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """A swap replaces them with the programs, or keeps them."""
    link = attach(controller, make_program, TableHook(), LIMITS)
    assert link.limits == LIMITS
    programs = ProgramSet({Slot.RULE: make_program(asm.returning(1)).fd})
    assert controller.swap(link.id, programs, keep=[Part.LIMITS]).limits == LIMITS
    assert not controller.swap(link.id, programs).limits
    place.call(send_udp, "127.0.0.1", 9, [b"x"])
    controller.detach(link.id)


def test_an_upgrade_carries_them_over(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    program = make_program(asm.returning(1))
    programs = ProgramSet({Slot.RULE: program.fd}, limits=Limits(sample=1000))
    link = controller.attach(TableHook(), programs, persistent=True)
    place.call(send_udp, "127.0.0.1", 9, [b"x"] * PACKETS)
    before = controller.link(link.id).stats.left_out
    assert before.sample > PACKETS // 2
    with Restorer() as restorer:
        [record] = restorer.snapshot().records
        restorer.park(None, force=True, reason="a test")
        restored = restorer.restore(record)
        restorer.restored()
    assert restored.limits == Limits(sample=1000)
    assert restored.stats.left_out == before
    controller.detach(link.id)


@pytest.mark.parametrize(
    "limits",
    [
        Limits(sample=1),
        Limits(rate=limit("MAX_RATE") + 1),
        Limits(budget_events=limit("MAX_RATE") + 1),
        Limits(budget_cpu=limit("MAX_CPU") + 1),
    ],
)
def test_limits_out_of_range(
    controller: Controller, make_program: MakeProgram, limits: Limits
) -> None:
    with pytest.raises(KernelError) as raised:
        attach(controller, make_program, TableHook(), limits)
    assert raised.value.errno == errno.EINVAL


def test_there_has_to_be_an_event_to_limit(
    controller: Controller, make_program: MakeProgram
) -> None:
    programs = ProgramSet({Slot.ENTRY: make_program(asm.returning(1)).fd}, limits=LIMITS)
    with pytest.raises(KernelError, match="nothing to limit") as raised:
        controller.attach(TableHook(), programs)
    assert raised.value.errno == errno.EINVAL


def test_a_trace_says_what_it_leaves_out(place: Namespace) -> None:
    with trace_command("-N", place.name, "--backend", "nft", "--sample", "1/50", "udp") as trace:
        place.call(to_ports, "127.0.0.1")
        trace.wait_for_text('"left_out"')
        assert trace.stop() == 0
    told_of = [one for one in trace.records() if one["kind"] == "left_out"]
    assert all(0 < one["left_out"]["sample"] <= PACKETS for one in told_of)
    [total] = [line for line in trace.err().splitlines() if ", lost 0" in line]
    packets, left_out = (int(n) for n in re.findall(r"(\d+) packets?\b", total))
    assert packets + left_out == PACKETS
    assert total.endswith(f"{left_out} packets left out ({left_out} not of the sample)")


def test_events_tell_what_was_left_out_meanwhile(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """Of links that are there at the end, or gone by then, but not what was before."""
    most = Limits(sample=limit("MAX_SAMPLE"))
    stays, goes = (
        attach(controller, make_program, ChainHook(netns=place.path), most) for _ in range(2)
    )
    place.call(send_udp, "127.0.0.1", 9, [b"x"] * 100)
    with running("events") as events:
        events.wait_for_text("listening")
        place.call(send_udp, "127.0.0.1", 9, [b"x"] * 10)
        controller.detach(goes.id)
        place.call(send_udp, "127.0.0.1", 9, [b"x"] * 5)
        assert events.stop() == 0
    assert "0 events, 0 packets, lost 0, 25 packets left out (25 not of the sample)" in events.err()
    controller.detach(stays.id)
