# SPDX-License-Identifier: GPL-2.0
"""Equal stories are counted, and told once."""

from __future__ import annotations

from typing import Any

import pytest

from ipttctl.show import story_summary
from ipttctl.show.story_json import story_object
from ipttctl.show.story_summary import StorySummary
from ipttctl.show.story_words import StorySources
from ipttctl.show.told_story import ToldForm
from ipttctl.show.told_summary import ToldSummary
from ipttctl.stories.model import Story
from ipttctl.system.containers import Container
from ipttctl.system.processes import Process
from ipttctl.system.who import Participant, Receiver
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


def to_socket(number: int, inode: int, uid: int = 0, *, refused: bool = False) -> Traveller:
    """A packet that comes to a socket, which takes it, or does not."""
    packet = Traveller(number)
    packet.received("eth0")
    packet.socket(inode, uid=uid)
    if refused:
        packet.dropped(5, "sock_queue_rcv_skb")
    else:
        packet.freed()
    return packet


#: the processes of sockets: two workers of a server, and others
HOLDERS = {
    22: Participant(Process(812, 0, "sshd", 0, "")),
    80: Participant(Process(31, 0, "nginx", 33, ""), "nginx.service", user="www-data"),
    81: Participant(Process(32, 0, "nginx", 33, ""), "nginx.service", user="www-data"),
    82: Participant(Process(33, 0, "nginx", 1000, ""), "session-3.scope", user="alice"),
    83: Participant(Process(34, 0, "nginx", 1000, ""), "session-4.scope", user="alice"),
    84: Participant(Process(35, 0, "nginx", 33, ""), container=Container("docker", "1", "web")),
    85: Participant(Process(36, 0, "nginx", 33, ""), container=Container("docker", "2", "db")),
}
RECEIVED = StorySources(
    socket=lambda inode, _, uid: Receiver(inode, uid, (HOLDERS[inode],) if inode < 100 else ())
)


def counts(stories: list[Story]) -> tuple[list[int], list[int]]:
    """The sizes of the groups here, and where these stories are told by another host."""
    summary = StorySummary(RECEIVED)
    summary.add(stories)
    there = ToldSummary(ToldForm())
    where = {"host": "web1"}
    for story in stories:
        there.add(story_object(story, RECEIVED), where)
    of_others = [group["count"] for group in there.objects()]
    return [group.count for group in summary.groups()], of_others


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize(
    ("sockets", "groups"),
    [
        ([22, 80, 80, 80], [3, 1]),
        ([80, 81], [2]),
        ([80, 82], [1, 1]),
        ([82, 83], [2]),
        ([84, 85], [1, 1]),
        ([100, 101], [2]),
        ([80, 100], [1, 1]),
    ],
)
def test_who_takes_packets_matters_and_not_which_worker(
    sockets: list[int], groups: list[int], *, refused: bool
) -> None:
    stories = told(*(to_socket(*one, refused=refused) for one in enumerate(sockets, 1)))
    assert counts(stories) == (groups, groups)


def test_of_sockets_that_nobody_is_known_to_hold_it_is_their_user() -> None:
    stories = told(to_socket(1, 100), to_socket(2, 101, uid=33), to_socket(3, 102, uid=33))
    assert counts(stories) == ([2, 1], [2, 1])


def test_an_example_has_the_receiver_that_was_known_when_it_was_counted() -> None:
    known = {22: Receiver(22, 0, (HOLDERS[22],))}
    summary = StorySummary(StorySources(socket=lambda inode, *_: known.get(inode)), width=100)
    summary.add(told(to_socket(1, 22)))
    known.clear()
    assert "delivered to sshd (pid 812)" in summary.lines()[2]
    [group] = summary.objects()
    assert group["example"]["end"]["socket"]["holders"][0]["comm"] == "sshd"


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
