# SPDX-License-Identifier: GPL-2.0
"""Messages of earlier runs are read from a stream that is slow, or does not let them be read."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import nats.errors
import pytest

from ipttctl.fleet.earlier import Earlier, read_earlier
from ipttctl.frames.codec import encode
from ipttctl.frames.head import EVENTS
from ipttctl.frames.writer import FrameNumbers

COUNT = 100


class SlowStream:
    """A stream of 100 frames, which does not answer all that it is asked."""

    def __init__(self, silent: Callable[[int], bool], info: bool = True) -> None:
        """Not answer where ``silent`` says so of a message's number, nor ``info``."""
        self.silent = silent
        self._info = info
        self.asked: Counter[int] = Counter()
        numbers = FrameNumbers("web1", "boot")
        self._data = {n: encode(numbers.head(EVENTS, 1, {}), b"") for n in range(1, COUNT + 1)}

    async def get_msg(self, _: str, number: int) -> Any:
        """Give a message."""
        self.asked[number] += 1
        if self.silent(number):
            raise nats.errors.TimeoutError
        return SimpleNamespace(data=self._data[number])

    async def stream_info(self, _: str) -> None:
        """Answer, or not."""
        if not self._info:
            raise nats.errors.TimeoutError

    def read(self, found: Earlier, first: int = 1) -> None:
        """Read what is there from the first number on."""
        there = range(first, COUNT + 1)
        asyncio.run(read_earlier(self, "s", "web1", there, found))  # type: ignore[arg-type]  # of us


def test_after_a_message_that_was_not_answered_reading_goes_on_where_it_was() -> None:
    stream = SlowStream(lambda number: number == 40)
    found = Earlier()
    with pytest.raises(nats.errors.TimeoutError):
        stream.read(found)
    assert found.allowed
    stream.silent = lambda _: False
    stream.read(found)
    assert list(found.heads) == list(range(1, COUNT + 1))
    assert found.complete
    # those that are asked for together are asked for again, and the first one was to see
    assert [n for n, times in stream.asked.items() if times > 1] == [1, *range(33, 49)]


def test_what_goes_while_reading_has_broken_off_is_gone() -> None:
    stream = SlowStream(lambda number: number == 40)
    found = Earlier(frozenset({10, 12, 62}), 10)
    with pytest.raises(nats.errors.TimeoutError):
        stream.read(found, 15)
    assert found.gone == 3
    stream.silent = lambda _: False
    through = found.through
    stream.read(found, 65)
    assert found.gone == 3 + 64 - through - 1
    assert not found.complete
    assert set(found.heads) >= {*range(15, through + 1), *range(65, COUNT + 1)}


def test_a_first_message_that_comes_late_is_no_missing_right() -> None:
    stream = SlowStream(lambda number: stream.asked[number] == 1 and number == 1)
    found = Earlier()
    stream.read(found)
    assert found.allowed
    assert len(found.heads) == COUNT


def test_a_right_is_missing_where_something_else_is_answered() -> None:
    found = Earlier()
    SlowStream(lambda _: True).read(found)
    assert not found.allowed
    assert not found.complete


def test_a_server_that_answers_nothing_is_asked_again_later() -> None:
    found = Earlier()
    with pytest.raises(nats.errors.TimeoutError):
        SlowStream(lambda _: True, info=False).read(found)
    assert found.allowed
