# SPDX-License-Identifier: GPL-2.0
"""Times as people write them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttctl.durations import DURATION, in_words, milliseconds, spelled


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("0ms", 0), ("1ms", 1), ("500ms", 500), ("30s", 30_000), ("1.5m", 90_000),
        ("1h", 3_600_000), ("0.0015s", 2), ("1.4ms", 1), ("1.5ms", 2), ("0.001s", 1),
        ("0.0004s", 0), ("010s", 10_000),
    ],
)  # fmt: skip  # pairs together
def test_times(text: str, time: int) -> None:
    assert milliseconds(text) == time
    assert re.fullmatch(DURATION, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "5",
        "5 s",
        "-5s",
        "+5s",
        "5.s",
        ".5s",
        "5S",
        "5d",
        "1e3s",
        "5s ",
        "٣s",
        "9" * 99 + "s",
    ],
)
def test_what_is_no_time(text: str) -> None:
    assert milliseconds(text) is None


@given(st.integers(0, 10**12))
def test_what_is_spelled_is_read(time: int) -> None:
    assert milliseconds(spelled(time)) == time


@pytest.mark.parametrize(
    ("time", "words"),
    [
        (0, "0s"), (1, "1ms"), (300_000, "5m"), (86_400_000, "24h"), (90_000_000, "25h"),
        (30 * 86_400_000, "30 days"), (365 * 86_400_000, "365 days"),
        (3650 * 86_400_000, "10 years"),
    ],
)  # fmt: skip  # pairs together
def test_bounds_are_in_words(time: int, words: str) -> None:
    assert in_words(time) == words


@given(st.text())
def test_any_text_is_read_or_not(text: str) -> None:
    assert (milliseconds(text) or 0) >= 0
