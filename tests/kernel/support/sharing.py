# SPDX-License-Identifier: GPL-2.0
"""Guests that share a run: each takes the next file of tests that none has taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Protocol, TypeVar

from guest.matrix import CLOSED, NOT_BEGUN


class Test(Protocol):
    """The attributes of a test that are needed here."""

    @property
    def nodeid(self) -> str:
        """``FILE::TEST``."""


T = TypeVar("T", bound=Test)


def taken(tests: Sequence[T], directory: Path) -> Iterator[T]:
    """The tests whose files no other guest had taken when they were requested.

    ``directory`` is shared by the guests: the one that creates a file's mark there takes the file.
    Once the time for that is up, the files that nobody took are listed there instead.
    """
    left = []
    for file, of_file in groupby(tests, key=lambda test: test.nodeid.partition("::")[0]):
        mark = directory / file.replace("/", "-")
        if (directory / CLOSED).exists():
            left += [] if mark.exists() else [file]
            continue
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            continue
        yield from of_file
    if left:
        (directory / NOT_BEGUN).write_text("\n".join(left))
