# SPDX-License-Identifier: GPL-2.0
"""Sums of packets that limits left out; tests/kernel/test_limits.py has real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ipttctl.cli.left_out import LeftOutSince
from ipttctl.link.controller import Controller
from ipttctl.link.limits import LeftOut
from ipttctl.link.model import Link
from ipttctl.link.wire import Connection
from ipttproto import Command
from tests.unit.ctl.support import FakeModule, link


def limited(number: int, sample: int) -> dict[str, Any]:
    return link(link=number, stats={"left-out-sample": sample})


@pytest.fixture
def total(module: FakeModule, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LeftOut]:
    """The sum since links 1 and 2 had left out 10 packets each; the links that are there."""
    monkeypatch.setattr(Connection, "open", module.connect)
    begin = [Link.from_attributes(limited(number, 10)) for number in (1, 2)]

    def sum_up(
        told: Mapping[int, LeftOut], *there: dict[str, Any], ids: tuple[int, ...] = ()
    ) -> LeftOut:
        module.handlers[Command.GET] = lambda *_: there
        with Controller() as controller:
            return LeftOutSince(controller, begin, ids).total(told)

    return sum_up


def test_links_that_are_there_are_asked(total: Callable[..., LeftOut]) -> None:
    told = {1: LeftOut(sample=11)}
    assert total(told, limited(1, 15), limited(2, 10), limited(3, 7)) == LeftOut(sample=5 + 7)


def test_links_that_are_gone_have_told(total: Callable[..., LeftOut]) -> None:
    assert total({1: LeftOut(sample=15), 3: LeftOut(rate=2)}) == LeftOut(sample=5, rate=2)


def test_what_was_told_before_does_not_count(total: Callable[..., LeftOut]) -> None:
    """It was on its way when the links were listed; the last report was lost."""
    assert total({1: LeftOut(sample=4)}) == LeftOut()


def test_other_links_are_not_meant(total: Callable[..., LeftOut]) -> None:
    assert total({}, limited(1, 11), limited(2, 13), ids=(2,)) == LeftOut(sample=3)
