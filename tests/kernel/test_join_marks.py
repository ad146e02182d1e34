# SPDX-License-Identifier: GPL-2.0
"""Marks of packets that are cut or merged on their way, as bpf/join.c makes them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import reduce
from operator import xor
from typing import Any

import pytest

from ipttctl.bpf.filters import compile_filter
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.joins.marks import Mark, Way, decode_mark
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttctl.programs.join import KEY_SIZE, JoinPrograms, load_join_programs
from ipttproto import Slot, TcpFlag
from tests.kernel.support.network import Network, event, network, send_udp
from tests.kernel.support.observing import records_of
from tests.kernel.support.tunnels import wireguard

UDP_SEGMENT = 103


@pytest.fixture(scope="module")
def programs() -> Iterator[JoinPrograms]:
    with closing(load_join_programs(bytes(range(KEY_SIZE)))) as loaded:
        yield loaded


@pytest.fixture
def place() -> Iterator[Network]:
    with network("j") as made:
        yield made


def marks(
    controller: Controller, programs: JoinPrograms, expression: str, send: Callable[[], None]
) -> list[Mark]:
    """The marks of the packets that are sent meanwhile, in their order."""
    departures = ProgramSet({Slot.STEP: programs.step}, payload=programs.departures)
    slots = {Slot.ENTRY: programs.entry, Slot.FUNCTION: programs.function, Slot.EXIT: programs.exit}
    arrivals = ProgramSet(slots, compile_filter(expression), payload=programs.arrivals)
    with records_of(controller) as seen:
        journey = controller.attach(JourneyHook(), departures)
        link = controller.attach(SpineHook(), arrivals, journey=journey.id)
        send()
        controller.detach(link.id)
        controller.detach(journey.id)
    found = (decode_mark(event.payload) for event in seen)
    return [mark for mark in found if mark is not None]


def seen(found: list[Mark], way: Way) -> dict[tuple[object, ...] | None, Mark]:
    """Marks by their keys. A packet that comes in has one at each hook on its way."""
    return {mark.key: mark for mark in found if mark.way is way}


def send_many(address: str, port: int, size: int, *segments: int) -> None:
    """Have UDP GSO make datagrams of these bytes, once in each size.

    Their numbers may meet: each packet that is to be cut takes one alone.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for segment in segments:
            sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, segment)
            sender.sendto(bytes(size), (address, port))


def test_datagrams_that_gso_cuts(
    controller: Controller, programs: JoinPrograms, place: Network
) -> None:
    """The router gets them as one packet, and cuts it for its other device."""
    place.router.run("ethtool", "-K", "r2", "tx-udp-segmentation", "off")
    found = marks(
        controller,
        programs,
        "udp port 12",
        lambda: place.left.call(send_many, place.right_address, 12, 1000, 400, 300),
    )
    many = [mark for mark in found if mark.segment]
    cut = [mark for mark in found if not mark.segment]
    for way in Way:
        assert [one.payload for one in seen(many, way).values()] == [1000] * 2
        assert [one.payload for one in seen(cut, way).values()] == [
            400,
            400,
            200,
            300,
            300,
            300,
            100,
        ]
    assert {one.segment for one in many} == {400, 300}
    assert {one.flow for one in many} == {one.flow for one in cut}


@pytest.mark.parametrize("version", [4, 6])
def test_fragments(
    controller: Controller, programs: JoinPrograms, place: Network, version: int
) -> None:
    """Nothing puts them together before they have arrived."""
    address = place.right_address if version == 4 else place.right_address6
    later = "ip[6:2] & 0x1fff != 0" if version == 4 else "ip6 proto 44"
    found = marks(
        controller,
        programs,
        f"udp port 12 or ({later})",
        lambda: place.left.call(send_udp, address, 12, [bytes([one]) * 4000 for one in (1, 2)]),
    )
    left, came = seen(found, Way.DEPARTURE), seen(found, Way.ARRIVAL)
    # three of each datagram; IPv6 has none put together before the last hook
    assert len(left) == 2 * 3
    assert None not in left
    assert [key for key, mark in came.items() if mark.fragment] == list(left)
    whole = [mark.payload for mark in came.values() if not mark.fragment]
    assert whole == ([4000] * 2 if version == 4 else [])


def test_a_tunnel_is_crossed_by_what_is_inside(
    controller: Controller, programs: JoinPrograms, place: Network
) -> None:
    """The router sees its outside only."""
    with wireguard(place):
        found = marks(
            controller,
            programs,
            "udp port 12",
            lambda: place.left.call(send_udp, "10.6.0.2", 12, [b"inside"]),
        )
    inside = [mark for mark in found if mark.destination == "10.6.0.2"]
    left, came = seen(inside, Way.DEPARTURE), seen(inside, Way.ARRIVAL)
    assert len(left) == 1
    assert list(left) == list(came)


def upload(family: socket.AddressFamily, address: str, size: int) -> None:
    """Send bytes over a connection, and wait until the other side has closed it."""
    with socket.socket(family, socket.SOCK_STREAM) as sender:
        sender.settimeout(60)
        sender.connect((address, 81))
        sender.sendall(bytes(size))
        sender.shutdown(socket.SHUT_WR)
        assert not sender.recv(1)


def take(family: socket.AddressFamily, ready: Any) -> None:
    """Read all bytes of a connection."""
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind(("", 81))
        server.listen()
        ready.set()
        with server.accept()[0] as taken:
            while taken.recv(1 << 16):
                pass


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_bytes_of_a_connection(
    controller: Controller,
    programs: JoinPrograms,
    place: Network,
    family: socket.AddressFamily,
) -> None:
    """Cut and merged on their way as each device likes, they are the same at both ends."""
    size = 150_000
    address = place.right_address if family == socket.AF_INET else place.right_address6
    for router in ("r1", "r2"):
        place.router.run("ethtool", "-K", router, "gro", "on")
    place.router.run("ethtool", "-K", "r2", "tso", "off")
    ready = event()
    server = place.right.start(take, family, ready)
    assert ready.wait(60)
    found = marks(
        controller, programs, "tcp port 81", lambda: place.left.call(upload, family, address, size)
    )
    server.join(60)
    there = [mark for mark in found if mark.destination == address]
    back = [mark for mark in found if mark.source == address]
    opening = {mark for mark in there if mark.tcp_flags == TcpFlag.SYN}
    [began] = {mark.sequence for mark in opening}
    # what the other side makes of it says that the numbers are read right
    for mark in back:
        if mark.tcp_flags & TcpFlag.SYN:
            assert mark.acknowledged == (began + 1) % 2**32
            assert mark.echoed in {one.timestamp for one in opening}
    assert max((mark.acknowledged - began) % 2**32 for mark in back) == size + 2
    left = [mark for mark in there if mark.has_data and mark.way is Way.DEPARTURE]
    came = [mark for mark in there if mark.has_data and mark.way is Way.ARRIVAL]
    for some in (left, came):
        reached = 1
        for first, payload in sorted(((m.sequence - began) % 2**32, m.payload) for m in some):
            assert first <= reached
            reached = max(reached, first + payload)
        assert reached == size + 1
    # some were cut on their way
    assert any(one.span != other.span and overlap(one, other) for one in left for other in left)
    for mark in came:
        assert any(one.key == mark.key and overlap(one, mark) for one in left), mark


def overlap(one: Mark, other: Mark) -> bool:
    """Whether two marks have bytes in common."""
    return one.span[0] < other.span[1] and other.span[0] < one.span[1]


def rounds(state: list[int], count: int) -> None:
    """Mix the state of SipHash."""

    def add(one: int, other: int) -> None:
        state[one] = (state[one] + state[other]) % 2**64

    def turn(one: int, other: int, bits: int) -> None:
        turned = (state[one] << bits | state[one] >> (64 - bits)) % 2**64
        state[one] = turned ^ state[other]

    for _ in range(count):
        for pairs in (((0, 1), (2, 3), (13, 16), 0), ((2, 1), (0, 3), (17, 21), 2)):
            (one, other), (third, fourth), (few, many), half = pairs
            add(one, other)
            add(third, fourth)
            turn(other, one, few)
            turn(fourth, third, many)
            state[half] = (state[half] << 32 | state[half] >> 32) % 2**64


def siphash(key: bytes, payload: bytes) -> int:
    """SipHash-2-4 (Aumasson and Bernstein) of the first 64 bytes, and of how many there are."""
    low, high = (int.from_bytes(half, "little") for half in (key[:8], key[8:]))
    state = [
        part ^ int.from_bytes(text, "big")
        for part, text in zip(
            (low, high, low, high),
            (b"somepseu", b"dorandom", b"lygenera", b"tedbytes"),
            strict=True,
        )
    ]
    hashed = payload[:64]
    for word in struct.unpack("<9Q", hashed.ljust(64, b"\0") + struct.pack("<Q", len(hashed))):
        state[3] ^= word
        rounds(state, 2)
        state[0] ^= word
    state[2] ^= 0xFF
    rounds(state, 4)
    return reduce(xor, state)


def test_payloads_are_hashed_with_the_key(
    controller: Controller, programs: JoinPrograms, place: Network
) -> None:
    """Who has no key cannot tell what was sent by trying."""
    payloads = [b"", b"x", bytes(range(64)), bytes(range(64)) + b"behind", b"y" * 500]
    with closing(load_join_programs(bytes(KEY_SIZE))) as others:
        for key, loaded in ((bytes(range(KEY_SIZE)), programs), (bytes(KEY_SIZE), others)):
            found = marks(
                controller,
                loaded,
                "udp port 12",
                lambda: place.left.call(send_udp, place.right_address, 12, payloads),
            )
            hashes = {mark.payload: mark.hash for mark in found}
            expected = {len(one): siphash(key, one) if one else None for one in payloads}
            assert hashes == expected
