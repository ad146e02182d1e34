# SPDX-License-Identifier: GPL-2.0
"""The totals of stories on one line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StoryTotals:
    """Numbers of stories and of what is not in them.

    ``told`` were shown. ``passed_over`` were not wanted: their packets ended without a drop.
    ``open`` had not ended when the stream did. ``unfinished`` were closed early for lack of room,
    and told unless only drops were wanted. ``late`` are events whose story was told before.
    ``unfollowed`` is how often the module had no room to follow a packet, which may be the same one
    at each of its hooks, tables and chains. ``lost_sight`` are packets that came by nowhere for a
    long time.
    """

    told: int = 0
    passed_over: int = 0
    open: int = 0
    unfinished: int = 0
    late: int = 0
    unfollowed: int = 0
    lost_sight: int = 0


def story_totals_line(totals: StoryTotals) -> str:
    """``3 stories told, 2 still open``, with whatever was left out."""
    return ", ".join(_parts(totals))


def _parts(totals: StoryTotals) -> Iterator[str]:
    yield f"{_count(totals.told, 'story', 'stories')} told"
    if totals.passed_over:
        yield f"{totals.passed_over} without a drop"
    if totals.open:
        yield f"{totals.open} still open"
    if totals.unfinished:
        yield f"{totals.unfinished} left unfinished for lack of room"
    if totals.late:
        yield f"{_count(totals.late, 'event', 'events')} came too late"
    if totals.unfollowed:
        times = _count(totals.unfollowed, "time", "times")
        yield f"{times} a packet was not followed for lack of room"
    if totals.lost_sight:
        yield f"lost sight of {_count(totals.lost_sight, 'packet', 'packets')}"


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
