# SPDX-License-Identifier: GPL-2.0
"""Lists of links with their changes: no gap, no repetition, and a list again after a loss."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Iterable
from typing import Any

import pytest

from ipttctl.errors import IpttctlError
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, Link, LinkChange, LinkList, ProgramSet
from ipttproto import Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.cli import ipttctl, running
from tests.kernel.support.kernel import COMMAND_TIMEOUT, wait_for

fork = multiprocessing.get_context("fork")

pytestmark = pytest.mark.usefixtures("no_links")

#: links that come and go while lists are made
CHURN = 40
LISTS = 15


class Table:
    """The links that a list and the changes after it add up to."""

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self.lists = self.changes = 0
        self._last = 0

    def take(self, items: Iterable[LinkList | LinkChange]) -> None:
        """Apply a list or changes; AssertionError if a change does not fit what is known."""
        for item in items:
            if isinstance(item, LinkList):
                assert item.overrun == (self.lists > 0)
                self.lists += 1
                self.links = {link.id: link for link in item.links}
            else:
                self._change(item)
            assert item.sequence >= self._last
            self._last = item.sequence

    def _change(self, item: LinkChange) -> None:
        self.changes += 1
        known = self.links.pop(item.link.id, None)
        assert (known is None) == (item.change is Change.ATTACHED), item
        if known is not None and item.change is Change.SWAPPED:
            assert item.link.generation == known.generation + 1
        if item.change is not Change.DETACHED:
            self.links[item.link.id] = item.link


def _churn(fd: int, stop: Any) -> None:
    programs = ProgramSet({Slot.EXIT: fd})
    with Controller() as controller:
        while not stop.is_set():
            link = controller.attach(TableHook(), programs)
            controller.swap(link.id, programs)
            controller.detach(link.id)


def test_each_list_and_its_changes_add_up(
    controller: Controller, make_program: MakeProgram
) -> None:
    """Watches begin at any moment of a churn: each sees a state and exactly what follows it."""
    program = make_program()
    controller.attach(TableHook(), ProgramSet({Slot.EXIT: program.fd}))
    stop = fork.Event()
    churn = fork.Process(target=_churn, args=(program.fd, stop), daemon=True)
    churn.start()
    try:
        for _ in range(LISTS):
            table = Table()
            with controller.watch_links() as watch:
                while table.changes < 5:
                    table.take(watch.read(COMMAND_TIMEOUT))
            assert table.lists == 1
    finally:
        stop.set()
        churn.join(COMMAND_TIMEOUT)
    assert churn.exitcode == 0


def test_a_full_socket_costs_nothing_but_a_list(
    controller: Controller, make_program: MakeProgram
) -> None:
    programs = ProgramSet({Slot.EXIT: make_program().fd})
    with controller.watch_links(buffer=1) as watch:
        table = Table()
        table.take(watch.read())
        assert table.links == {}
        for _ in range(3):
            link = controller.attach(TableHook(), programs)
            for _ in range(CHURN):
                controller.swap(link.id, programs, wait=True)
            table.take(watch.read(COMMAND_TIMEOUT))
            assert set(table.links) == {link.id}
            assert table.links[link.id].generation == 1 + CHURN
            controller.detach(link.id)
            table.take(watch.read(COMMAND_TIMEOUT))
            assert table.links == {}
        # a change after each list comes as a change
        assert (table.lists, table.changes) == (4, 3)


def test_the_command_line_lists_first(controller: Controller, make_program: MakeProgram) -> None:
    programs = ProgramSet({Slot.EXIT: make_program().fd})
    first = controller.attach(TableHook(), programs)
    with running("events", "--links", "-o", "json") as changes:
        changes.wait_for_text("listening")
        second = controller.attach(TableHook(), programs)
        controller.detach(second.id)
        wait_for(lambda: len(changes.records()) == 3, what="a list and two changes")
        listed, attached, detached = changes.finish()
    assert (listed["change"], listed["overrun"]) == ("list", False)
    assert [link["link"] for link in listed["links"]] == [first.id]
    assert (attached["change"], attached["link"]) == ("attached", second.id)
    assert (detached["change"], detached["link"]) == ("detached", second.id)


@pytest.mark.parametrize("command", ["attach", "adopt"])
def test_a_command_whose_link_somebody_else_detaches_says_so(
    command: str, controller: Controller, make_program: MakeProgram
) -> None:
    program = make_program()
    words = ["attach", "--id", f"exit={program.id}"]
    if command == "adopt":
        persistent = controller.attach(
            TableHook(), ProgramSet({Slot.EXIT: program.fd}), persistent=True
        )
        words = ["adopt", str(persistent.id)]
    for end in ("detach", "stop"):
        with running(*words, "-o", "json") as holder:
            holder.wait_for_text("\n")
            link = json.loads(holder.out())["link"]
            if end == "stop":
                assert holder.stop(signal.SIGTERM) == 0
                continue
            assert ipttctl("detach", str(link)).returncode == 0
            assert holder.process.wait(COMMAND_TIMEOUT) == 10
            told = holder.err().splitlines()[-1]
            assert told == f"ipttctl: link {link} was detached by somebody else"
        if command == "adopt":
            break
    with pytest.raises(IpttctlError):
        controller.link(link)
