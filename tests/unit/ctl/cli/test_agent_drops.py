# SPDX-License-Identifier: GPL-2.0
"""Drops of an agent's traces that come long after anything was heard of the packet."""

from __future__ import annotations

import time

import pytest

from ipttctl.cli.agent_trace import LocalTeller
from ipttctl.cli.story_sources import StoryNames
from ipttctl.stories.assemble import PATIENCE
from ipttctl.system.namespace_names import NamespaceNames
from ipttctl.system.who import Who
from ipttproto import parse_batch
from tests.unit.ctl.stories.packets import Traveller
from tests.unit.ctl.support import batch_payload

LINK = 12


@pytest.mark.parametrize(
    ("drops", "await_drops", "kinds"),
    [
        (False, False, ["open", "open"]),
        (False, True, ["dropped_by_kernel", "unfinished"]),
        (True, False, ["dropped_by_kernel"]),
    ],
)
def test_stories_stay_open_for_drops_and_all_are_told(
    drops: bool, await_drops: bool, kinds: list[str]
) -> None:
    begin = time.monotonic_ns() - 3 * PATIENCE
    late, quiet = Traveller(1, begin), Traveller(2, begin)
    for packet in (late, quiet):
        packet.received("eth0")
    first = [*late.events, *quiet.events]
    late.time += 2 * PATIENCE
    late.dropped(3, "neigh_invalidate")
    names = StoryNames(Who(), NamespaceNames([]), None)
    teller = LocalTeller(frozenset({LINK}), names, drops=drops, await_drops=await_drops)
    found = []
    for events in (first, late.events[-1:]):
        made = [{**one, "link": LINK} for one in events]
        found += teller.take([parse_batch(batch_payload(made))])
        if events is first:
            found += teller.idle()
    found += teller.idle()
    found += teller.end()
    assert [one.story.end.kind for one in found] == kinds
