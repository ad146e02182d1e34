# SPDX-License-Identifier: GPL-2.0
"""Lists of links and their changes: no gap, no repetition, a list again after a loss."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from ipttctl.errors import KernelError, OverrunError
from ipttctl.link.controller import Controller
from ipttctl.link.model import LinkChange, LinkList
from ipttctl.link.wire import Connection
from ipttproto import Command, Message
from tests.unit.ctl.support import FakeModule, link, notification, status

SEQUENCE = "links-sequence"


@pytest.fixture
def controller(module: FakeModule) -> Iterator[Controller]:
    with Controller(module.connect) as controller:
        yield controller


def change(number: int, identifier: int = 3, command: Command = Command.LINK_CHANGED) -> bytes:
    return notification(command, link(link=identifier, **{SEQUENCE: number}))


def listing(*identifiers: int, number: int) -> Sequence[Mapping[str, Any]]:
    return [link(link=identifier, **{SEQUENCE: number}) for identifier in identifiers]


def told(items: Sequence[LinkList | LinkChange]) -> list[Any]:
    """The ids in each list, and the number of each change."""
    return [
        [one.id for one in item.links] if isinstance(item, LinkList) else item.sequence
        for item in items
    ]


def test_changes_that_are_in_the_list_are_not_told_again(
    module: FakeModule, controller: Controller
) -> None:
    def dump(*_: Any) -> Sequence[Mapping[str, Any]]:
        for number in (6, 7, 8, 9):
            module.multicast(change(number))
        return listing(5, 3, number=7)

    module.handlers[Command.GET] = dump
    with controller.watch_links() as watch:
        first, *changes = watch.read() + watch.read(5)
        assert isinstance(first, LinkList)
        assert (first.sequence, first.overrun) == (7, False)
        assert told([first, *changes]) == [[3, 5], 8, 9]
        assert watch.read(0.01) == []
        module.multicast(change(10))
        assert told(watch.read(5)) == [10]


def test_a_list_without_links_has_its_place_too(module: FakeModule, controller: Controller) -> None:
    """It is made again if something changed while it was made."""
    numbers = [4, 5, 5, 5]
    module.handlers[Command.STATS] = lambda *_: [{**status(), SEQUENCE: numbers.pop(0)}]
    module.handlers[Command.GET] = lambda *_: []
    with controller.watch_links() as watch:
        for number in (4, 5, 6):
            module.multicast(change(number))
        assert told(watch.read() + watch.read(5)) == [[], 6]
    assert numbers == []


def test_a_list_that_is_never_of_one_moment(module: FakeModule, controller: Controller) -> None:
    numbers = iter(range(100))
    module.handlers[Command.STATS] = lambda *_: [{**status(), SEQUENCE: next(numbers)}]
    module.handlers[Command.GET] = lambda *_: []
    with pytest.raises(KernelError, match="faster than they can be listed") as caught:
        controller.list_links()
    assert caught.value.errno == errno.EINTR


def test_links_are_listed_again_after_a_loss(
    module: FakeModule, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel drops messages until all are read: the list is not made before that."""
    receive, losses = Connection.receive, [False]

    def overrun_once(connection: Connection) -> list[Message]:
        if losses.pop():
            losses.append(False)
            raise OverrunError
        losses.append(False)
        return receive(connection)

    unread: list[bool] = []

    def dump(*_: Any) -> Sequence[Mapping[str, Any]]:
        unread.append(watch._changes.wait(timeout=0))
        return listing(3, 4, number=20)

    with controller.watch_links() as watch:
        module.handlers[Command.GET] = lambda *_: listing(3, number=7)
        assert told(watch.read()) == [[3]]
        monkeypatch.setattr(Connection, "receive", overrun_once)
        losses[:] = [True]
        module.handlers[Command.GET] = dump
        for number in range(8, 78):
            module.multicast(change(number))
        again, *changes = watch.read(5)
        assert isinstance(again, LinkList)
        assert again.overrun
        assert told([again, *changes]) == [[3, 4], *range(21, 78)]
        assert unread == [False]
        assert watch.read(0.01) == []


def test_stop_ends_the_iteration(controller: Controller) -> None:
    with controller.watch_links() as watch:
        timer = threading.Timer(0.05, watch.stop)
        timer.start()
        assert told(list(watch)) == [[3]]
        assert watch.stopped
        timer.join()
    assert watch.fileno() == -1
