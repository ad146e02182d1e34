# SPDX-License-Identifier: GPL-2.0
"""The module ``rcu_reader``: while it holds its section, sets that were replaced do not end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.kernel.support.kernel import load_test_module, remove_module

NAME: Final = "rcu_reader"


class Reader:
    """A reader that begins and ends when it is told to."""

    def __init__(self) -> None:
        self._hold: Final = Path("/sys/module", NAME, "parameters/hold")
        self._holding = False

    def begin(self) -> None:
        """Enter the section."""
        self._hold.write_text("1")
        self._holding = True

    def end(self) -> None:
        """Leave the section, unless it was left."""
        if self._holding:
            self._holding = False
            self._hold.write_text("0")


def waits_for_readers(task: Path) -> bool:
    """Whether a task, given by its directory in /proc, waits for a grace period of RCU."""
    return "rcu" in (task / "stack").read_text()


@contextmanager
def rcu_reader() -> Iterator[Reader]:
    """Load the module; a test that has one processor only is skipped."""
    if os.cpu_count() == 1:
        pytest.skip("the reader needs a processor for itself")
    load_test_module(NAME)
    made = Reader()
    try:
        yield made
    finally:
        made.end()
        remove_module(NAME)
