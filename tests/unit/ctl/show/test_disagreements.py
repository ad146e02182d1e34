# SPDX-License-Identifier: GPL-2.0
"""Disagreements of shadows in print, as packets, as choices of observers, and their payloads."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from ipttctl import hooks
from ipttctl.bpf.btf import Int
from ipttctl.events.filter import EventFilter
from ipttctl.events.packets import PacketCounter
from ipttctl.events.records import EventRecord, decode_events
from ipttctl.link.model import Link
from ipttctl.programs import payloads
from ipttctl.programs.payloads import PayloadTypes
from ipttctl.show import render_json
from ipttctl.show.event_blocks import EventBlocks
from ipttctl.show.event_table import EventTable
from ipttctl.show.event_text import decision
from ipttctl.show.link_table import print_links
from ipttproto import EventFlag, Kind, parse_batch
from tests.unit.ctl.cli.test_cli_shadow import COUNTERS, NUMBER, SHADOW
from tests.unit.ctl.show.test_event_text import record
from tests.unit.ctl.support import batch_payload, event, joined, link, nf_link

DROP, ACCEPT = 0, 1


def disagreement(verdict: int = ACCEPT, other: int = DROP, **changes: Any) -> dict[str, Any]:
    return {
        "kind": Kind.DISAGREE,
        "verdict": verdict,
        "verdict_data": other,
        "rule_handle": NUMBER,
        "traversal": 0,
        "hook": 3,
        **changes,
    }


def test_both_verdicts_are_shown() -> None:
    one, other = record(**disagreement()), record(**disagreement(DROP, ACCEPT))
    assert decision(one).endswith(" verdict=ACCEPT shadow=DROP]")
    # the shadow's verdict is not taken for the errno of a drop
    assert decision(other).endswith(" verdict=DROP shadow=ACCEPT]")
    assert list(hooks.of_event(Kind.DISAGREE).outcome(one)) == ["ACCEPT, shadow DROP"]
    [*_, block] = EventBlocks(width=100, colour=True).lines(joined(one))
    assert "\033[33m ACCEPT, shadow DROP\033[0m" in block
    assert "->" in EventTable().lines(joined(one))[0]


def test_json_has_both_and_the_number() -> None:
    found = render_json.event_object(record(**disagreement(DROP, ACCEPT)))
    names = ("kind", "verdict", "shadow_verdict", "shadow", "errno", "rule_handle")
    assert [found[name] for name in names] == ["disagree", "DROP", "ACCEPT", NUMBER, None, None]
    plain = render_json.event_object(record(**disagreement(kind=Kind.PACKET)))
    assert (plain["shadow"], plain["shadow_verdict"]) == (None, None)


def test_observers_choose_by_the_verdict_that_was_used() -> None:
    batch = parse_batch(batch_payload([event(**disagreement()), event(**disagreement(DROP))]))
    for verdict, wanted in ((ACCEPT, [True, False]), (DROP, [False, True])):
        assert list(EventFilter(verdicts=[verdict]).wanted(batch.events)) == wanted
    pattern = hooks.event_pattern("nf")
    assert list(EventFilter(hooks=[pattern]).wanted(batch.events)) == [True, True]


@pytest.mark.parametrize(
    ("packets", "steps"),
    [
        (1, [disagreement(DROP, ACCEPT, kind=Kind.PACKET), disagreement(DROP, ACCEPT)]),
        # the link lets the next packet through, which is where the first one was
        (2, [disagreement(DROP, ACCEPT, kind=Kind.PACKET), disagreement()]),
        (2, [disagreement(), disagreement()]),
        (1, [disagreement(link=1), disagreement(link=2)]),
        (2, [disagreement(DROP, link=1), disagreement(link=2)]),
    ],
)
def test_packets_are_counted_once(packets: int, steps: list[dict[str, Any]]) -> None:
    counter = PacketCounter()
    for step in steps:
        counter.add(joined(record(**{"link": 1, **step})))
    assert counter.count == packets


def with_payload(payload: bytes, number: int, kind: Kind = Kind.DISAGREE) -> EventRecord:
    changes = disagreement(kind=kind, link=4, generation=1, flags=EventFlag.PAYLOAD)
    one = event(**{**changes, "rule_handle": number})
    [found] = decode_events(parse_batch(batch_payload([one], payloads={0: payload})))
    return found


def test_a_payload_is_of_the_shadow_that_added_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The link's own is of another type; that of a shadow which has gone is not known."""
    sizes = {33: 16, 5: 8}
    monkeypatch.setattr(
        payloads, "_type", lambda number: Int(name="n", size=sizes[number], signed=False)
    )
    known = Link.from_attributes(nf_link(shadow=SHADOW))
    types = PayloadTypes(lambda _: known)
    assert types.value(with_payload((7).to_bytes(8, "little"), NUMBER)) == 7
    assert types.value(with_payload((7).to_bytes(8, "little"), NUMBER + 1)) is None
    assert types.value(with_payload((8).to_bytes(16, "little"), 0, Kind.PACKET)) == 8


def test_the_table_has_the_shadow(capsys: pytest.CaptureFixture[str]) -> None:
    stats = {**link()["stats"], **COUNTERS}
    found = Link.from_attributes(nf_link(shadow=SHADOW, stats=stats))
    print_links([found], {}, Console(width=300))
    text = capsys.readouterr().out
    assert "shadow 22 new" in text
    assert "2 of 42 disagree" in text
    assert "promote if disagreements < 1/10000" in text
