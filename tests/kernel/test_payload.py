# SPDX-License-Identifier: GPL-2.0
"""Payloads of events: the bytes at the time of a program's request, up to the last event."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator

import pytest

from ipttctl.bpf.syscalls import map_info
from ipttctl.errors import KernelError
from ipttctl.events.records import EventRecord, decode_events
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttctl.link.streams import EventStream
from ipttproto import EventFlag, Kind, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import wait_for
from tests.kernel.support.maps import ARRAY, PERCPU_ARRAY, one_element_map
from tests.kernel.support.network import Namespace, namespace
from tests.kernel.support.nf import attach, socket_filter


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("payload") as made:
        made.iptables("-A", "OUTPUT", "-p", "icmp", "-j", "ACCEPT")
        yield made


def numbering(map_fd: int, last: int, value: int = 1) -> bytes:
    """A program that counts in the first eight bytes of an element and copies the count.

    The copy is at byte ``last``. A payload is intact if both numbers are the same.
    """
    body = asm.look_up(map_fd, 0)
    count = (
        asm.load(asm.R1, asm.R0)
        + asm.add(asm.R1, 1)
        + asm.store(asm.R0, asm.R1)
        + asm.instruction(0x7B, asm.R0, asm.R1, last)
    )
    return body + asm.jump_if_equal(asm.R0, 0, asm.length(count)) + count + asm.returning(value)


def received(stream: EventStream) -> list[EventRecord]:
    """All events until now; AssertionError if one was lost."""
    records = [record for batch in stream.drain() for record in decode_events(batch)]
    assert stream.losses.events == 0, stream.losses
    return records


def check_numbers(records: list[EventRecord], size: int) -> None:
    """Check that the payloads count without a gap on each CPU, and that both numbers agree."""
    expected: dict[int, int] = defaultdict(int)
    for record in sorted(records, key=lambda r: (r.cpu, r.sequence)):
        expected[record.cpu] += 1
        number = expected[record.cpu].to_bytes(8, "little")
        assert record.flags & EventFlag.PAYLOAD
        assert len(record.payload) == size
        assert (record.payload[:8], record.payload[-8:]) == (number, number), record


@pytest.mark.parametrize("size", [8, 64, 256])
def test_each_event_has_the_bytes_of_its_own_run(
    controller: Controller, make_program: MakeProgram, place: Namespace, size: int
) -> None:
    with one_element_map(PERCPU_ARRAY, size) as fd, controller.events() as stream:
        program = socket_filter(make_program, numbering(fd, size - 8))
        link = attach(controller, program, "nf:inet4/output", place, payload=fd)
        assert (link.payload_map, link.payload_size) == (map_info(fd).id, size)
        place.ping("127.0.0.1", "-f", "-c", "500")
        records = received(stream)
        assert len(records) == controller.detach(link.id).stats.events >= 1000
    check_numbers(records, size)


@pytest.mark.parametrize("slot", [Slot.RULE, Slot.EXIT])
def test_tables_have_payloads_too(
    controller: Controller, make_program: MakeProgram, place: Namespace, slot: Slot
) -> None:
    """Only the program that uses the map adds its bytes; the entry program asks for no event."""
    with one_element_map(PERCPU_ARRAY, 24) as fd, controller.events() as stream:
        program = make_program(numbering(fd, 16))
        plain = make_program()
        programs = {Slot.ENTRY: plain.fd, Slot.RULE: plain.fd, Slot.EXIT: plain.fd}
        programs[slot] = program.fd
        link = controller.attach(TableHook(4), ProgramSet(programs, payload=fd))
        place.ping("127.0.0.1", "-f", "-c", "100")
        records = received(stream)
        controller.detach(link.id)
    mine = [r for r in records if (r.kind == Kind.EXIT) == (slot is Slot.EXIT)]
    others = [r for r in records if (r.kind == Kind.EXIT) != (slot is Slot.EXIT)]
    assert len(mine) >= 200
    assert len(others) >= 200
    check_numbers(mine, 24)
    assert {(r.payload, r.flags & EventFlag.PAYLOAD) for r in others} == {(b"", 0)}


def test_links_with_and_without(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """Events of one batch have a payload or none; a swap removes it and adds another."""
    with (
        one_element_map(PERCPU_ARRAY, 16) as short,
        one_element_map(PERCPU_ARRAY, 256) as long,
        controller.events() as stream,
    ):
        one = socket_filter(make_program, numbering(short, 8))
        two = socket_filter(make_program, numbering(long, 248))
        plain = socket_filter(make_program, asm.returning(1))
        links = [
            attach(controller, one, "nf:inet4/output@1", place, payload=short),
            attach(controller, plain, "nf:inet4/output@2", place),
            attach(controller, two, "nf:inet4/output@3", place, payload=long),
        ]
        place.ping("127.0.0.1", "-f", "-c", "50")
        records = received(stream)
        for link, size in zip(links, (16, 0, 256), strict=True):
            of_link = [r for r in records if r.link == link.id]
            assert len(of_link) >= 100
            assert {len(r.payload) for r in of_link} == {size}
        swapped = controller.swap(links[0].id, ProgramSet({Slot.PACKET: plain.fd}))
        assert (swapped.payload_map, swapped.payload_size) == (0, 0)
        again = controller.swap(links[1].id, ProgramSet({Slot.PACKET: one.fd}, payload=short))
        assert again.payload_size == 16
        controller.detach(links[2].id)
        place.ping("127.0.0.1", "-f", "-c", "5")
        records = received(stream)
        assert {(r.link, len(r.payload)) for r in records} == {(links[0].id, 0), (links[1].id, 16)}


def test_the_map_lives_as_long_as_the_link(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """The creator of the map may close it."""
    with one_element_map(PERCPU_ARRAY, 8) as fd:
        program = socket_filter(make_program, numbering(fd, 0))
        link = attach(controller, program, "nf:inet4/output", place, payload=fd)
    program.close()
    with controller.events() as stream:
        place.ping("127.0.0.1")
        assert len(received(stream)) >= 2
    controller.detach(link.id)


def test_payloads_that_are_refused(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    with (
        one_element_map(PERCPU_ARRAY, 8) as right,
        one_element_map(PERCPU_ARRAY, 8) as other,
        one_element_map(PERCPU_ARRAY, 264) as long,
        one_element_map(ARRAY, 8) as shared,
    ):
        program = socket_filter(make_program, numbering(right, 0))
        plain = socket_filter(make_program, numbering(shared, 0))
        entry = make_program(numbering(right, 0))
        pipe, end = os.pipe()
        for used, fd, number, words in (
            (program, 999, "EBADF", "not of a BPF map"),
            (program, pipe, "EINVAL", "not of a BPF map"),
            (program, program.fd, "EINVAL", "not of a BPF map"),
            (plain, shared, "EINVAL", "not a per-CPU array"),
            (program, long, "E2BIG", "more than 256 bytes"),
            (program, other, "EINVAL", "no program of the set"),
        ):
            with pytest.raises(KernelError, match=rf"{words}.*\[{number}\]") as refused:
                attach(controller, used, "nf:inet4/output", place, payload=fd)
            assert refused.value.attribute == "programs.payload-fd"
        # an entry program asks for no event that could carry it
        with pytest.raises(KernelError, match="no program of the set that emits events"):
            controller.attach(TableHook(), ProgramSet({Slot.ENTRY: entry.fd}, payload=right))
        assert controller.links() == []
        os.close(pipe)
        os.close(end)


def test_a_slow_observer_loses_payloads_with_their_events(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """There are more events than a ring holds: some are lost, and no payload is torn."""
    with one_element_map(PERCPU_ARRAY, 256) as fd, controller.events() as stream:
        program = socket_filter(make_program, numbering(fd, 248))
        links = [
            attach(controller, program, f"nf:inet4/output@{n}", place, payload=fd)
            for n in range(100)
        ]
        place.ping("127.0.0.1", "-f", "-c", "200")
        wait_for(lambda: all(link.stats.events >= 400 for link in controller.links()))
        records = [record for batch in stream.drain() for record in decode_events(batch)]
        stats = [controller.link(link.id).stats for link in links]
        for link in links:
            controller.detach(link.id)
        emitted = sum(one.events for one in stats)
        print(f"{emitted} events, {len(records)} received, {stream.losses}")
        assert len(records) + stream.losses.events == emitted
        assert sum(one.lost for one in stats) == stream.losses.ring
    for record in records:
        assert record.payload[:8] == record.payload[-8:] != bytes(8)
