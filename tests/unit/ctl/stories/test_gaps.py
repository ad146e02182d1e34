# SPDX-License-Identifier: GPL-2.0
"""Stories of packets that were on their way while events were lost say so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttctl.link.model import CpuStatus
from ipttctl.stories.assemble import PATIENCE, SETTLE, StoryAssembler
from ipttctl.stories.gaps import Gap, GapFinder, Gaps
from ipttproto import EventBatch, Loss, parse_batch
from tests.unit.ctl.stories.packets import MS, START, US, Traveller, records
from tests.unit.ctl.support import batch_payload, event

NOW = 10_000


def batch(cpu: int, sequence: int, *times: int, lost: int = 0) -> EventBatch:
    events = [event(time=time) for time in times]
    made = parse_batch(batch_payload(events, cpu=cpu, sequence=sequence))
    return replace(made, lost={**made.lost, Loss.RING: lost})


def cpu(number: int, sequence: int, lost: int = 0) -> CpuStatus:
    return CpuStatus(number, sequence, {**dict.fromkeys(Loss, 0), Loss.MEMORY: lost})


def test_numbers_that_are_missing() -> None:
    finder = GapFinder()
    assert list(finder.find([batch(0, 5, 100, 200), batch(1, 7, 150)], NOW)) == []
    read = [batch(0, 7, 300), batch(1, 9, 400, 500), batch(0, 9, 600)]
    assert list(finder.find(read, NOW)) == [Gap(150, 400), Gap(300, 600)]
    # one that comes late or twice
    assert list(finder.find([batch(1, 9, 400, 500), batch(1, 11, 700)], NOW)) == []


def test_numbers_that_are_missing_before_the_first_batch() -> None:
    finder = GapFinder()
    finder.begin([cpu(0, 5), cpu(1, 7)], 50)
    assert list(finder.find([batch(0, 9, 100), batch(1, 7, 90)], NOW)) == [Gap(50, 100)]


def test_numbers_that_are_missing_behind_the_last_batch() -> None:
    finder = GapFinder()
    finder.begin([cpu(0, 5), cpu(1, 7, 3)], 50)
    assert list(finder.find([batch(0, 5, 100), batch(1, 7, 90)], NOW)) == []
    assert list(finder.finish([cpu(0, 8), cpu(1, 8), cpu(2, 5)], NOW)) == [Gap(100, NOW)]


def test_a_cpu_that_says_what_it_lost_behind_a_batch() -> None:
    finder = GapFinder()
    finder.begin([cpu(0, 5)], 50)
    assert list(finder.find([batch(0, 5, 100, lost=40)], 120)) == [Gap(100, 120)]
    # no more of them than it said
    assert list(finder.find([batch(0, 46, 200, lost=40)], 220)) == [Gap(100, 200)]
    # ten before it and two behind it
    assert list(finder.find([batch(0, 57, 300, lost=52)], 320)) == [Gap(200, 300), Gap(300, 320)]
    assert list(finder.find([batch(0, 60, 400, lost=52)], 420)) == [Gap(300, 400)]
    assert list(finder.find([batch(0, 61, 500, lost=52)], 520)) == []


def test_an_overrun_makes_gaps_that_may_be_until_cpus_report() -> None:
    finder = GapFinder()
    finder.begin([cpu(0, 5), cpu(1, 7), cpu(2, 0)], 50)
    assert list(finder.find([batch(0, 5, 100), batch(1, 7, 90)], NOW)) == []
    assert finder.suspected() == []
    finder.overrun([cpu(0, 8), cpu(1, 8), cpu(2, 3), cpu(3, 1)], 120)
    assert finder.suspected() == [Gap(100, 120), Gap(50, 120)]
    # what was read behind it may be older than what was missed
    assert list(finder.find([batch(0, 6, 105)], NOW)) == []
    assert finder.suspected() == [Gap(105, 120), Gap(50, 120)]
    # the first one missed an event, the other none
    assert list(finder.find([batch(0, 8, 130), batch(2, 0, 60, 70, 80)], NOW)) == [Gap(105, 130)]
    assert finder.suspected() == []


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


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize(("since", "lost"), [(1, True), (-900_000, False)])
def test_what_ends_before_it_is_known_what_was_missed(ended: bool, since: int, lost: bool) -> None:
    assembler = StoryAssembler()
    assembler.add(records(packet(1, START, ended=ended).events))
    assembler.suspect([Gap(START + since * US, START + since * US + 9)])
    [story] = assembler.due(START + 2 * PATIENCE)
    assert story.end.events_lost == lost
    # nothing was missed
    assembler.suspect([])
    [story] = assembler.add(records(packet(2, START, ended=ended).events))
    assert not story.end.events_lost


def test_packets_of_one_read_in_any_order() -> None:
    """Gaps of a read are known before its events, which are not in order of time."""
    assembler = StoryAssembler()
    assembler.lose(Gap(START + 10 * MS, START + 30 * MS))
    late, early = packet(1, START + 150 * MS), packet(2, START + 20 * MS)
    assembler.lose(Gap(START + 180 * MS, START + 190 * MS))
    assembler.add(records([*late.events, *early.events]))
    lost = {story.number: story.end.events_lost for story in assembler.due(START + 400 * MS)}
    assert lost == {1: False, 2: True}


def test_many_gaps_are_a_few() -> None:
    gaps = Gaps()
    for place in range(5000):
        gaps.add(Gap(10 * place, 10 * place + 2))
    assert gaps.within(49_990, 49_991)
    assert not gaps.within(49_985, 49_987)
    # the oldest are one by now
    assert gaps.within(5, 6)


def test_gaps_of_several_cpus_are_in_no_order() -> None:
    gaps = Gaps()
    for gap in (Gap(0, 500), Gap(90, 100), Gap(40, 50)):
        gaps.add(gap)
    assert gaps.within(400, 600)
    assert gaps.within(92, 600)
    assert not gaps.within(501, 600)
