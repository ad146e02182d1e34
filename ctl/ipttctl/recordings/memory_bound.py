# SPDX-License-Identifier: GPL-2.0
"""A bound on the memory of a query: DuckDB's own one is not for rows, long values and parsing."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ipttctl.errors import UsageError

MOST: Final = 4 << 30
"""Bytes that a query may take."""

ASK_LESS: Final = "ask for fewer rows or columns, or for parts one by one"
"""The remedy of a query that needs too much."""

_DATA: Final = 5
"""The place of data and stacks in /proc/self/statm, in pages."""


@contextmanager
def bounded_memory(most: int = MOST) -> Iterator[None]:
    """Bound what a block takes more than the process has now.

    Address space that is only reserved does not count, as threads reserve much of it.

    Raises:
        UsageError: the block needs more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [one for one in (soft, hard) if one != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([_taken() + most, *bounds]), hard))
    try:
        yield
    except MemoryError as error:
        raise UsageError(
            f"the query fails: it needs more than {most >> 30} GB", ASK_LESS
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _taken() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[_DATA]
    return int(pages) * resource.getpagesize()
