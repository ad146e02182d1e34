# SPDX-License-Identifier: GPL-2.0
"""Conditions on the counters of a link, as text and as attributes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ipttctl.errors import UsageError
from ipttctl.link.condition import Condition, Violation
from ipttproto import Comparison, Counter
from ipttproto.family import Condition as Nest
from ipttproto.family import limit

U32 = (1 << 32) - 1
LONGEST = limit("MAX_WINDOW")
SHORTEST = limit("MIN_WINDOW")


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    """Any condition that the module takes."""
    comparison = draw(st.sampled_from(Comparison))
    pointless = comparison in {Comparison.BELOW, Comparison.AT_LEAST}
    upper = comparison in {Comparison.BELOW, Comparison.AT_MOST}
    kind = draw(st.sampled_from(["time", "packets", "window", *(["whole"] if upper else [])]))
    window = draw(st.integers(SHORTEST, LONGEST))
    return Condition(
        draw(st.sampled_from(Counter)),
        comparison,
        draw(st.integers(1 if pointless else 0, U32)),
        draw(st.integers(1, LONGEST)) if kind == "time" else 0,
        draw(st.integers(1, U32)) if kind == "packets" else 0,
        window
        if kind == "window"
        else draw(st.sampled_from([-1, window]))
        if kind != "whole"
        else 0,
        draw(st.integers(0, U32)),
    )


@given(conditions())
@example(Condition(Counter.DROPS, Comparison.BELOW, 1, per_time=1))
@example(Condition(Counter.DROPS, Comparison.BELOW, 1, per_time=60_000, window=1000))
@example(Condition(Counter.DROPS, Comparison.BELOW, 1, per_packets=100, minimum=1))
def test_what_is_printed_is_read(condition: Condition) -> None:
    assert Condition.parse(str(condition)) == condition
    assert Condition.parse(condition.word()) == condition
    assert not set(condition.word()) & set(" \\")
    # and through the wire
    nest = Nest.parse(Nest.build(condition.attributes()))
    assert Condition.from_attributes(nest) == condition


@given(st.text() | st.from_regex(r"[a-z]{1,8} ?[<>]=? ?[0-9]{1,11}(/[0-9smh]{1,4})?( for .*)?"))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        condition = Condition.parse(text)
    except UsageError:
        return
    assert Condition.parse(str(condition)) == condition
    Nest.build(condition.attributes())


@pytest.mark.parametrize(
    ("text", "printed", "members"),
    [
        ("drops < 10/s", None, (10, 1000, 0, 1000, 1)),
        (
            "drops<10/s,for=30s,min=5",
            "drops < 10/s for 30s min 5 packets",
            (10, 1000, 0, 30_000, 5),
        ),
        ("drops<10 / s", "drops < 10/s", (10, 1000, 0, 1000, 1)),
        ("drops < 10/1s", "drops < 10/s", (10, 1000, 0, 1000, 1)),
        ("drops < 10/s for 1s", "drops < 10/s", (10, 1000, 0, 1000, 1)),
        (
            "drops < 10/s for 30s min 5",
            "drops < 10/s for 30s min 5 packets",
            (10, 1000, 0, 30_000, 5),
        ),
        ("drops < 10/500ms", None, (10, 500, 0, 500, 1)),
        ("drops < 10/20ms", None, (10, 20, 0, 100, 1)),
        ("drops < 100/h", None, (100, 3_600_000, 0, 3_600_000, 1)),
        ("drops < 1/100", None, (1, 0, 100, 0, 100)),
        ("drops < 1/100 for 5m min 7 packets", None, (1, 0, 100, 300_000, 7)),
        ("drops < 3 min 1 packet", "drops < 3", (3, 0, 0, 0, 1)),
        ("drops < 3 for 1.5m", "drops < 3 for 90s", (3, 0, 0, 90_000, 1)),
        (f"drops < {U32}/24h", None, (U32, LONGEST, 0, LONGEST, 1)),
    ],
)
def test_spellings(text: str, printed: str | None, members: tuple[int, int, int, int, int]) -> None:
    condition = Condition.parse(text)
    assert condition == Condition(Counter.DROPS, Comparison.BELOW, *members)
    assert str(condition) == (printed or text)


@pytest.mark.parametrize("counter", Counter)
@pytest.mark.parametrize("comparison", Comparison)
def test_every_counter_and_comparison(counter: Counter, comparison: Comparison) -> None:
    condition = Condition.parse(f"{counter.name.lower()} {comparison.doc} 5/m")
    assert (condition.counter, condition.comparison) == (counter, comparison)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'' is not a condition; write it as 'drops < 10/s'"),
        ("drops", "is not a condition"),
        ("drops = 3", "is not a condition"),
        ("drops < -3", "is not a condition"),
        ("drops < 3/d", "is not a condition"),
        ("drops < 3/ s for", "is not a condition"),
        ("drops < 3 min 5 for 3s", "is not a condition"),
        ("drops < 3 for 3s min", "is not a condition"),
        ("drops < 3 and lost < 1", "is not a condition"),
        ("drop < 3", "there is no counter 'drop'; use packets, selected, "),
        ("drops < 4294967296", "4294967296 is not between 0 and 4294967295"),
        ("drops < 3/0", "0 is not between 1 and"),
        ("drops < 3/0s", "0s is not between 1ms and 24h"),
        ("drops < 3 for 99ms", "99ms is not between 100ms and 24h"),
        ("drops < 3 for 25h", "25h is not between 100ms and 24h"),
        ("drops < 3 min 0", "0 is not between 1 and"),
        ("drops < 0", "decides nothing"),
        ("drops >= 0/s", "decides nothing"),
        (
            "packets > 5",
            "does not say in which time the number has to be reached; give it: for 30s",
        ),
        ("packets >= 5", "does not say in which time"),
    ],
)
def test_what_is_no_condition(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        Condition.parse(text, "--guard")
    assert str(refused.value).startswith("--guard: ")
    assert sentence in str(refused.value)


def test_what_a_newer_module_says() -> None:
    condition = Condition.from_attributes({"counter": 99, "comparison": 77, "threshold": 5})
    assert (condition.counter, condition.comparison) == (99, 77)
    assert str(condition) == "99 77 5"
    assert str(Condition.from_attributes({})) == "0 0 0"


def test_a_violation() -> None:
    assert Violation.from_attributes(None) is None
    condition = Condition.parse("drops < 10/s")
    found = Violation.from_attributes(
        {"condition": condition.attributes(), "link": 3, "count": 57, "packets": 240, "time": 1020}
    )
    assert found == Violation(condition, 3, 57, 240, 1020)
    assert str(found) == "drops < 10/s: 57 in 240 packets, 1.02s, of link 3"
    empty = Violation.from_attributes({})
    assert empty is not None
    assert (empty.link, empty.count, empty.packets, empty.time) == (0, 0, 0, 0)
