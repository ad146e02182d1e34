# SPDX-License-Identifier: GPL-2.0
"""Events that are shown together read as if each had been shown by itself."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import pytest

from ipttctl.events.packets import PacketCounter
from ipttctl.events.records import EventRecord, decode_event
from ipttctl.show import event_json, packet_text
from ipttctl.show.event_blocks import EventBlocks
from ipttctl.show.event_json import EventJson
from ipttctl.show.event_table import EventTable
from ipttctl.show.event_text import TimeFormat
from ipttctl.show.render_json import dumps, event_object
from ipttctl.show.rule import Rule
from ipttctl.system.namespace_names import NamespaceNames
from ipttproto import EVENT_DTYPE, EventBatch, EventFlag, JoinedBatches, Kind, parse_batch
from tests.unit.ctl.support import batch_payload, event

Show = Callable[[JoinedBatches], Sequence[str]]

#: values that members have again and again; numbers without any are small ones
VALUES: dict[str, Sequence[Any]] = {
    "time": range(4_999_999_000, 6_000_000_000, 1234567),
    "cost": range(0, 3_000_000, 1789),
    # but for those of no packet, which are shown apart
    "kind": [kind for kind in range(max(Kind) + 1) if kind != Kind.LEFT_OUT],
    "flags": range(512),
    "pf": (2, 2, 2, 10, 7, 5, 3, 1),
    "protocol": (6, 6, 17, 1, 58, 47, 132, 253),
    "ethertype": (0x800, 0x806, 0x86DD, 0x88CC, 0x1234),
    "verdict": (0, 1, 1, 3, 0xFFFFFFFF, 0xFFFFFFFD),
    "saddr": (bytes([10, 0, 0, 1]), bytes(range(16))),
    "daddr": (bytes([10, 0, 0, 2]), bytes(range(1, 17))),
    "dmac": (bytes(6), bytes(range(6))),
    "length": range(40, 1501),
    "sport": range(1024, 1 << 16),
    "pid_start": range(8_000_000_000, 9_000_000_000, 1234567),
    **dict.fromkeys(("in_name", "out_name", "physin_name"), (b"", b"lo", b"a b\x1b", b"eth100")),
    **dict.fromkeys(("table", "chain", "target"), (b"", b"filter", b"%d{}", b"K-\\x\n")),
}


class Names:
    """Names of namespaces, one of which gets lost."""

    def name(self, cookie: int, moment: int | None = None) -> str | None:
        """The name at a moment."""
        lost = moment is not None and moment > 5_500_000_000
        return {1: "blue", 2: None if lost else "r\ned x"}.get(cookie)


def _value(choose: random.Random, member: str, usual: object) -> object:
    if member in VALUES:
        return choose.choice(VALUES[member])
    return choose.randrange(3) if isinstance(usual, int) else usual


def _batches(seed: int) -> list[EventBatch]:
    choose = random.Random(seed)
    usual = event()
    pool = [{m: _value(choose, m, value) for m, value in usual.items()} for _ in range(12)]
    batches, sequence = [], 0
    for size in choose.choices([1, 2, 8, 30], k=12):
        events = []
        for _ in range(size):
            members = choose.choice(pool)
            others = choose.sample(list(members), choose.choice([0, 0, 1, 4]))
            others += ["time", "cost", "length", *choose.choice([[], ["sport", "ct_id"]])]
            events.append(members | {m: _value(choose, m, usual[m]) for m in others})
        payloads = {place: bytes(place) for place in range(size) if choose.random() < 0.2}
        payload = batch_payload(
            [event(**cast("dict[str, Any]", one)) for one in events],
            cpu=choose.randrange(3),
            sequence=sequence,
            clock_offset=choose.choice([10**18, -5]),
            payloads=payloads,
        )
        batches.append(parse_batch(payload))
        sequence += size
    return batches


def _payload(record: EventRecord) -> object:
    return [None, {"a": "x y\x1b"}, [1, 2]][len(record.payload) % 3]


def _rules(records: Sequence[EventRecord]) -> list[Rule | None]:
    known = (None, Rule("dport 22 \x1b", owner="kube", about="x\ny"), Rule(None, "gone"))
    return [known[(record.rule_handle + record.kind) % 3] for record in records]


OPTIONS = [
    {
        "time_format": time_format,
        "link_columns": link_columns,
        "colour": colour,
        "names": Names(),
        "payload": _payload,
        "links": (1,),
        "rules": rules,
    }
    for time_format, link_columns, colour, rules in itertools.product(
        TimeFormat, (False, True), (False, True), (None, _rules)
    )
]
COLUMNS = (None, ("TIME", "IPTABLES_INFO", "PKT_INFO"), ("NETWORK_NS", "GEN", "INTERFACE", "CPU"))


def _shown(show: Show, batches: Sequence[EventBatch], together: int) -> list[str]:
    lines: list[str] = []
    for begin in range(0, len(batches), together):
        lines += show(JoinedBatches.of(batches[begin : begin + together]))
    return lines


@pytest.mark.parametrize("seed", range(3))
def test_text(seed: int) -> None:
    batches = _batches(seed)
    for options in OPTIONS:
        made: list[Callable[[], EventTable | EventBlocks]]
        made = [partial(EventTable, columns, **options) for columns in COLUMNS]
        made.append(partial(EventBlocks, 90, **options))
        for make in made:
            alone = _alone(make().lines, batches)
            assert _shown(make().lines, batches, 1) == alone
            assert _shown(make().lines, batches, 5) == alone


def _alone(show: Show, batches: Sequence[EventBatch]) -> list[str]:
    return [line for one in JoinedBatches.of(batches).each() for line in show(one)]


def test_words_of_a_packet_are_made_once_for_its_rules_and_verdicts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[EventRecord] = []

    def counted(record: EventRecord) -> str:
        made.append(record)
        return words(record)

    words = packet_text.packet_text
    monkeypatch.setattr(packet_text, "packet_text", counted)
    kinds = (Kind.RULE, Kind.EXIT, Kind.CHAIN_RULE, Kind.PACKET, Kind.DISAGREE)
    table = EventTable(("PKT_INFO",))
    for some in (kinds[:3], kinds[3:]):
        events = [event(kind=kind) for kind in some]
        table.lines(JoinedBatches.of([parse_batch(batch_payload(events))]))
    assert [record.kind for record in made] == [Kind.RULE, Kind.PACKET]


@pytest.mark.parametrize("rules", [None, _rules])
@pytest.mark.parametrize("seed", range(3))
def test_json(
    seed: int, rules: Callable[[Sequence[EventRecord]], list[Rule | None]] | None
) -> None:
    """Each line has the values of ``event_object``."""
    batches, names = _batches(seed), cast(NamespaceNames, Names())
    for together in (1, 5):
        lines = _shown(EventJson(names, _payload, rules).lines, batches, together)
        events = JoinedBatches.of(batches)
        for place, line in enumerate(lines):
            record = decode_event(events, place)
            [rule] = rules([record]) if rules else [None]
            expected = event_object(record, names, _payload, rule)
            assert line == dumps(expected)
        assert len(lines) == len(events)


def test_no_packet_flow_or_process_has_a_template_of_json_to_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[EventRecord] = []

    def counted(record: EventRecord) -> dict[str, Any]:
        made.append(record)
        return event_object(record)

    monkeypatch.setattr(event_json, "event_object", counted)
    usual = {"kind": Kind.SPINE_EXIT, "flags": int(EventFlag.PID), "ct_state": 1}
    members = ("length", "mark", "ct_id", "pid", "pid_start", "uid", "sport", "dport", "icmp_id")
    events = [event(**usual, **dict.fromkeys(members, number)) for number in range(50)]
    lines = EventJson().lines(JoinedBatches.of([parse_batch(batch_payload(events))]))
    assert len(set(lines)) == len(lines)
    assert len(made) == 1


def test_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    # passages at random are of tables, chains and hooks
    monkeypatch.setitem(VALUES, "kind", range(13))
    monkeypatch.setitem(VALUES, "packet", (0,))
    for seed in range(20):
        batches = _batches(seed)
        together, alone = PacketCounter(), PacketCounter()
        together.add(JoinedBatches.of(batches))
        for one in JoinedBatches.of(batches).each():
            alone.add(one)
        assert together.count == alone.count


def test_selected_and_first_events_keep_what_belongs_to_them() -> None:
    events = JoinedBatches.of(_batches(0))
    wanted = [kind % 3 == 0 for kind in events.values("kind")]
    places = [place for place, one in enumerate(wanted) if one]
    chosen = events.select(wanted)
    expected = [decode_event(events, place) for place in places]
    assert [decode_event(chosen, place) for place in range(len(chosen))] == expected
    assert any(record.payload for record in expected)
    assert 0 < len(expected) < len(events)
    assert [decode_event(events.first(5), n) for n in range(5)] == [
        decode_event(events, n) for n in range(5)
    ]
    assert len(events.first(0)) == 0


def test_keys_are_equal_only_if_their_members_are() -> None:
    events = JoinedBatches.of(_batches(1))
    assert EVENT_DTYPE.names is not None
    some = (("hook",), ("skb", "link"), ("table", "saddr", "in_name"))
    for members in (*some, EVENT_DTYPE.names):
        rows = list(
            zip(*(map(repr, events.events[name].tolist()) for name in members), strict=True)
        )
        keys = events.keys(members)
        pairs = itertools.combinations(range(0, len(events), 7), 2)
        assert all((keys[a] == keys[b]) == (rows[a] == rows[b]) for a, b in pairs)
