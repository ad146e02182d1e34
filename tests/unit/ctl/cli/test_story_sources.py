# SPDX-License-Identifier: GPL-2.0
"""The names in stories: processes are looked up when their events come, not when they are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ipttctl.cli.rule_texts import RuleTexts
from ipttctl.cli.story_sources import StoryNames
from ipttctl.events.records import EventRecord
from ipttctl.show.rule import Rule
from ipttctl.show.story_words import sender_of, socket_of
from ipttctl.stories.assemble import StoryAssembler
from ipttctl.system.namespace_names import NamespaceNames
from ipttctl.system.peers import Device, Peers
from ipttctl.system.who import Sending, Who
from ipttproto import EventFlag, Kind
from tests.unit.ctl.stories.packets import Traveller, joined


class _Who:
    """A look at processes, of which none is there for long."""

    def __init__(self) -> None:
        self.asked: list[Sending] = []
        self.sockets: list[tuple[int, int | None]] = []

    def sender(self, sent: Sending) -> str | None:
        self.asked.append(sent)
        return f"curl (pid {sent.pid})" if sent.pid == 7 else None

    def receiver(self, inode: int, moment: int, uid: int | None) -> str | None:
        del moment
        self.sockets.append((inode, uid))
        return "nginx (pid 31)" if inode == 4711 else None


class _Rules:
    """Texts of rules, which are those of the moment at which they are asked for first."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, int]] = []

    def of(self, records: Sequence[EventRecord]) -> Sequence[Rule | None]:
        self.asked += [(record.chain, record.rulenum) for record in records]
        return [None] * len(records)


class _Peers:
    """A look at devices, of which none is there for long."""

    def __init__(self) -> None:
        self.asked: list[tuple[Device, int]] = []

    def of(self, device: Device, moment: int) -> None:
        self.asked.append((device, moment))


def names(who: _Who) -> StoryNames:
    return StoryNames(cast(Who, who), NamespaceNames([]), None)


def test_senders_are_looked_up_once_for_events_that_come_together() -> None:
    who = _Who()
    packet = Traveller()
    for pid in (7, 0, 8, 7):
        packet.received("eth0", pid=pid, pid_start=pid + 1, cgroup=5, uid=3, comm=b"curl")
    names(who).learn(joined(packet.events))
    assert who.asked == [Sending(8, 5, 7, 3, b"curl"), Sending(9, 5, 8, 3, b"curl")]


def test_nobody_is_looked_for_where_there_is_no_sender() -> None:
    who = _Who()
    packet = Traveller()
    packet.received("eth0")
    names(who).learn(joined(packet.events))
    assert not who.asked


def test_sockets_and_senders_are_looked_up() -> None:
    who = _Who()
    sources = names(who).sources
    packet = Traveller(pid=7, flags=EventFlag.PID)
    packet.received("eth0")
    packet.socket(4711, uid=33)
    packet.freed()
    assembler = StoryAssembler()
    [story] = [*assembler.add_events(joined(packet.events)), *assembler.flush()]
    assert str(sender_of(story, sources)) == "curl (pid 7)"
    assert [one.pid for one in who.asked] == [7]
    at = story.end.socket
    assert at is not None
    assert str(socket_of(story, at, sources)) == "nginx (pid 31)"
    assert who.sockets == [(4711, 33)]


def test_reasons_of_drops_are_read_at_the_first_one() -> None:
    reason = names(_Who()).sources.reason
    assert reason
    assert reason(0xFFFE) is None


def test_rules_are_looked_up_when_their_first_event_comes() -> None:
    rules = _Rules()
    sources = StoryNames(cast(Who, _Who()), NamespaceNames([]), cast(RuleTexts, rules))
    packet = Traveller()
    packet.received("eth0")
    packet.nft(Kind.CHAIN_RULE, "input", 2)
    packet.legacy(Kind.RULE, "filter", "INPUT", 1)
    packet.nft(Kind.CHAIN_RULE, "input", 2)
    packet.legacy(Kind.EXIT, "filter", "INPUT", verdict=1)
    sources.learn(joined(packet.events))
    assert rules.asked == [(b"input", 2), (b"INPUT", 1)]
    sources.learn(joined(packet.events))
    assert len(rules.asked) == 2
    # the same rule of another ruleset may be another one
    packet.nft(Kind.CHAIN_RULE, "input", 2, ruleset=9)
    sources.learn(joined(packet.events))
    assert rules.asked[2:] == [(b"input", 2)]


def test_devices_are_looked_up_when_their_first_event_comes() -> None:
    peers = _Peers()
    sources = StoryNames(cast(Who, _Who()), NamespaceNames([]), None, cast(Peers, peers))
    packet = Traveller(netns_cookie=5, netns=4026531841)
    packet.received("veth0")
    packet.received("veth0")
    packet.sent("veth1", out_ifindex=3, in_ifindex=0, in_name=b"")
    sources.learn(joined(packet.events))
    first, _, third = (one["time"] for one in packet.events)
    asked = {(device, moment) for device, moment in peers.asked if device.ifindex}
    assert asked == {
        (Device(5, 4026531841, 2, b"veth0"), first),
        (Device(5, 4026531841, 3, b"veth1"), third),
    }
    peers.asked.clear()
    sources.learn(joined(packet.events))
    assert not peers.asked
