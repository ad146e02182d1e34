# SPDX-License-Identifier: GPL-2.0
"""Types of event payloads, and payloads without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ipttctl.bpf.btf import Int
from ipttctl.errors import LinkGoneError
from ipttctl.events.records import EventRecord, decode_events
from ipttctl.link.model import Link
from ipttctl.programs import payloads
from ipttctl.programs.payloads import PayloadTypes
from ipttproto import EventFlag, parse_batch
from tests.unit.ctl.support import batch_payload, event, nf_link


def record(payload: bytes | None, link: int = 4, generation: int = 1) -> EventRecord:
    flags = EventFlag.PAYLOAD if payload else 0
    one = event(link=link, generation=generation, flags=flags)
    [found] = decode_events(
        parse_batch(batch_payload([one], payloads={0: payload} if payload else {}))
    )
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The maps whose type was requested; that of map 33 is a number of four bytes."""
    maps: list[int] = []

    def find(map_id: int) -> Int | None:
        maps.append(map_id)
        return Int(name="int", size=4, signed=True) if map_id == 33 else None

    monkeypatch.setattr(payloads, "_type", find)
    return maps


def links(*known: Link) -> Callable[[int], Link]:
    def look_up(identifier: int) -> Link:
        for link in known:
            if link.id == identifier:
                return link
        raise LinkGoneError("looking up", 2)

    return look_up


def test_value_by_its_type(asked: list[int]) -> None:
    types = PayloadTypes(links(Link.from_attributes(nf_link())))
    number = (-5).to_bytes(4, "little", signed=True)
    assert [types.value(record(number)) for _ in range(3)] == [-5] * 3
    assert types.value(record(None)) is None
    assert types.value(record(b"\x01")) is None
    assert asked == [33]


def test_nothing_is_known(asked: list[int]) -> None:
    known = nf_link(generation=3)
    types = PayloadTypes(links(Link.from_attributes(known)))
    four = bytes(4)
    assert types.value(record(four, link=9)) is None
    assert types.value(record(four, generation=2)) is None
    assert types.value(record(four, generation=3)) == 0
    assert asked == [33]
    none = nf_link(link=5, programs={})
    types.learn(Link.from_attributes(none))
    assert types.value(record(four, link=5)) is None
    assert asked == [33]


def test_a_link_that_goes_is_learnt_before(asked: list[int]) -> None:
    types = PayloadTypes(links())
    types.learn(Link.from_attributes(nf_link()))
    assert types.value(record(b"\x07\0\0\0")) == 7
    assert asked == [33]


def test_swaps_do_not_fill_the_memory(asked: list[int]) -> None:
    current = Link.from_attributes(nf_link())
    other = Link.from_attributes(nf_link(link=5))
    types = PayloadTypes(lambda identifier: current if identifier == 4 else other)
    one, two = record(b"\x07\0\0\0"), record(b"\x08\0\0\0", link=5)
    for generation in range(1, 10_001):
        current = replace(current, generation=generation)
        assert types.value(one._replace(generation=generation)) == 7
        assert types.value(two) == 8
    assert len(types) == payloads._REMEMBERED < 10_000
    assert len(asked) == 10_001, "a link that is not swapped is looked up once"
