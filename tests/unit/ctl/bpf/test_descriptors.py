# SPDX-License-Identifier: GPL-2.0
"""Descriptors are closed once and not used after that, at whatever point a signal comes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

import pytest

from ipttctl.bpf import descriptors
from ipttctl.bpf.descriptors import ClosedError, Owned, Wakeup


class Thing:
    """An object that records whether it is open."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        """Record the close."""
        self.closed += 1


def test_closing_waits_for_the_last_user() -> None:
    closed: list[int] = []
    owned = Owned(7, closed.append)
    with owned as found, owned:
        assert found == 7
        owned.close()
        assert owned.closed
        with pytest.raises(ClosedError), owned:
            pass
        assert closed == []
    assert closed == [7]
    owned.close()
    assert closed == [7]


def interrupt_at(step: int, handler: Callable[[], None], code: Callable[[], None]) -> bool:
    """Run code, and a handler, like a signal's, before one of the instructions of the owner.

    False if there are fewer instructions.
    """
    left = step
    running = False

    def trace(frame: FrameType, what: str, _: Any) -> Any:
        nonlocal left, running
        if frame.f_code.co_filename != descriptors.__file__ or running:
            return None
        frame.f_trace_opcodes = True
        if what == "opcode":
            left -= 1
            if left == 0:
                running = True
                handler()
                running = False
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        code()
    finally:
        sys.settrace(before)
    return left <= 0


def use(owned: Owned[Thing]) -> None:
    """Use a thing if it is open, and check that it stays open."""
    with suppress(ClosedError), owned as thing:
        assert not thing.closed


@pytest.mark.parametrize("closer", ["the code", "the handler"])
def test_a_handler_may_come_at_any_instruction(closer: str) -> None:
    step, more = 0, True
    while more:
        step += 1
        thing = Thing()
        owned = Owned(thing, Thing.close)
        pair = (partial(use, owned), owned.close)
        handler, code = pair if closer == "the code" else reversed(pair)
        more = interrupt_at(step, handler, code)
        owned.close()
        assert thing.closed == 1, f"at instruction {step}"
    assert step > 20


def test_threads_close_it_once() -> None:
    for _ in range(200):
        thing = Thing()
        owned = Owned(thing, Thing.close)
        start = threading.Barrier(4)

        def close(owned: Owned[Thing] = owned, start: threading.Barrier = start) -> None:
            start.wait()
            owned.close()

        threads = [threading.Thread(target=close) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert thing.closed == 1


def test_a_wakeup_after_its_end_writes_nowhere() -> None:
    read, write = os.pipe2(os.O_NONBLOCK)
    wake = Wakeup()
    with wake.descriptor as number:
        pass
    wake.close()
    os.dup2(write, number)
    try:
        wake.set()
        wake.close()
        assert wake.happened
        with pytest.raises(BlockingIOError):
            os.read(read, 8)
    finally:
        for fd in (read, write, number):
            os.close(fd)


def test_a_wakeup_is_waited_for_no_longer_than_until_it_happens() -> None:
    event = Wakeup()
    assert not event.wait(0.01)
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(event.wait, 60)
        event.set()
        assert waiting.result(timeout=10)
    event.close()
    assert event.wait(60)
