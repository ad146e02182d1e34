# SPDX-License-Identifier: GPL-2.0
"""The environment of hostile programs: a namespace whose OUTPUT has one rule, for ping.

It has it twice, in a table of iptables-legacy and in a chain of nftables. Programs run at one of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import TABLE_SLOTS
from tests.kernel.support.kernel import run
from tests.kernel.support.network import Namespace, namespace

COOKIE = 0x0123456789ABCDEF
#: passages of a ping to oneself: request and reply, out and in
PASSES = 4
#: a rule and a policy for request and reply, and the ends of all passages
EVENTS = 8

RunInAllSlots = Callable[[int], None]
"""Runs a program that returns non-zero in every slot, ``RUNS`` times in all."""
RUNS = PASSES + EVENTS


RULES = """
table ip hostile {
    chain out { type filter hook output priority -10; meta l4proto icmp accept; }
    chain in { type filter hook input priority -10; }
}
"""


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("hostile") as made:
        made.iptables("-A", "OUTPUT", "-p", "icmp", "-j", "ACCEPT")
        nft(made, RULES)
        yield made


def nft(where: Namespace, text: str) -> None:
    run("ip", "netns", "exec", where.name, "nft", "-f", "-", text=text)


@pytest.fixture(params=[TableHook, ChainHook], ids=["table", "chain"])
def hook(request: pytest.FixtureRequest) -> Hook:
    """All tables, and all chains."""
    made = request.param()
    assert isinstance(made, Hook)
    return made


@pytest.fixture
def run_in_all_slots(controller: Controller, place: Namespace, hook: Hook) -> RunInAllSlots:
    """Run a program for the packets of a ping."""

    def run(fd: int) -> None:
        link = controller.attach(hook, ProgramSet(dict.fromkeys(TABLE_SLOTS, fd), cookie=COOKIE))
        place.ping("127.0.0.1")
        stats = controller.detach(link.id).stats
        assert (stats.packets, stats.selected, stats.events) == (PASSES, PASSES, EVENTS)
        assert stats.nested == 0

    return run
