# SPDX-License-Identifier: GPL-2.0
"""When a swap is answered, and the end of the program sets that it replaces.

``rcu_reader`` stands for a packet that takes its time: until it has gone, sets that were replaced
may be in use.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ipttctl.bpf.programs import Program
from ipttctl.errors import ProgramError
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, Link, LinkChange, ProgramSet, Swap
from ipttctl.link.streams import LinkChangeStream
from ipttproto import NfMode, Slot
from ipttproto.family import limit
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.cli import ipttctl
from tests.kernel.support.kernel import (
    load_module,
    load_test_module,
    remove_module,
    unload_module,
    wait_for,
)
from tests.kernel.support.nf import attach, socket_filter

READER = "rcu_reader"
HOLD = Path("/sys/module", READER, "parameters/hold")
#: seconds for which sets are kept from ending, and those that a request takes at most, without that
LONG, SHORT = 4.0, 2.0

Hold = Callable[[float], None]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Holds an RCU read section for some seconds; at the end it has been left."""
    load_test_module(READER)
    held = []

    def for_seconds(seconds: float) -> None:
        HOLD.write_text(f"{seconds * 1000:.0f}")
        held.append(seconds)

    yield for_seconds
    for _ in held:
        HOLD.read_text()
    remove_module(READER)


@pytest.fixture
def link(controller: Controller, make_program: MakeProgram) -> Iterator[Link]:
    made = controller.attach(TableHook(), entry(make_program, "first"))
    yield made
    controller.detach(made.id)


def entry(make_program: MakeProgram, name: str) -> ProgramSet:
    return ProgramSet({Slot.ENTRY: make_program(name=name).fd})


def read(changes: LinkChangeStream, count: int) -> list[LinkChange]:
    """The next changes."""
    told: list[LinkChange] = []

    def enough() -> bool:
        told.extend(changes.read(1))
        return len(told) >= count

    wait_for(enough)
    return told


def is_loaded(program: int) -> bool:
    try:
        Program.from_id(program).close()
    except ProgramError:
        return False
    return True


def test_it_is_answered_when_the_new_set_is_in_force(
    controller: Controller, make_program: MakeProgram, link: Link, hold: Hold
) -> None:
    """The end of the old set is told by itself; only then do its programs go."""
    assert (link.generation, link.ended) == (1, 0)
    old = link.programs[Slot.ENTRY].id
    with controller.link_changes() as changes:
        hold(LONG)
        begin = time.monotonic()
        swapped = controller.swap(link.id, entry(make_program, "second"))
        assert time.monotonic() - begin < SHORT
        assert (swapped.generation, swapped.ended) == (2, 0)
        assert controller.link(link.id).ended == 0
        told = read(changes, 2)
        assert time.monotonic() - begin > LONG / 8
    assert [(one.change, one.link.id, one.link.ended) for one in told] == [
        (Change.SWAPPED, link.id, 0),
        (Change.ENDED, link.id, 1),
    ]
    assert told[0].sequence < told[1].sequence
    # the test holds the program by its descriptor
    assert is_loaded(old)


@pytest.mark.parametrize("how", [{"wait": True}, {"expedite": True}, {"rollback_after": 60}])
def test_it_can_be_waited_for(
    controller: Controller,
    make_program: MakeProgram,
    link: Link,
    hold: Hold,
    how: dict[str, Any],
) -> None:
    with controller.link_changes() as changes:
        hold(LONG)
        begin = time.monotonic()
        swapped = controller.swap(link.id, entry(make_program, "second"), **how)
        assert time.monotonic() - begin > LONG / 8
        assert (swapped.generation, swapped.ended) == (2, 1)
        assert [one.change for one in changes.read(1)] == [Change.SWAPPED]


@pytest.mark.parametrize("option", ["--wait", "--expedite"])
def test_the_command_waits_if_asked_to(
    controller: Controller, make_program: MakeProgram, link: Link, hold: Hold, option: str
) -> None:
    del controller
    program = make_program(name="second")
    hold(LONG)
    begin = time.monotonic()
    done = ipttctl("swap", str(link.id), "--id", f"entry={program.id}", option)
    assert (done.returncode, time.monotonic() - begin > LONG / 8) == (0, True)


def test_programs_go_with_their_set(
    controller: Controller, make_program: MakeProgram, link: Link, hold: Hold
) -> None:
    program = make_program(name="second")
    number = program.id
    controller.swap(link.id, ProgramSet({Slot.ENTRY: program.fd}))
    program.close()
    hold(LONG)
    controller.swap(link.id, entry(make_program, "third"))
    assert is_loaded(number)
    wait_for(lambda: not is_loaded(number))
    assert controller.link(link.id).ended == 2


def test_so_many_swaps_have_to_wait(
    controller: Controller, make_program: MakeProgram, link: Link, hold: Hold
) -> None:
    """Sets that have not ended are bounded: the next swap ends with its own set, and all others."""
    programs = entry(make_program, "again")
    most = limit("MAX_RETIRING")
    hold(LONG)
    begin = time.monotonic()
    for number in range(most):
        assert controller.swap(link.id, programs).ended == 0, number
    answered = time.monotonic()
    last = controller.swap(link.id, programs)
    assert (last.generation, last.ended) == (most + 2, most + 1)
    assert time.monotonic() - begin > LONG / 8
    # a swap took a part of the time for which sets were held
    assert answered - begin < LONG
    # there is room again
    hold(LONG)
    assert controller.swap(link.id, programs).ended == most + 1


def test_links_that_are_swapped_together_end_together(
    controller: Controller, make_program: MakeProgram, link: Link, hold: Hold
) -> None:
    packet = socket_filter(make_program, asm.returning(0))
    other = attach(controller, packet, "nf:inet4/output")
    swaps = [
        Swap(link.id, entry(make_program, "second")),
        Swap(other.id, ProgramSet({Slot.PACKET: packet.fd})),
    ]
    with controller.link_changes() as changes:
        hold(LONG)
        assert [one.ended for one in controller.transact(swaps)] == [0, 0]
        told = read(changes, 4)
    ends = [one for one in told if one.change is Change.ENDED]
    assert [(one.link.id, one.link.ended) for one in ends] == [(link.id, 1), (other.id, 1)]
    assert len({one.sequence for one in ends}) == 1
    hold(LONG)
    assert [one.ended for one in controller.transact(swaps, wait=True)] == [2, 2]
    controller.detach(other.id)


def test_a_shadow_waits_for_sets_that_were_replaced(
    controller: Controller, make_program: MakeProgram, hold: Hold
) -> None:
    """They may use maps that the shadow writes."""
    packet = ProgramSet({Slot.PACKET: socket_filter(make_program, asm.returning(1)).fd})
    made = attach(
        controller,
        socket_filter(make_program, asm.returning(1)),
        "nf:inet4/output",
        mode=NfMode.FILTER,
    )
    hold(LONG)
    begin = time.monotonic()
    controller.swap(made.id, packet)
    assert time.monotonic() - begin < SHORT
    controller.shadow(made.id, packet)
    assert time.monotonic() - begin > LONG / 8
    controller.drop_shadow(made.id)
    controller.detach(made.id)


def test_the_module_goes_after_the_last_set(make_program: MakeProgram, hold: Hold) -> None:
    """No link keeps the module, and yet it does not go before what it has to free."""
    programs = entry(make_program, "again")
    for seconds in (0.0, 0.01, 0.1, 1.0):
        with Controller() as controller:
            made = controller.attach(TableHook(), programs)
            hold(seconds)
            for _ in range(5):
                controller.swap(made.id, programs)
            controller.detach(made.id)
        unload_module()
        load_module()
