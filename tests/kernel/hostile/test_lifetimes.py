# SPDX-License-Identifier: GPL-2.0
"""Programs in many places at once, programs without a loader, programs that others change."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ipttctl.bpf import syscalls
from ipttctl.errors import KernelError, ProgramError
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import TABLE_SLOTS, Slot
from ipttproto.family import limit
from tests.kernel.hostile.conftest import EVENTS, PASSES, RUNS, RunInAllSlots
from tests.kernel.support import assembler as asm
from tests.kernel.support import loader
from tests.kernel.support.btf import GLOBAL, Types
from tests.kernel.support.kernel import wait_for
from tests.kernel.support.loader import attached, loaded, loaded_btf
from tests.kernel.support.maps import PROG_ARRAY, element, one_element_map
from tests.kernel.support.network import Namespace
from tests.kernel.support.observing import observing

fork = multiprocessing.get_context("fork")
PIN = Path("/sys/fs/bpf/hostile-map")


def test_one_program_in_all_slots_of_all_links(
    controller: Controller, place: Namespace, hook: Hook
) -> None:
    links = limit("MAX_LINKS")
    with (
        one_element_map() as counter,
        loaded(asm.counting(counter)) as program,
        observing(controller) as observer,
    ):
        programs = ProgramSet(dict.fromkeys(TABLE_SLOTS, program))
        made = [controller.attach(hook, programs) for _ in range(links)]
        place.ping("127.0.0.1")
        for link in controller.links():
            stats = link.stats
            assert (stats.packets, stats.selected, stats.events) == (PASSES, PASSES, EVENTS)
            assert stats.nested == 0
        assert element(counter) == links * RUNS
        events = observer.complete()
        assert len(events) == links * EVENTS
        assert {int(event["link"]) for event in events} == {link.id for link in made}
        # the test releases the links one by one
        for link in made:
            controller.detach(link.id)
        with pytest.raises(KernelError):
            controller.link(made[0].id)


def _attach_and_die() -> None:
    with one_element_map() as counter, loaded(asm.counting(counter)) as program:
        syscalls.pin(counter, PIN)
        with Controller() as controller:
            controller.attach(
                TableHook(), ProgramSet(dict.fromkeys(TABLE_SLOTS, program)), persistent=True
            )
            os.kill(os.getpid(), signal.SIGKILL)


def _is_loaded(program: int) -> bool:
    try:
        os.close(syscalls.program_by_id(program))
    except ProgramError:
        return False
    return True


def test_a_program_whose_loader_was_killed(controller: Controller, place: Namespace) -> None:
    """The program runs on, with its map, until its link is removed; then it is freed."""
    process = fork.Process(target=_attach_and_die)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    try:
        (link,) = controller.links()
        program = link.programs[Slot.ENTRY].id
        place.ping("127.0.0.1")
        counter = syscalls.open_pinned(PIN)
        assert element(counter) == RUNS
        os.close(counter)
    finally:
        PIN.unlink()
    # now the program alone holds the map
    place.ping("127.0.0.1")
    assert _is_loaded(program)
    assert controller.detach(link.id).stats.events == 2 * EVENTS
    wait_for(lambda: not _is_loaded(program), what="the program is gone")


def test_a_program_that_others_may_jump_to(
    controller: Controller, run_in_all_slots: RunInAllSlots, hook: Hook
) -> None:
    """A program in a program array works as before; only programs that jump are refused."""
    with (
        one_element_map(PROG_ARRAY, 4) as programs,
        one_element_map() as counter,
        loaded(asm.counting(counter)) as program,
    ):
        jump = asm.load_map(asm.R2, programs) + asm.mov(asm.R3, 0) + asm.call(asm.TAIL_CALL)
        with loaded(jump + asm.returning(0)) as jumping:
            syscalls.update(programs, bytes(4), program.to_bytes(4, "little"))
            run_in_all_slots(program)
            assert element(counter) == RUNS
            with pytest.raises(KernelError, match="makes tail calls"):
                controller.attach(hook, ProgramSet({Slot.ENTRY: jumping}))
            syscalls.delete(programs, bytes(4))
            run_in_all_slots(program)
            assert element(counter) == 2 * RUNS


@contextmanager
def _replaceable() -> Iterator[tuple[int, int, int]]:
    """A program that returns the value of its function (1), and the function: fd, BTF, type."""
    types = Types()
    main = types.function("main", [("ctx", types.void_pointer)], GLOBAL)
    verdict = types.function("verdict", [("x", types.s32)], GLOBAL)
    head = asm.mov(asm.R1, 1) + asm.call_function(2) + asm.EXIT
    functions = [(0, main), (asm.length(head), verdict)]
    with (
        loaded_btf(types.blob()) as btf,
        loaded(head + asm.returning(1), btf=btf, functions=functions) as program,
    ):
        yield program, btf, verdict


def test_an_extension_of_a_program_that_is_attached(
    controller: Controller, place: Namespace, hook: Hook
) -> None:
    """An extension (freplace) of a function of the attached program takes effect at once."""
    with ExitStack() as stack:
        program, btf, verdict = stack.enter_context(_replaceable())
        extension = stack.enter_context(
            loaded(
                asm.returning(0),
                loader.EXT,
                btf=btf,
                functions=[(0, verdict)],
                attach_btf_id=verdict,
                attach_program=program,
            )
        )
        link = controller.attach(hook, ProgramSet(dict.fromkeys(TABLE_SLOTS, program)))

        def selected() -> int:
            before = controller.link(link.id).stats.selected
            place.ping("127.0.0.1")
            return controller.link(link.id).stats.selected - before

        assert selected() == PASSES
        with attached(extension):
            assert selected() == 0
            # a program with an extension can be attached as well
            other = controller.attach(hook, ProgramSet({Slot.ENTRY: program}))
            place.ping("127.0.0.1")
            assert controller.detach(other.id).stats.selected == 0
        assert selected() == PASSES
        assert controller.detach(link.id).stats.nested == 0
