# SPDX-License-Identifier: GPL-2.0
"""When a swap is answered, and the end of the program sets that it replaces.

``rcu_reader`` stands for a packet that takes its time: until it has gone, sets that were replaced
may be in use.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ipttctl.bpf.programs import Program
from ipttctl.errors import ProgramError
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, Link, LinkChange, ProgramSet, Swap
from ipttctl.link.restore import Restorer
from ipttctl.link.streams import LinkChangeStream
from ipttproto import NfMode, Slot
from ipttproto.family import limit
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import load_module, unload_module, wait_for
from tests.kernel.support.nf import attach, socket_filter
from tests.kernel.support.rcu_reader import Reader, rcu_reader, waits_for_readers


@pytest.fixture
def reader() -> Iterator[Reader]:
    with rcu_reader() as made:
        yield made


@contextmanager
def waiting(change: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Begin a change that waits for readers, in a thread; within the block it waits for them."""
    thread: list[int] = []

    def begin() -> Any:
        thread.append(threading.get_native_id())
        return change()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(begin)
        wait_for(lambda: thread and waits_for_readers(Path(f"/proc/self/task/{thread[0]}")))
        assert not future.done()
        yield future


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
    controller: Controller, make_program: MakeProgram, link: Link, reader: Reader
) -> None:
    """The end of the old set is told by itself."""
    assert (link.generation, link.ended) == (1, 0)
    with controller.link_changes() as changes:
        reader.begin()
        swapped = controller.swap(link.id, entry(make_program, "second"))
        assert (swapped.generation, swapped.ended) == (2, 0)
        assert controller.link(link.id).ended == 0
        told = read(changes, 1)
        assert not changes.read(0.1)
        reader.end()
        told += read(changes, 1)
    assert [(one.change, one.link.id, one.link.ended) for one in told] == [
        (Change.SWAPPED, link.id, 0),
        (Change.ENDED, link.id, 1),
    ]
    assert told[0].sequence < told[1].sequence


@pytest.mark.parametrize("how", [{"wait": True}, {"expedite": True}, {"rollback_after": 60}])
def test_it_can_be_waited_for(
    controller: Controller,
    make_program: MakeProgram,
    link: Link,
    reader: Reader,
    how: dict[str, Any],
) -> None:
    programs = entry(make_program, "second")
    with controller.link_changes() as changes:
        reader.begin()
        with waiting(lambda: controller.swap(link.id, programs, **how)) as swap:
            reader.end()
            swapped = swap.result()
        assert (swapped.generation, swapped.ended) == (2, 1)
        assert [one.change for one in read(changes, 1)] == [Change.SWAPPED]
        assert not changes.read(0.1)


def test_programs_go_with_their_set(
    controller: Controller, make_program: MakeProgram, link: Link, reader: Reader
) -> None:
    program = make_program(name="second")
    number = program.id
    controller.swap(link.id, ProgramSet({Slot.ENTRY: program.fd}))
    program.close()
    reader.begin()
    controller.swap(link.id, entry(make_program, "third"))
    assert is_loaded(number)
    reader.end()
    wait_for(lambda: not is_loaded(number))
    assert controller.link(link.id).ended == 2


def test_so_many_swaps_have_to_wait(
    controller: Controller, make_program: MakeProgram, link: Link, reader: Reader
) -> None:
    """Sets that have not ended are bounded: the next swap ends with its own set, and all others."""
    programs = entry(make_program, "again")
    most = limit("MAX_RETIRING")
    reader.begin()
    for number in range(most):
        assert controller.swap(link.id, programs).ended == 0, number
    with waiting(lambda: controller.swap(link.id, programs)) as swap:
        reader.end()
        last = swap.result()
    assert (last.generation, last.ended) == (most + 2, most + 1)

    def has_room() -> bool:
        made = controller.swap(link.id, programs)
        return made.ended is not None and made.ended < made.generation - 1

    # those that retired have been freed: others may retire again
    wait_for(has_room)


def test_links_that_are_swapped_together_end_together(
    controller: Controller, make_program: MakeProgram, link: Link, reader: Reader
) -> None:
    packet = socket_filter(make_program, asm.returning(0))
    other = attach(controller, packet, "nf:inet4/output")
    swaps = [
        Swap(link.id, entry(make_program, "second")),
        Swap(other.id, ProgramSet({Slot.PACKET: packet.fd})),
    ]
    with controller.link_changes() as changes:
        reader.begin()
        assert [one.ended for one in controller.transact(swaps)] == [0, 0]
        reader.end()
        told = read(changes, 4)
    ends = [one for one in told if one.change is Change.ENDED]
    assert [(one.link.id, one.link.ended) for one in ends] == [(link.id, 1), (other.id, 1)]
    assert len({one.sequence for one in ends}) == 1
    reader.begin()
    with waiting(lambda: controller.transact(swaps, wait=True)) as transaction:
        reader.end()
        assert [one.ended for one in transaction.result()] == [2, 2]
    controller.detach(other.id)


def test_a_shadow_waits_for_sets_that_were_replaced(
    controller: Controller, make_program: MakeProgram, reader: Reader
) -> None:
    """They may use maps that the shadow writes."""
    packet = ProgramSet({Slot.PACKET: socket_filter(make_program, asm.returning(1)).fd})
    made = attach(
        controller,
        socket_filter(make_program, asm.returning(1)),
        "nf:inet4/output",
        mode=NfMode.FILTER,
    )
    reader.begin()
    controller.swap(made.id, packet)
    with waiting(lambda: controller.shadow(made.id, packet)) as shadow:
        reader.end()
        assert shadow.result().shadow is not None
    controller.drop_shadow(made.id)
    controller.detach(made.id)


def test_a_link_is_parked_and_restored_whose_last_set_has_not_ended(
    make_program: MakeProgram, reader: Reader
) -> None:
    """An upgrade right after a swap: when links are parked, all their sets have ended."""
    programs = entry(make_program, "again")
    with Controller() as controller:
        made = controller.attach(TableHook(), programs, persistent=True)
        reader.begin()
        controller.swap(made.id, programs)
        with Restorer() as restorer:
            [record] = restorer.snapshot().records
            assert record.link.ended == 0
            reader.end()
            restorer.park(None, force=True, reason="a test")
            restored = restorer.restore(record)
            restorer.restored()
        assert record.same(restored)
        assert restored.ended == 1
        controller.detach(made.id)


def test_the_module_goes_after_the_last_set(make_program: MakeProgram) -> None:
    """No link keeps the module, and yet it does not go before what it has to free."""
    programs = entry(make_program, "again")
    for _ in range(5):
        with Controller() as controller:
            made = controller.attach(TableHook(), programs)
            for _ in range(5):
                controller.swap(made.id, programs)
            controller.detach(made.id)
        unload_module()
        load_module()
