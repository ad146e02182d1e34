# SPDX-License-Identifier: GPL-2.0
"""Batches as tuples."""

from __future__ import annotations

from ipttctl.events.records import EventRecord, decode_events
from ipttproto import EVENT_DTYPE, parse_batch
from tests.unit.ctl.support import batch_payload, event


def test_record_has_the_members_of_the_event_then_its_place() -> None:
    place = ("cpu", "sequence", "clock_offset", "payload")
    assert EventRecord._fields == (*(EVENT_DTYPE.names or ()), *place)


def test_every_member_keeps_its_value() -> None:
    changes = {"mark": 0xFFFFFFFF, "time": 1 << 63, "flags": 0xFFFF, "rule_handle": 1 << 63}
    sent = event(saddr=bytes(range(16)), dmac=bytes(6), target=b"x" * 31, **changes)
    [found] = decode_events(parse_batch(batch_payload([sent], cpu=2, sequence=9, clock_offset=-5)))
    for name, value in sent.items():
        is_name = name.endswith("_name") or name in {"table", "chain", "target", "comm"}
        assert getattr(found, name) == (value.rstrip(b"\0") if is_name else value), name
    assert (found.cpu, found.sequence, found.clock_offset) == (2, 9, -5)


def test_events_of_some_links_keep_their_numbers() -> None:
    batch = parse_batch(batch_payload([event(link=n) for n in (3, 4, 3, 5)], sequence=100))
    assert [(r.link, r.sequence) for r in decode_events(batch, {3, 5})] == [
        (3, 100),
        (3, 102),
        (5, 103),
    ]
    assert len(decode_events(batch)) == 4
