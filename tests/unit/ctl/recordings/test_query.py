# SPDX-License-Identifier: GPL-2.0
"""Queries: they end when they are to, and take no more than they may."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from ipttctl.recordings.interruptible import interruptible
from ipttctl.recordings.query import Database

LONG = "SELECT sum(a.i * b.i) FROM range(10000000) a(i), range(1000000) b(i)"
"""A query that takes hours."""


@pytest.fixture
def database() -> Iterator[Database]:
    found = Database({})
    yield found
    found.close()


def interrupt_soon() -> None:
    """Send Ctrl-C to this process in a while."""
    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()


def test_a_query_ends_at_ctrl_c(database: Database) -> None:
    interrupt_soon()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        database.ask(LONG)
    assert time.monotonic() - begin < 10
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    # nothing is under way any more
    assert database.ask("SELECT 1").rows == [(1,)]


def test_a_call_that_has_not_begun_is_interrupted_again() -> None:
    """An interrupt before a query begins is forgotten."""
    told: list[int] = []
    ended = threading.Event()

    def interrupt() -> None:
        told.append(1)
        if len(told) == 3:
            ended.set()

    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        interruptible(lambda: ended.wait(30), interrupt)
    assert len(told) == 3
