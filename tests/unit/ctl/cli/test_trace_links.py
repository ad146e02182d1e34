# SPDX-License-Identifier: GPL-2.0
"""Looks at the links of a trace that runs; tests/kernel/test_agent.py has real ones."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest

from ipttctl.cli.trace_links import TraceLinks, TracePrograms
from ipttctl.errors import LinkDetachedError, ModuleError
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.link.controller import Controller
from ipttctl.link.limits import LeftOut
from ipttproto import Command, Hook
from tests.unit.ctl.support import FakeModule, RefusalError, link


class TwoLinks:
    """The module's side of a journey, and of a link at the spine that is on it."""

    def __init__(self, module: FakeModule) -> None:
        self.there: dict[int, dict[str, Any]] = {}
        module.handlers[Command.ATTACH] = self.attach
        module.handlers[Command.GET] = self.get

    def attach(self, _: Command, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Make a link, whose number is the next one."""
        number = len(self.there) + 1
        made = link(link=number, hook=request["hook"], stats={})
        if request["hook"] == Hook.JOURNEY:
            # of journeys before
            made["journey-unfollowed"] = 40
        self.there[number] = made
        return [made]

    def get(self, _: Command, request: dict[str, Any]) -> list[dict[str, Any]]:
        """The link as it is now."""
        if request["link"] not in self.there:
            raise RefusalError(errno.ENOENT)
        return [self.there[request["link"]]]


@pytest.fixture
def two(module: FakeModule) -> TwoLinks:
    return TwoLinks(module)


@pytest.fixture
def links(module: FakeModule, two: TwoLinks) -> Iterator[TraceLinks]:
    del two
    with Controller(module.connect) as controller:
        yield TraceLinks(controller, [JourneyHook(), SpineHook()], TracePrograms({}))


def test_a_look_tells_what_was_left_out_since_it_began(links: TraceLinks, two: TwoLinks) -> None:
    assert links.look() == (LeftOut(), 0)
    two.there[1]["journey-unfollowed"] = 43
    two.there[2]["stats"] = {"left-out-governor": 7, "left-out-sample": 2}
    assert links.look() == (LeftOut(governor=7, sample=2), 3)


@pytest.mark.parametrize("number", [1, 2])
def test_a_link_that_somebody_detached_is_named(
    links: TraceLinks, two: TwoLinks, number: int
) -> None:
    del two.there[number]
    with pytest.raises(LinkDetachedError, match=f"link {number} was detached by somebody else"):
        links.look()


def test_links_of_a_module_that_was_loaded_again_are_others(
    links: TraceLinks, module: FakeModule
) -> None:
    module.reload()
    with pytest.raises(ModuleError):
        links.look()
