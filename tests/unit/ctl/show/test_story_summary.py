# SPDX-License-Identifier: GPL-2.0
"""Equal stories are counted, and told once."""

from __future__ import annotations

from typing import Any

import pytest

from ipttctl.show import story_summary
from ipttctl.show.story_summary import StorySummary
from ipttproto import Kind
from tests.unit.ctl.stories.packets import (
    FORWARD,
    PREROUTING,
    Traveller,
    flood,
    ip4,
    to_docker,
    told,
)


def dropped_elsewhere(number: int) -> Traveller:
    packet = Traveller(number, saddr=ip4(f"10.0.0.{number}"), sport=number, length=number)
    packet.received("eth0")
    packet.dropped(3, "udp_queue_rcv")
    return packet


def test_addresses_ports_and_times_do_not_matter() -> None:
    summary = StorySummary(width=100)
    stories = told(*flood(5), *map(dropped_elsewhere, range(10, 20)))
    summary.add(stories[:7])
    summary.add(stories[7:])
    assert [group.count for group in summary.groups()] == [10, 5]
    lines = summary.lines()
    assert lines[0] == "10 packets, for example"
    assert "10.0.0.10" in lines[1]
    assert lines[-1] == "15 packets, 2 ways"


def test_rules_ends_and_ways_do() -> None:
    packets = []
    for number, (rule, reason) in enumerate([(1, 3), (2, 3), (1, 4), (1, 3)], start=1):
        packet = Traveller(number)
        packet.received("eth0")
        packet.nft(Kind.CHAIN_RULE, "input", rule, hook=1, pf=2)
        packet.dropped(reason, "f")
        packets.append(packet)
    summary = StorySummary()
    summary.add(told(*packets))
    assert [group.count for group in summary.groups()] == [2, 1, 1]


def test_packets_of_other_ttl_are_equal() -> None:
    packets = []
    for number in (1, 2):
        packet = Traveller(number, pf=2, hook=1, in_name=b"eth0")
        packet.function("f", 1, ttl=60 + number)
        packet.leave(ttl=60 + number)
        packet.freed()
        packets.append(packet)
    first, second = told(*packets)
    assert first.plot is not second.plot
    summary = StorySummary()
    summary.add([first, second])
    assert [group.count for group in summary.groups()] == [2]


def forwarded(
    number: int, *, came_by: str = "eth0", routed: str = "eth1", **members: Any
) -> Traveller:
    """A packet that comes in by a device, is routed to another and dropped there."""
    packet = Traveller(number, pf=2, hook=PREROUTING, in_name=came_by.encode(), **members)
    packet.function("f", 1)
    packet.leave()
    packet.now(hook=FORWARD, out_name=routed.encode())
    packet.function("g", 1)
    packet.leave()
    packet.dropped(3, "neigh_invalidate")
    return packet


@pytest.mark.parametrize(
    "other", [{"came_by": "eth9"}, {"routed": "eth9"}, {"protocol": 17}, {"ethertype": 0x86DD}]
)
def test_devices_and_protocols_do(other: dict[str, Any]) -> None:
    summary = StorySummary()
    summary.add(told(forwarded(1), forwarded(2, **other), forwarded(3)))
    assert [group.count for group in summary.groups()] == [2, 1]


def marked(number: int, *marks: int) -> Traveller:
    """A packet with marks, one after each function of a hook."""
    packet = Traveller(number, pf=2, hook=1, in_name=b"eth0")
    for place, mark in enumerate(marks, 1):
        packet.function("f", place, mark=mark)
    packet.leave(mark=marks[-1])
    packet.freed()
    return packet


def test_of_marks_it_matters_where_they_were_changed() -> None:
    summary = StorySummary()
    ways = [(0, 7), (0, 8), (4, 9), (0, 0), (5, 5)]
    summary.add(told(*(marked(number, *marks) for number, marks in enumerate(ways, 1))))
    assert [group.count for group in summary.groups()] == [3, 2]


def test_objects() -> None:
    summary = StorySummary()
    first, second, *_ = stories = told(*flood(3))
    summary.add(stories)
    [group] = summary.objects()
    assert group["type"] == "story_group"
    assert group["count"] == 3
    assert group["first_ns"] == first.began + first.clock_offset
    assert group["last_ns"] > second.ended + second.clock_offset
    assert group["example"]["packet"] == first.number


def test_the_number_of_groups_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story_summary, "MOST_GROUPS", 1)
    summary = StorySummary()
    summary.add(told(to_docker(), *flood(2, first=2)))
    assert (summary.count, summary.left_out, len(summary.groups())) == (3, 2, 1)
    assert summary.lines()[-1] == "3 packets, 1 way, 2 of ways for which there was no room"
