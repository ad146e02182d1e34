# SPDX-License-Identifier: GPL-2.0
"""Functions in which packets are dropped, by the kernel's tracepoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TRACING = Path("/sys/kernel/tracing")
_EVENT = _TRACING / "events/skb/kfree_skb"


@contextmanager
def dropped_in() -> Iterator[list[str]]:
    """Collect the names of functions in which packets of IPv4 are dropped meanwhile, in order.

    Packets without a reason (SKB_DROP_REASON_NOT_SPECIFIED) are left out: they are no drops.
    """
    found: list[str] = []
    (_TRACING / "trace").write_text("")
    (_TRACING / "options/hash-ptr").write_text("0")
    (_EVENT / "filter").write_text("reason != 2 && protocol == 2048")
    (_EVENT / "enable").write_text("1")
    try:
        yield found
    finally:
        (_EVENT / "enable").write_text("0")
        (_EVENT / "filter").write_text("0")
        lines = (_TRACING / "trace").read_text()
        (_TRACING / "options/hash-ptr").write_text("1")
        (_TRACING / "trace").write_text("")
        found += [_symbol_at(place) for place in re.findall(r"location=(\S+) ", lines)]


def _symbol_at(location: str) -> str:
    """The function at an address, or of ``name+offset``."""
    if not location.startswith("0x") and not re.fullmatch("[0-9a-f]{16}", location):
        return location.partition("+")[0]
    address = int(location, 16)
    symbols = []
    for line in Path("/proc/kallsyms").read_text().splitlines():
        start, _, name, *_ = line.split()
        symbols.append((int(start, 16), name))
    return max(symbol for symbol in symbols if symbol[0] <= address)[1]
