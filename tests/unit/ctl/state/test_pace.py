# SPDX-License-Identifier: GPL-2.0
"""The pace of mending."""

from __future__ import annotations

from ipttctl.state.pace import FIRST, LONGEST, Pace


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_a_quiet_host_is_mended_at_once() -> None:
    clock = Clock()
    pace = Pace(clock)
    for _ in range(5):
        assert pace.left == 0
        pace.attempted()
        assert pace.left == 0
        clock.now += 60


def test_a_fight_becomes_slow_and_peace_ends_that() -> None:
    """Undone at once each time: a bounded number of attempts."""
    clock = Clock()
    pace = Pace(clock)
    attempts, end = 0, clock.now + 3600
    while clock.now < end:
        pace.attempted()
        attempts += 1
        assert pace.left <= LONGEST + 1e-6
        clock.now += pace.left + 0.01
    assert 60 <= attempts <= 70
    clock.now += 2 * LONGEST + 20
    pace.attempted()
    assert pace.left == 0
    pace.attempted()
    assert pace.left == FIRST
