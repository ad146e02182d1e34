# SPDX-License-Identifier: GPL-2.0
"""Rules in their generations, against a model that keeps every ruleset whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ipttctl.rules.history import History
from ipttctl.rules.messages import RawRule
from tests.unit.ctl.rules.support import ACCEPT, DROP, counter, expression, rule, verdict

LOOKUP = expression("lookup", {1: b"__set0\0"})


def test_a_handle_keeps_nothing() -> None:
    history = History()
    history.replace([(1, rule(5, ACCEPT))], 10)
    history.add(1, rule(5, DROP), 11)
    history.advance(11)
    before, after = history.find((1, 5), 10), history.find((1, 5), 11)
    assert before is not None
    assert after is not None
    assert (before.rule.expressions, after.rule.expressions) == (ACCEPT, DROP)
    assert not before.valid
    assert after.valid
    assert history.find((1, 5), 9) is None


def test_tables_are_told_apart() -> None:
    history = History()
    history.replace([(1, rule(5, ACCEPT))], 10)
    history.remove((1, 5), 11)
    history.add(2, rule(5, DROP), 11)
    history.advance(11)
    assert history.find((1, 5), 11) is None
    assert history.find((2, 5), 10) is None
    assert history.find((2, 5), 11) is not None


def test_a_gap_is_not_certain() -> None:
    """A rule that is the same on both sides may have been another one between."""
    history = History()
    history.replace([(1, rule(5, counter(1) + ACCEPT))], 10)
    first = history.find((1, 5), 10)
    history.replace([(1, rule(5, counter(9) + ACCEPT))], 14)
    assert [history.find((1, 5), g) for g in range(9, 16)] == [
        None,
        first,
        None,
        None,
        None,
        first,
        first,
    ]


def test_a_set_of_the_same_name_may_be_another_one() -> None:
    history = History()
    history.replace([(1, rule(5, LOOKUP))], 10)
    history.replace([(1, rule(5, LOOKUP))], 12)
    assert history.find((1, 5), 10) is not history.find((1, 5), 12)


def test_reading_the_same_generation_again_changes_nothing() -> None:
    history = History()
    history.replace([(1, rule(5, LOOKUP))], 10)
    first = history.find((1, 5), 10)
    history.replace([(1, rule(5, LOOKUP))], 10)
    assert history.find((1, 5), 10) is first


def test_what_has_gone_is_bounded() -> None:
    history = History(most=3, most_bytes=1 << 20)
    history.replace([(1, rule(5))], 1)
    for generation in range(2, 12):
        history.add(1, rule(5, verdict(generation)), generation)
        history.advance(generation)
    kept = [g for g in range(1, 12) if history.find((1, 5), g) is not None]
    assert kept == [8, 9, 10, 11]


def test_its_bytes_are_bounded() -> None:
    history = History(most=1000, most_bytes=10_000)
    for generation in range(1, 100):
        history.add(1, rule(generation, bytes(1000)), generation)
        history.remove((1, generation - 1), generation)
        history.advance(generation)
    kept = [g for g in range(1, 100) if history.find((1, g), g) is not None]
    assert kept == list(range(93, 100))


Ruleset = dict[tuple[int, int], RawRule]

CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "gap", "commit"]),
        st.integers(1, 2),
        st.integers(1, 3),
        st.sampled_from([ACCEPT, DROP, LOOKUP, counter(1)]),
    ),
    max_size=60,
)


@given(CHANGES)
def test_against_a_model(changes: list[tuple[str, int, int, bytes]]) -> None:
    """Every answer is what the ruleset of that generation said."""
    history = History()
    history.replace([], 1)
    now: Ruleset = {}
    truth: dict[int, Ruleset] = {1: {}}
    seen = {1}
    generation = 2
    for step, table, handle, data in changes:
        key = table, handle
        if step == "add":
            now[key] = rule(handle, data)
            history.add(table, now[key], generation)
        elif step == "remove":
            now.pop(key, None)
            history.remove(key, generation)
        elif step == "commit":
            truth[generation] = dict(now)
            seen.add(generation)
            history.advance(generation)
            generation += 1
        else:
            # nobody saw these: a rule differs in one of them, and is the same again
            truth[generation] = {k: rule(k[1], verdict(-5)) for k in now}
            truth[generation + 1] = dict(now)
            history.replace([(k[0], r) for k, r in now.items()], generation + 1)
            seen.add(generation + 1)
            generation += 2
    for number, ruleset in truth.items():
        for key in [(t, h) for t in (1, 2) for h in (1, 2, 3)]:
            found = history.find(key, number)
            if number in seen:
                assert (found.rule if found else None) == ruleset.get(key)
            else:
                assert found is None
