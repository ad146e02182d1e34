# SPDX-License-Identifier: GPL-2.0
"""History and owners of links."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from ipttctl.errors import KernelError, LinkGoneError
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, ProgramSet
from ipttproto import Action, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.kernel import wait_for

COMMAND = Path("/proc/self/comm").read_text().strip()
DEPTH = 16


def test_generations_are_remembered(controller: Controller, make_program: MakeProgram) -> None:
    one, two = make_program(name="one"), make_program(name="two")
    before = time.time_ns()
    link = controller.attach(TableHook(), ProgramSet({Slot.ENTRY: one.fd, Slot.EXIT: two.fd}))
    controller.swap(link.id, ProgramSet({Slot.RULE: two.fd}))
    first, second = controller.history(link.id)
    after = time.time_ns()
    assert (first.generation, first.action) == (1, Action.ATTACH)
    assert (second.generation, second.action) == (2, Action.SWAP)
    assert before <= first.time <= second.time <= after
    for entry in (first, second):
        assert (entry.pid, entry.uid, entry.comm) == (os.getpid(), 0, COMMAND)
    assert first.programs == link.programs
    assert {slot: (p.id, p.tag, p.name) for slot, p in second.programs.items()} == {
        Slot.RULE: (two.id, two.tag, "two")
    }


def test_programs_are_remembered_that_are_gone(
    controller: Controller, make_program: MakeProgram
) -> None:
    gone, stays = make_program(name="gone"), make_program(name="stays")
    link = controller.attach(TableHook(), ProgramSet({Slot.ENTRY: gone.fd}))
    identifier = gone.id
    gone.close()
    controller.swap(link.id, ProgramSet({Slot.ENTRY: stays.fd}))
    programs = controller.history(link.id)[0].programs
    assert (programs[Slot.ENTRY].id, programs[Slot.ENTRY].name) == (identifier, "gone")


def test_history_reaches_back_as_far_as_documented(
    controller: Controller, make_program: MakeProgram
) -> None:
    """With all slots in use, so that the answer has its maximum length."""
    programs = [make_program(name=f"a_name_of_15_{n:02}") for n in range(3)]
    every = ProgramSet(
        dict(zip((Slot.ENTRY, Slot.RULE, Slot.EXIT), (p.fd for p in programs), strict=True))
    )
    link = controller.attach(TableHook(), every)
    for _ in range(2 * DEPTH + 3):
        controller.swap(link.id, every)
    history = controller.history(link.id)
    last = 2 * DEPTH + 4
    assert [entry.generation for entry in history] == list(range(last - DEPTH + 1, last + 1))
    assert {tuple(p.name for p in entry.programs.values()) for entry in history} == {
        ("a_name_of_15_00", "a_name_of_15_01", "a_name_of_15_02")
    }


def test_links_that_are_not_there(controller: Controller) -> None:
    for verb in (controller.history, controller.adopt, controller.confirm):
        with pytest.raises(LinkGoneError, match="there is no such link"):
            verb(12345)


def test_a_persistent_link_is_adopted(controller: Controller, make_program: MakeProgram) -> None:
    """The link goes with the owner that adopted it; the history stays."""
    program = make_program()
    with Controller() as maker:
        link = maker.attach(TableHook(), ProgramSet({Slot.ENTRY: program.fd}), persistent=True)
    assert controller.link(link.id).owner_portid == 0
    with controller.link_changes() as changes:
        with Controller() as owner:
            adopted = owner.adopt(link.id)
            assert not adopted.persistent
            assert adopted.owner_portid != 0
            assert (adopted.owner_pid, adopted.owner_comm) == (os.getpid(), COMMAND)
            assert controller.link(link.id) == adopted
            # adopted again by its owner
            assert owner.adopt(link.id).owner_portid == adopted.owner_portid
            assert [entry.generation for entry in owner.history(link.id)] == [1]
        wait_for(lambda: not controller.links(), what="the link is gone")
        told = changes.read(5)
    assert [c.change for c in told] == [Change.CHANGED, Change.CHANGED, Change.DETACHED]
    assert told[0].link.owner_portid == adopted.owner_portid


def test_a_link_that_somebody_owns_is_not_adopted(
    controller: Controller, make_program: MakeProgram
) -> None:
    link = controller.attach(TableHook(), ProgramSet({Slot.ENTRY: make_program().fd}))
    with Controller() as other:
        with pytest.raises(KernelError, match="owns the link") as refused:
            other.adopt(link.id)
        assert (refused.value.errno, refused.value.attribute) == (errno.EBUSY, "link")
    assert controller.link(link.id).owner_portid == link.owner_portid
