# SPDX-License-Identifier: GPL-2.0
"""Groups of equal packets as text: the number of each, and an example."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ipttctl.numbers import counted


def group_lines(groups: Iterable[tuple[int, Iterable[str]]], left_out: int) -> Iterator[str]:
    """The lines of groups, each given by its number and the lines of its example; and of totals.

    ``left_out`` is the number of packets of groups for which there was no room.
    """
    packets, ways = left_out, 0
    for count, example in groups:
        packets += count
        ways += 1
        yield "1 packet" if count == 1 else f"{count} packets, for example"
        yield from (f"  {line}".rstrip() for line in example)
    more = f", {left_out} of ways for which there was no room" if left_out else ""
    yield f"{counted(packets, 'packet')}, {counted(ways, 'way')}{more}"
