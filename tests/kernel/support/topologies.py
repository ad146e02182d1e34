# SPDX-License-Identifier: GPL-2.0
"""Traffic through namespaces, told as stories, and by others: devices, counters, sockets."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ipttctl.bpf.drop_reasons import DropReasons
from ipttctl.link.controller import Controller
from ipttctl.show.story_text import StoryText
from ipttctl.show.story_words import StorySources
from ipttctl.stories.model import DeviceStep, Story
from ipttctl.system.netns import socket_in
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.journeys import following
from tests.kernel.support.kernel import run, settled
from tests.kernel.support.network import Namespace
from tests.kernel.support.taps import Sight, Taps, taps

_IP_MTU_DISCOVER: Final = 10
_NOT_TRAFFIC: Final = frozenset({socket.IPPROTO_ICMP, socket.IPPROTO_IGMP})
#: lines that are not broken
_WIDE: Final = 1000


class Watched:
    """Stories of packets, and what the devices of the namespaces have seen meanwhile."""

    def __init__(self, namespaces: tuple[Namespace, ...], tapped: Taps) -> None:
        self._tapped = tapped
        self._names = {where.inode: where.name for where in namespaces}
        self.stories: list[Story] = []
        self.sights: list[Sight] = []
        self.errors: list[Story] = []
        """Stories of ICMP errors, which answer what is dropped."""

    def settle(self) -> None:
        """Wait until no packet moves any more."""
        settled(lambda: len(self._tapped.seen()))

    def one(self) -> Story:
        """The only story, but for those of errors."""
        [story] = self.stories
        return story

    def places(self, story: Story) -> list[str]:
        """The devices of a story and its copies, as sights have them."""
        found = []
        for step in story.steps:
            if isinstance(step, DeviceStep):
                record = story.plot.record(step.at)
                device = record.out_name if step.sent else record.in_name
                way = "to" if step.sent else "from"
                where = self._names.get(record.netns, str(record.netns))
                found.append(f"{where} {way} {device.rstrip(bytes(1)).decode()}")
        for branch in story.branches:
            found += self.places(branch)
        return found

    def check_devices(self, *unseen: str) -> None:
        """Compare the devices of all stories with those that saw packets.

        ``unseen`` are in stories only: nothing taps them.
        """
        ours = Counter(place for story in self.stories for place in self.places(story))
        ours.subtract(unseen)
        assert +ours == Counter(sight.place for sight in self.sights)
        # in their order, in each namespace
        for name in self._names.values() if len(self.stories) == 1 else ():
            if self.stories[0].branches:
                continue
            mine = [
                place
                for place in self.places(self.stories[0])
                if place.startswith(f"{name} ") and place not in unseen
            ]
            assert mine == [sight.place for sight in self.sights if sight.namespace == name]


@contextmanager
def watching(
    controller: Controller,
    make_program: MakeProgram,
    *namespaces: Namespace,
    expression: str = "ip and not igmp",
    shortest: int = 0,
) -> Iterator[Watched]:
    """Watch the packets that are sent meanwhile, until none moves any more.

    Packets of less than ``shortest`` bytes do not count: tunnels carry questions for neighbours.
    """
    with taps(*namespaces) as tapped:
        watched = Watched(namespaces, tapped)
        with following(controller, make_program, expression) as journey:
            yield watched
            watched.settle()
        watched.sights = [
            one
            for one in tapped.seen()
            if one.protocol not in _NOT_TRAFFIC and one.length >= shortest
        ]
    for story in journey.stories:
        if story.headers[0].length < shortest:
            continue
        is_error = story.headers[0].protocol == socket.IPPROTO_ICMP
        (watched.errors if is_error else watched.stories).append(story)


def text(story: Story) -> list[str]:
    """The lines of a story, with the kernel's names of reasons."""
    reasons = DropReasons.of_kernel()
    sources = StorySources(reason=reasons.name if reasons else None)
    return [
        " ".join(str(line).split()) for line in StoryText(_WIDE, sources=sources).lines([story])
    ]


def end_text(story: Story) -> str:
    """The answer of a story."""
    return text(story)[-1]


def socket_of(
    where: Namespace,
    kind: int = socket.SOCK_DGRAM,
    family: socket.AddressFamily = socket.AF_INET,
) -> socket.socket:
    """A socket in a namespace, held by this process."""
    fd = os.open(where.path, os.O_RDONLY)
    try:
        made = socket_in(fd, family, kind)
    finally:
        os.close(fd)
    made.settimeout(20)
    return made


@contextmanager
def listener(
    where: Namespace,
    port: int,
    kind: int = socket.SOCK_DGRAM,
    *,
    address: str = "",
    prepare: Callable[[socket.socket], None] | None = None,
) -> Iterator[socket.socket]:
    """A socket that takes packets in a namespace."""
    with socket_of(where, kind) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if prepare is not None:
            prepare(made)
        made.bind((address, port))
        if kind == socket.SOCK_STREAM:
            made.listen()
        yield made


def send(
    where: Namespace,
    address: str,
    port: int,
    size: int = 1,
    *,
    count: int = 1,
    device: str = "",
) -> None:
    """Send datagrams from a namespace."""
    with socket_of(where) as sender:
        # without the flag that forbids fragments
        sender.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, 0)
        if device:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        for _ in range(count):
            # an error that came back for one before
            with suppress(ConnectionRefusedError):
                sender.sendto(b"x" * size, (address, port))


def nft(where: Namespace, rules: str) -> None:
    """Load a ruleset."""
    run("ip", "netns", "exec", where.name, "nft", "-f", "-", text=rules)


def nft_counts(where: Namespace, chain: str) -> list[int]:
    """The packets that the counters of a chain's rules have counted, in the order of the rules."""
    listing = json.loads(where.run("nft", "-j", "list", "ruleset"))["nftables"]
    rules = [one["rule"] for one in listing if "rule" in one and one["rule"]["chain"] == chain]
    counters = ([part for part in rule["expr"] if "counter" in part] for rule in rules)
    return [parts[0]["counter"]["packets"] for parts in counters if parts]


def statistic(where: Namespace, name: str) -> int:
    """A counter of the kernel's network in a namespace."""
    return int(where.run("nstat", "-asz", name).splitlines()[1].split()[1])


def set_up(device: str, *addresses: str) -> list[str]:
    """The commands that give a device addresses, and set it up."""
    return [
        *(f"address add {address} dev {device}" for address in addresses),
        f"link set {device} addrgenmode none up",
    ]
