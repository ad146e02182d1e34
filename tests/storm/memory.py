# SPDX-License-Identifier: GPL-2.0
"""The kernel's own memory.

Counted are unreclaimable slabs, vmalloc areas and per-CPU memory, which contain everything that
the module makes the kernel hold: links, program sets and references to programs; rings
and programs' code; counters. MemAvailable would not do: the page cache and the Python processes
change it by more than a whole storm of leaked links.

Both measurements are taken with no storm, no namespace, no table code and no ipttrace there, after
the storm has run once: memory that the kernel keeps for the next time, such as caches of network
devices, is in both.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_COUNTED = ("SUnreclaim", "VmallocUsed", "Percpu")
_SLABS = Path("/sys/kernel/slab")

TOLERANCE_KIB = 2048
"""The difference between two storms without a leak: half-filled slabs, a pack of JIT code.

A program holds at least a page of its own, so that a reference leaked in one of ten attaches and
swaps of a two-minute storm is found; so is a ring (more than 1 MiB for each CPU) at every second
reload. Smaller leaks are for kmemleak, on the debug kernel.
"""


@dataclass(frozen=True)
class Memory:
    """Memory in KiB, by kind."""

    kinds: dict[str, int]

    @property
    def total(self) -> int:
        """The sum of all kinds."""
        return sum(self.kinds.values())

    @classmethod
    def now(cls) -> Memory:
        """The memory in use, after reclaim."""
        Path("/proc/sys/vm/drop_caches").write_text("3")
        for cache in _SLABS.glob("*/shrink"):
            with suppress(OSError):
                cache.write_text("1")
        lines = Path("/proc/meminfo").read_text().splitlines()
        fields = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        return cls({kind: fields[kind] for kind in _COUNTED})

    def __sub__(self, before: Memory) -> Memory:
        return Memory({kind: size - before.kinds[kind] for kind, size in self.kinds.items()})

    def __str__(self) -> str:
        parts = ", ".join(f"{kind} {size:+}" for kind, size in self.kinds.items())
        return f"{self.total:+} KiB ({parts})"


def settled() -> Memory:
    """The memory in use once it no longer shrinks: much is freed in the background."""
    now = Memory.now()
    for _ in range(60):
        # nothing marks the end of the last grace period and the last work item
        time.sleep(1)
        before, now = now, Memory.now()
        if now.total >= before.total:
            return now
    raise AssertionError(f"memory is still being freed after a minute: {now - before}")


def conceals_frees() -> str:
    """The reason why the measurement is useless on this kernel; empty if it is useful."""
    symbols = Path("/proc/kallsyms").read_text()
    for symbol, why in (
        (" kasan_quarantine_put\n", "KASAN keeps what was freed in quarantine"),
        (" kasan_quarantine_reduce\n", "KASAN keeps what was freed in quarantine"),
        (" kmemleak_scan\n", "kmemleak keeps books on every object"),
    ):
        if symbol in symbols:
            return why
    return ""
