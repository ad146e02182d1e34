# SPDX-License-Identifier: GPL-2.0
"""Links at the hook journey: those that are on one, what is refused, and their ends."""

from __future__ import annotations

import errno
import multiprocessing
import signal
from pathlib import Path
from typing import Any

import pytest

from ipttctl.bpf.filters import compile_filter
from ipttctl.errors import KernelError
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.nf import NfHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.limits import Limits
from ipttctl.link.model import ProgramSet
from ipttproto import Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.journeys import Journey
from tests.kernel.support.kernel import (
    ftrace_switched_off,
    load_test_module,
    remove_module,
    wait_for,
)
from tests.kernel.support.network import (
    event,
)


def test_links_leave_a_journey_that_ends(controller: Controller, make_program: MakeProgram) -> None:
    journey = Journey(controller, make_program(asm.returning(1)).fd)
    link = journey.follow("udp", TableHook())
    controller.detach(journey.link.id)
    assert controller.link(link.id).journey is None
    controller.detach(link.id)


def test_what_is_refused(controller: Controller, make_program: MakeProgram) -> None:
    program = make_program(asm.returning(1)).fd
    of_table = ProgramSet({Slot.EXIT: program})
    of_step = ProgramSet({Slot.STEP: program})
    table = controller.attach(TableHook(), of_table)
    filtered = ProgramSet({Slot.STEP: program}, compile_filter("udp"))
    limited = ProgramSet({Slot.STEP: program}, limits=Limits(sample=2))
    choosing = "links at other hooks choose"
    cases: tuple[tuple[Hook, ProgramSet, int | None, int, str], ...] = (
        (TableHook(), of_table, 4000, errno.ENOENT, "there is no such link"),
        (TableHook(), of_table, table.id, errno.EINVAL, "another hook than journey"),
        (JourneyHook(), of_step, table.id, errno.EINVAL, "is on no other"),
        (JourneyHook(), of_table, None, errno.EINVAL, "the slot step, and no other"),
        (JourneyHook(), filtered, None, errno.EINVAL, choosing),
        (JourneyHook(), limited, None, errno.EINVAL, choosing),
    )
    for hook, programs, journey, error, sentence in cases:
        with pytest.raises(KernelError, match=sentence) as refused:
            controller.attach(hook, programs, journey=journey)
        assert refused.value.errno == error
    kept = "persistent"
    for hook, programs, at in ((JourneyHook(), of_step, None), (TableHook(), of_table, table.id)):
        with pytest.raises(KernelError, match=kept):
            controller.attach(hook, programs, journey=at, persistent=True)
    packet = NfHook.parse("nf:inet4/local_in@raw")
    made = controller.attach(JourneyHook(), of_step)
    with pytest.raises(KernelError, match="its links are on no journey") as refused:
        controller.attach(packet, ProgramSet({Slot.PACKET: program}), journey=made.id)
    assert refused.value.errno == errno.EINVAL
    with pytest.raises(KernelError, match="a journey is never persistent") as refused:
        controller.release(made.id)
    assert refused.value.errno == errno.EOPNOTSUPP
    assert [link.id for link in controller.links()] == [table.id, made.id]


def test_steps_are_seen_or_the_journey_is_refused(
    controller: Controller, make_program: MakeProgram
) -> None:
    """Where ftrace is off, packets would be freed unseen."""
    programs = ProgramSet({Slot.STEP: make_program(asm.returning(1)).fd})
    with (
        ftrace_switched_off(),
        pytest.raises(KernelError, match="ftrace_enabled") as refused,
    ):
        controller.attach(JourneyHook(), programs)
    assert refused.value.errno == errno.EBUSY
    assert controller.links() == []
    link = controller.attach(JourneyHook(), programs)
    with pytest.raises(OSError, match="busy"):
        Path("/proc/sys/kernel/ftrace_enabled").write_text("0")
    controller.detach(link.id)


def test_as_many_journeys_as_can_be(controller: Controller, make_program: MakeProgram) -> None:
    programs = ProgramSet({Slot.STEP: make_program(asm.returning(1)).fd})
    made = [controller.attach(JourneyHook(), programs) for _ in range(32)]
    with pytest.raises(KernelError, match="as many journeys as can be") as refused:
        controller.attach(JourneyHook(), programs)
    assert refused.value.errno == errno.ENOSPC
    controller.detach(made[7].id)
    controller.attach(JourneyHook(), programs)


def test_nothing_is_left_of_a_killed_owner(
    controller: Controller, make_program: MakeProgram
) -> None:
    programs = ProgramSet({Slot.STEP: make_program(asm.returning(1)).fd})

    def hold(ready: Any) -> None:
        with Controller() as owner:
            journey = Journey(owner, make_program(asm.returning(1)).fd)
            journey.follow("udp")
            ready.set()
            signal.pause()

    ready = event()
    process = multiprocessing.get_context("fork").Process(target=hold, args=(ready,))
    process.start()
    assert ready.wait(60)
    assert len(controller.links()) == 4
    process.kill()
    process.join()
    wait_for(lambda: not controller.links(), what="the links are gone")
    # as many are free as before
    made = [controller.attach(JourneyHook(), programs) for _ in range(32)]
    assert len(made) == 32


def test_a_kernel_that_frees_packets_unseen_is_refused(
    controller: Controller, make_program: MakeProgram
) -> None:
    """A packet would be followed on when its address is another's."""
    programs = ProgramSet({Slot.STEP: make_program(asm.returning(1)).fd})
    load_test_module("late_free")
    try:
        with pytest.raises(KernelError, match="that is not seen on this kernel") as refused:
            controller.attach(JourneyHook(), programs)
    finally:
        remove_module("late_free")
    assert refused.value.errno == errno.EOPNOTSUPP
    assert controller.links() == []
    made = [controller.attach(JourneyHook(), programs) for _ in range(2)]
    for link in made:
        controller.detach(link.id)
