# SPDX-License-Identifier: GPL-2.0
"""Stories of packets that were on their way while events were lost say so."""

from __future__ import annotations

import pytest

from ipttctl.stories.assemble import PATIENCE, SETTLE, StoryAssembler
from ipttctl.stories.gaps import Gap, GapFinder, Gaps
from ipttproto import EventBatch, parse_batch
from tests.unit.ctl.stories.packets import MS, START, US, Traveller, records
from tests.unit.ctl.support import batch_payload, event


def batch(cpu: int, sequence: int, *times: int) -> EventBatch:
    events = [event(time=time) for time in times]
    return parse_batch(batch_payload(events, cpu=cpu, sequence=sequence))


def test_numbers_that_are_missing() -> None:
    finder = GapFinder()
    assert list(finder.find([batch(0, 5, 100, 200), batch(1, 7, 150)])) == []
    assert list(finder.find([batch(0, 7, 300), batch(1, 9, 400, 500), batch(0, 9, 600)])) == [
        Gap(150, 400),
        Gap(300, 600),
    ]
    # one that comes late or twice
    assert list(finder.find([batch(1, 9, 400, 500), batch(1, 11, 700)])) == []


def packet(number: int, start: int, *, ended: bool = True) -> Traveller:
    made = Traveller(number, start)
    made.received("eth0")
    made.sent("eth1")
    if ended:
        made.freed()
    return made


@pytest.mark.parametrize(
    ("since", "until", "lost"),
    [
        (-9, 2, True),
        (2, 2, True),
        (2, 90, True),
        (4, 90, False),
        # what was seen first may not be its first event
        (-9, -5, True),
        (-9, -SETTLE // US, False),
    ],
)
def test_only_packets_on_their_way_are_told_so(since: int, until: int, lost: bool) -> None:
    assembler = StoryAssembler()
    assembler.lose(Gap(START + since * US, START + until * US))
    assembler.add(records(packet(1, START).events))
    [story] = assembler.due(START + 2 * SETTLE)
    assert story.end.events_lost == lost


def test_one_that_ended_nowhere_may_have_lost_its_end() -> None:
    assembler = StoryAssembler()
    assembler.add(records(packet(1, START, ended=False).events))
    assembler.lose(Gap(START + 5 * MS, START + 6 * MS))
    [story] = assembler.due(START + 2 * PATIENCE)
    assert story.end.events_lost


def test_many_gaps_are_a_few() -> None:
    gaps = Gaps()
    for place in range(5000):
        gaps.add(Gap(10 * place, 10 * place + 2))
    assert gaps.within(49_990, 49_991)
    assert not gaps.within(49_985, 49_987)
    # the oldest are one by now
    assert gaps.within(5, 6)
    gaps.forget(60_000)
    assert not gaps
