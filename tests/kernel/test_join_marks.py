# SPDX-License-Identifier: GPL-2.0
"""Marks of packets that are cut or merged on their way, as bpf/join.c makes them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from ipttctl.bpf.filters import compile_filter
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.joins.marks import Mark, Way, decode_mark
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttctl.programs.join import KEY_SIZE, JoinPrograms, load_join_programs
from ipttproto import Slot
from tests.kernel.support.network import Network, network, send_udp
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


def send_many(address: str, port: int, size: int, segment: int) -> None:
    """Have UDP GSO make datagrams of these bytes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, segment)
        for _ in range(2):
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
        lambda: place.left.call(send_many, place.right_address, 12, 1000, 400),
    )
    many = [mark for mark in found if mark.segment]
    cut = [mark for mark in found if not mark.segment]
    for way in Way:
        assert [one.payload for one in seen(many, way).values()] == [1000] * 2
        assert [one.payload for one in seen(cut, way).values()] == [400, 400, 200] * 2
    assert {one.segment for one in many} == {400}
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
