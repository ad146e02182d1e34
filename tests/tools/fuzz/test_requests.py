# SPDX-License-Identifier: GPL-2.0
"""Requests of the fuzzer: valid ones, invalid ones, and the same ones for the same seed."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from ipttctl.families import HOOKS, NfFamily
from ipttproto import Command, Hook, Message, ProtocolError, Slot, parse_datagram
from ipttproto.attributes import NLA_F_NESTED
from ipttproto.family import Top
from tests.fuzz.campaign import Campaign
from tests.fuzz.generate import REQUESTS, Generator
from tests.fuzz.mutate import EXTREMES, Mutator
from tests.fuzz.request import Node, Request, nest
from tests.fuzz.world import World

FAMILY_ID = 29
FILTER = struct.pack("=HBBI", 6, 0, 0, 1)


def world() -> World:
    made = World((5, 6), {"socket": 7, "closed": 8}, (FILTER,), (9, 10), {6: 11, 10: 11}, (12,))
    made.learn(
        Command.ATTACH,
        {"link": 40, "generation": 3, "programs": {"program": [{"slot": 2, "id": 77}]}},
    )
    return made


def parsed(data: bytes) -> Message:
    [message] = parse_datagram(FAMILY_ID, data)
    assert isinstance(message, Message)
    return message


@pytest.mark.parametrize("operation", REQUESTS, ids=lambda operation: operation.command.name)
@pytest.mark.parametrize("seed", range(20))
def test_right_requests_are_right(operation: object, seed: int) -> None:
    generator = Generator(world(), random.Random(seed))
    for chosen in REQUESTS:
        if chosen is not operation:
            continue
        message = parsed(generator.request(chosen).build(FAMILY_ID, 9))
        values = message.attributes()
        assert message.command == chosen.command
        assert tuple(values) == tuple(name for name in chosen.request if name in values)
        without_family = {"family"} if values.get("hook") == Hook.JOURNEY else set()
        assert {*chosen.request} - {*values} <= OPTIONAL | without_family
        # a parsed request can be built: everything is within the protocol's bounds
        assert Top.parse(Top.build(values)) == values
        if "link" in chosen.request:
            assert "link" in values or {"transaction", "name"} & values.keys()
        if "link" in values:
            assert values["link"] == 40
            assert "transaction" not in values
        for guard in (*values.get("guard", ()), *values.get("promote-if", ())):
            assert {"counter", "comparison", "threshold"} <= guard.keys()
            assert not {"per-time", "per-packets"} <= guard.keys()
        if "expect-generation" in values:
            assert values["expect-generation"] == 3
        for expected in values.get("expect-program", ()):
            assert expected["id"] == (77 if expected["slot"] == Slot.RULE else 0)
        if "programs" in values:
            check_programs(values["programs"], values)
        for change in values.get("change", ()):
            assert change["link"] == 40
            check_programs(change["programs"], {})
        if values.get("hook") == Hook.NF:
            assert values["hooknum"] in HOOKS[NfFamily(values["family"])].values()
            ingress = values["hooknum"] == HOOKS[NfFamily(values["family"])].get("ingress")
            assert ("ifindex" in values) == ingress
            assert not OF_CHAINS & values.keys()
        elif values.get("hook") == Hook.TABLE:
            assert not (OF_HOOKS | OF_CHAINS) & values.keys()


OF_HOOKS = {"hooknum", "priority", "netns-fd", "ifindex", "mode"}
OF_CHAINS = {"table", "chain"}
OPTIONAL = (
    OF_HOOKS
    | OF_CHAINS
    | {
        "rollback-after",
        "journey",
        "journey-ways",
        "name",
        "labels",
        "reason-text",
        "flags",
        "force",
        "guard",
        "promote-if",
        "expect-shadow",
        # the ways to name a swap that waits
        "link",
        "expect-generation",
        "transaction",
        "restore",
    }
)


def check_programs(programs: dict[str, Any], place: dict[str, Any]) -> None:
    """Check that a set fits the hook that ``place`` names, tables if it names none."""
    slots = [program["slot"] for program in programs["program"]]
    assert len(slots) == len(set(slots))
    nf = place.get("hook") == Hook.NF
    fds = {program["fd"] for program in programs["program"]}
    assert fds <= ({9, 10} if nf else {5, 6})
    assert set(slots) == {Slot.PACKET} if nf else Slot.PACKET not in slots
    journey = place.get("hook") == Hook.JOURNEY
    assert set(slots) == {Slot.STEP} if journey else Slot.STEP not in slots
    unfiltered = journey or place.get("family") == NfFamily.ARP
    assert programs.get("filter") == (None if unfiltered else FILTER)
    if "payload-fd" in programs:
        assert programs["payload-fd"] == 11
        assert fds & {6, 10}


def test_every_operation_and_every_way_to_go_wrong_comes_up() -> None:
    pick = random.Random(1)
    generator = Generator(world(), pick)
    commands = {generator.request().command for _ in range(400)}
    assert commands == {operation.command for operation in REQUESTS}

    mutator = Mutator(world(), generator, pick)
    for way in mutator.ways:
        changed = 0
        for _ in range(200):
            request = generator.request(REQUESTS[pick.randrange(2)])
            before = request.copy()
            way(request)
            changed += request != before
        assert changed > 20, way.__name__


def test_the_same_seed_makes_the_same_requests() -> None:
    def some(seed: int) -> list[bytes]:
        campaign = Campaign(None, world(), seed)  # type: ignore[arg-type]  # nothing is sent
        return [campaign.next_request().build(FAMILY_ID, n) for n in range(300)]

    assert some(1) == some(1)
    assert some(1) != some(2)


def test_most_requests_are_wrong_and_some_are_right() -> None:
    campaign = Campaign(None, world(), 3)  # type: ignore[arg-type]  # nothing is sent
    right = 0
    for number in range(1000):
        try:
            message = parsed(campaign.next_request().build(FAMILY_ID, number))
            right += Top.build(message.attributes()) == bytes(message.payload)
        except (ProtocolError, ValueError):
            continue
    assert 50 < right < 800


def test_a_link_that_was_detached_is_not_named_any_more() -> None:
    known = world()
    known.learn(Command.DETACH, {"link": 40})
    assert not known.links
    known.learn(Command.STATS, {"fingerprint": 1})
    assert not known.links
    assert known.some_link(random.Random(1)).id < 4


def test_requests_from_before_name_what_is_there_now() -> None:
    pick = random.Random(1)
    known = world()
    generator = Generator(known, pick)
    request = generator.request(next(o for o in REQUESTS if o.command == Command.GET))
    known.links.clear()
    known.learn(Command.ATTACH, {"link": 99, "generation": 1})
    mutator = Mutator(known, generator, pick)
    for _ in range(20):
        mutator.refresh(request)
    assert parsed(request.build(FAMILY_ID, 1)).attributes() == {"link": 99}


def test_what_a_request_may_get_wrong_is_in_its_bytes() -> None:
    node = Node(1, b"\1\0\0\0")
    right = Request(Command.GET, [node])
    data = right.build(FAMILY_ID, 7)
    assert parsed(data).attributes() == {"link": 1}
    assert Request(Command.GET, [node], tail=b"xyz").build(FAMILY_ID, 7)[-3:] == b"xyz"
    assert len(Request(Command.GET, [node], cut=3).build(FAMILY_ID, 7)) == len(data) - 3
    assert Request(Command.GET, [node], cut=300).build(FAMILY_ID, 7)[20:] == b""
    assert Request(Command.GET, [node], patches=[(8, 9)]).build(FAMILY_ID, 7)[20] == 9
    lying = Request(Command.GET, [node], lie=-1000)
    assert int.from_bytes(lying.build(FAMILY_ID, 7)[:4], "little") == 0
    assert not lying.answered
    node.length = 0xFFFF
    with pytest.raises(ProtocolError, match="says 65535 bytes"):
        parsed(right.build(FAMILY_ID, 7)).attributes()


def test_a_copy_is_changed_alone() -> None:
    inner = Node(1, b"\1\0\0\0")
    request = Request(Command.ATTACH, [nest(5, [inner])])
    before = request.build(FAMILY_ID, 1)
    copied = request.copy()
    copied.all_nodes()[-1].payload = b"\2\0\0\0"
    copied.nodes[0].number ^= NLA_F_NESTED
    assert request.build(FAMILY_ID, 1) == before != copied.build(FAMILY_ID, 1)


def test_extremes_hold_the_bounds_of_the_protocol() -> None:
    assert {3, 4, 10, 11, 127, 128, 129, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 64) - 1} <= set(EXTREMES)
