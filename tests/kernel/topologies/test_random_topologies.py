# SPDX-License-Identifier: GPL-2.0
"""Stories in random topologies with random rules, compared with packet sockets, rules and sockets.

``IPTT_TOPOLOGIES`` is the number of topologies, ``IPTT_FIRST_TOPOLOGY`` that of the first one, and
``IPTT_SEED`` chooses others.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

import pytest

from ipttctl.link.controller import Controller
from ipttctl.stories.model import EndKind, PacketField, Passage, Story
from ipttproto import Kind
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.journeys import told
from tests.kernel.support.kernel import wait_for
from tests.kernel.support.random_topology import (
    OTHER_PORTS,
    PACKETS,
    PORTS,
    VRF,
    WATCH,
    Row,
    RulePlace,
    plan,
    row,
)
from tests.kernel.support.topologies import (
    Watched,
    listener,
    socket_of,
    watching,
)

SEED: Final = int(os.environ.get("IPTT_SEED", "1"))
FIRST: Final = int(os.environ.get("IPTT_FIRST_TOPOLOGY", "0"))
TOPOLOGIES: Final = int(os.environ.get("IPTT_TOPOLOGIES", "5"))
#: packets are known by their lengths, which no address or tunnel brings near each other
STEP: Final = 100
HEADERS: Final = 28
SOURCE_PORT: Final = 4000

Arrivals = dict[int, tuple[int, tuple[str, int]]]


def number_of(length: int) -> int:
    """The number of a packet, by its length or that of the tunnel's packet."""
    return (length - HEADERS) // STEP - 1


def exchange(net: Row, watched: Watched) -> Arrivals:
    """Send a datagram to each port; returns the port and sender of those that came, by number."""
    arrived: Arrivals = {}
    with ExitStack() as stack:
        receivers = {
            port: stack.enter_context(listener(net.server, port)) for port in (*PORTS, *OTHER_PORTS)
        }
        for number, port in enumerate(PORTS):
            with socket_of(net.client) as sender:
                sender.bind(("", SOURCE_PORT + number))
                sender.sendto(b"x" * STEP * (number + 1), (net.server_address, port))
        watched.settle()
        for port, receiver in receivers.items():
            receiver.setblocking(False)
            while True:
                try:
                    data, sender_address = receiver.recvfrom(1 << 16)
                except BlockingIOError:
                    break
                arrived[len(data) // STEP - 1] = port, sender_address
    return arrived


def rules_of(passage: Passage, story: Story) -> list[RulePlace]:
    """The rules that a packet matched at a hook, but for those that only count."""
    found = [
        place(story, rule.at)
        for call in passage.calls
        for consulted in call.consulted
        for rule in consulted.rules
        if story.record(rule.at).kind in {Kind.RULE, Kind.CHAIN_RULE}
    ]
    return [one for one in found if one.table != WATCH]


def rules_met(story: Story) -> list[RulePlace]:
    """The rules that a packet matched on its way."""
    passages = (step for step in story.steps if isinstance(step, Passage))
    return [rule for passage in passages for rule in rules_of(passage, story)]


def place(story: Story, at: int) -> RulePlace:
    """The rule of an event."""
    record = story.record(at)
    table, chain = (name.rstrip(b"\0").decode() for name in (record.table, record.chain))
    return RulePlace(record.netns, table, chain, record.rulenum)


def check_devices(story: Story, watched: Watched, number: int) -> None:
    """Compare the devices of a story with those that saw the packet, in their order."""
    # nothing but a packet socket on that very device sees what a VRF takes in
    ours = [one for one in watched.places(story) if not one.endswith(f"from {VRF}")]
    theirs = [sight for sight in watched.sights if number_of(sight.length) == number]
    assert Counter(ours) == Counter(sight.place for sight in theirs)
    for name in {sight.namespace for sight in theirs}:
        assert [one for one in ours if one.startswith(f"{name} ")] == [
            sight.place for sight in theirs if sight.namespace == name
        ]


def check_marks(story: Story, net: Row) -> None:
    """Compare the changes of the mark with the rules that set it."""
    told_changes, expected = [], []
    mark, netns = 0, 0
    for step in story.steps:
        if not isinstance(step, Passage):
            continue
        record = story.record(step.first)
        if record.netns != netns:
            # another namespace takes it off
            mark, netns = 0, record.netns
        before = mark
        for met in rules_of(step, story):
            rule = net.rule(met)
            mark = int(rule.value) if rule.action == "mark" else mark
        if mark != before:
            expected.append((before, mark))
        told_changes += [
            (story.record(change.before).mark, story.record(change.after).mark)
            for call in step.calls
            for change in call.changes
            if change.field is PacketField.MARK
        ]
    assert told_changes == expected


def check_end(story: Story, arrived: tuple[int, tuple[str, int]] | None) -> None:
    """Compare the end of a story with what came to the server."""
    if arrived is None:
        assert story.end.kind is EndKind.RULE
        return
    port, (source, source_port) = arrived
    headers = story.headers[story.end.at]
    assert story.end.kind is EndKind.DELIVERED
    assert (headers.dport, headers.sport) == (port, source_port)
    assert socket.inet_ntoa(headers.saddr[:4]) == source


def blamed(stories: Sequence[Story]) -> Counter[RulePlace]:
    """The rules that dropped packets, with their numbers of packets."""
    return Counter(place(one, one.end.blame) for one in stories if one.end.blame is not None)


@pytest.mark.parametrize("number", range(FIRST, FIRST + TOPOLOGIES))
def test_a_random_topology(number: int, controller: Controller, make_program: MakeProgram) -> None:
    planned = plan(SEED, number)
    with row(planned) as net:
        # addresses of bridges and tunnels take their time
        wait_for(
            lambda: "1 received" in net.client.ping(net.server_address, check=False),
            what=f"an answer in {planned}",
        )
        net.load_rules()
        with watching(controller, make_program, *net.namespaces, expression="udp") as watched:
            arrived = exchange(net, watched)
        counted = net.counted()
        stories = {number_of(one.headers[0].length): one for one in watched.stories}
        assert sorted(stories) == list(range(PACKETS))
        assert len(watched.stories) == PACKETS
        for packet, story in stories.items():
            context = f"packet {packet} of {planned}: {told(story)}"
            try:
                check_devices(story, watched, packet)
                check_end(story, arrived.get(packet))
                check_marks(story, net)
            except AssertionError as error:
                raise AssertionError(f"{context}\n{error}") from error
        met = Counter(rule for story in watched.stories for rule in rules_met(story))
        assert met == counted, planned
        drops = {one: packets for one, packets in counted.items() if net.rule(one).action == "drop"}
        assert blamed(watched.stories) == drops
