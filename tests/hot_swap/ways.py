# SPDX-License-Identifier: GPL-2.0
"""Ways to replace one program set by another, under any traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import Slot
from tests.kernel.support.kernel import load_module, unload_module

Fds = Mapping[Slot, int]
#: replaces the current programs by the given ones
Replace = Callable[[Fds], None]
Way = Callable[[Fds], AbstractContextManager[Replace]]


@contextmanager
def swap(first: Fds) -> Iterator[Replace]:
    """``ipttctl swap``: all slots in one step."""
    with Controller() as controller:
        link = controller.attach(TableHook(4), ProgramSet(first))
        yield lambda fds: _drop(controller.swap(link.id, ProgramSet(fds)))


@contextmanager
def swap_and_wait(first: Fds) -> Iterator[Replace]:
    """``ipttctl swap --wait``: the same, and no packet is handled by the old set afterwards."""
    with Controller() as controller:
        link = controller.attach(TableHook(4), ProgramSet(first))
        yield lambda fds: _drop(controller.swap(link.id, ProgramSet(fds), wait=True))


@contextmanager
def slot_by_slot(first: Fds) -> Iterator[Replace]:
    """The new entry program with the old exit program, then both new: two swaps."""
    with Controller() as controller:
        link = controller.attach(TableHook(4), ProgramSet(first))
        old = dict(first)

        def replace(fds: Fds) -> None:
            controller.swap(link.id, ProgramSet({**old, Slot.ENTRY: fds[Slot.ENTRY]}))
            controller.swap(link.id, ProgramSet(fds))
            old.update(fds)

        yield replace


@contextmanager
def attach_then_detach(first: Fds) -> Iterator[Replace]:
    """A new link; then the old one is detached."""
    with Controller() as controller:
        links = [controller.attach(TableHook(4), ProgramSet(first))]

        def replace(fds: Fds) -> None:
            links.append(controller.attach(TableHook(4), ProgramSet(fds)))
            controller.detach(links.pop(0).id)

        yield replace


@contextmanager
def reload(first: Fds) -> Iterator[Replace]:
    """Unload and load the module, as for a module that takes its programs when it is loaded."""
    controllers: list[Controller] = []

    def attach(fds: Fds) -> None:
        controllers.append(Controller())
        controllers[0].attach(TableHook(4), ProgramSet(fds))

    def replace(fds: Fds) -> None:
        controllers.pop().close()
        unload_module()
        load_module()
        attach(fds)

    attach(first)
    try:
        yield replace
    finally:
        for controller in controllers:
            controller.close()


WAYS: Final[Mapping[str, Way]] = {
    "`swap`": swap,
    "`swap --wait`": swap_and_wait,
    "one slot at a time": slot_by_slot,
    "attach the new link, then detach the old": attach_then_detach,
    "rmmod, insmod, attach": reload,
}


def _drop(_: object) -> None:
    """Discard a result."""
