# SPDX-License-Identifier: GPL-2.0
"""Limits in the words of the options, of a request, and of a link."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttctl.errors import UsageError
from ipttctl.events.filter import EventFilter
from ipttctl.events.records import decode_events
from ipttctl.link.limits import LeftOut, Limits
from ipttproto import Kind, parse_batch
from ipttproto.family import limit
from tests.unit.ctl.support import event, events_message

RATES = st.integers(0, limit("MAX_RATE"))


@given(
    st.builds(
        Limits,
        sample=st.one_of(st.just(0), st.integers(2, limit("MAX_SAMPLE"))),
        rate=RATES,
        budget_events=RATES,
        budget_cpu=st.integers(0, limit("MAX_CPU")),
    )
)
def test_they_are_read_as_they_are_written(limits: Limits) -> None:
    written = limits.given()
    found = Limits.parse(written.get("sample"), written.get("limit-rate"), written.get("governor"))
    assert (found or Limits()) == limits
    assert bool(limits) == (found is not None)
    assert Limits.from_attributes(limits.attributes()) == limits


@pytest.mark.parametrize(
    ("text", "events", "cpu"),
    [
        ("50000/s,20%", 50000, 200),
        ("20%,50000/s", 50000, 200),
        ("0.1%", 0, 1),
        ("200%", 0, 2000),
        ("7", 7, 0),
        ("7/second", 7, 0),
        ("off", 0, 0),
    ],
)
def test_budgets(text: str, events: int, cpu: int) -> None:
    assert Limits.parse(governor=text) == (Limits(0, 0, events, cpu) or None)


def test_one_of_one_is_no_limit() -> None:
    assert Limits.parse(sample="1/1") is None


@pytest.mark.parametrize(
    "sample", ["", "1", "/", "1/", "1/0", "1/x", "2/3", "1/-2", "1/9999999999"]
)
def test_samples_that_are_none(sample: str) -> None:
    with pytest.raises(UsageError, match="--sample: "):
        Limits.parse(sample=sample)


@pytest.mark.parametrize("rate", ["", "0", "x", "5/m", "-1/s", "1.5/s", "9999999999/s"])
def test_rates_that_are_none(rate: str) -> None:
    with pytest.raises(UsageError, match="--limit-rate: "):
        Limits.parse(rate=rate)


@pytest.mark.parametrize(
    "governor", ["", "0", "0%", "0.0%", "0.05%", "1%,2%", "1/s,2/s", "1/s,", "off,1%", "999999%"]
)
def test_budgets_that_are_none(governor: str) -> None:
    with pytest.raises(UsageError, match="--governor: "):
        Limits.parse(governor=governor)


def test_what_they_left_out() -> None:
    assert LeftOut(1, 2, 3) + LeftOut(10, 20, 30) == LeftOut(11, 22, 33)
    assert LeftOut(1, 2, 3).packets == 6


def test_a_filter_of_packets_does_not_hide_it() -> None:
    told = event(kind=Kind.LEFT_OUT, link=3, table_handle=1, chain_handle=2, rule_handle=3)
    batch = parse_batch(events_message([event(kind=Kind.EXIT), told, event()])[20:])
    for wanted, kinds in (
        (EventFilter(kinds=[Kind.EXIT]), [Kind.EXIT, Kind.LEFT_OUT]),
        (EventFilter(kinds=[Kind.EXIT], links=[3]), [Kind.EXIT, Kind.LEFT_OUT]),
        (EventFilter(links=[4]), []),
    ):
        records = [r for chosen in wanted.choose([batch]) for r in decode_events(chosen)]
        assert [record.kind for record in records] == kinds
        assert {LeftOut.from_record(r) for r in records if r.kind == Kind.LEFT_OUT} <= {
            LeftOut(1, 2, 3)
        }
