# SPDX-License-Identifier: GPL-2.0
"""The environment of hostile programs: a namespace whose OUTPUT has one rule, for ping."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import TABLE_SLOTS
from tests.kernel.support.network import Namespace, namespace

COOKIE = 0x0123456789ABCDEF
#: table passages of a ping to oneself: request and reply, out and in
PASSES = 4
#: a rule and a policy for request and reply, and the ends of all passages
EVENTS = 8

RunInAllSlots = Callable[[int], None]
"""Runs a program that returns non-zero in every slot, ``RUNS`` times in all."""
RUNS = PASSES + EVENTS


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("hostile") as made:
        made.iptables("-A", "OUTPUT", "-p", "icmp", "-j", "ACCEPT")
        yield made


@pytest.fixture
def run_in_all_slots(controller: Controller, place: Namespace) -> RunInAllSlots:
    """Run a program for the packets of a ping."""

    def run(fd: int) -> None:
        link = controller.attach(
            TableHook(), ProgramSet(dict.fromkeys(TABLE_SLOTS, fd), cookie=COOKIE)
        )
        place.ping("127.0.0.1")
        stats = controller.detach(link.id).stats
        assert (stats.packets, stats.selected, stats.events) == (PASSES, PASSES, EVENTS)
        assert stats.nested == 0

    return run
