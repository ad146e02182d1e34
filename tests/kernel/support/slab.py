# SPDX-License-Identifier: GPL-2.0
"""The kernel's memory: objects of its general caches, and memory outside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_CACHE = re.compile(r"^(?P<name>(?:kmalloc|dma-kmalloc)\S*)\s+(?P<active>\d+)", re.MULTILINE)
_FIELD = re.compile(
    r"^(?P<name>VmallocUsed|Percpu|SUnreclaim):\s+(?P<kilobytes>\d+) kB", re.MULTILINE
)
_SLABINFO = Path("/proc/slabinfo")


@dataclass(frozen=True)
class KernelMemory:
    """Objects in use by cache, and kilobytes of vmalloc, per-CPU and slab memory."""

    objects: Mapping[str, int]
    kilobytes: Mapping[str, int]

    @classmethod
    def now(cls) -> Self:
        """The memory in use, after reclaim."""
        Path("/proc/sys/vm/drop_caches").write_text("3")
        for cache in Path("/sys/kernel/slab").glob("kmalloc-*/shrink"):
            cache.write_text("1")
        # the KCSAN kernel counts no objects (SLUB_DEBUG), only memory
        slabs = _CACHE.finditer(_SLABINFO.read_text() if _SLABINFO.exists() else "")
        memory = _FIELD.finditer(Path("/proc/meminfo").read_text())
        return cls(
            {match["name"]: int(match["active"]) for match in slabs},
            {match["name"]: int(match["kilobytes"]) for match in memory},
        )

    def growth(self, before: Self, *, objects: int, kilobytes: int) -> list[str]:
        """The growth beyond ``objects`` of a cache or ``kilobytes`` of a kind, in words."""
        grown = [
            f"{name}: {count - before.objects.get(name, 0)} objects more"
            for name, count in self.objects.items()
            if count - before.objects.get(name, 0) > objects
        ]
        return grown + [
            f"{name}: {size - before.kilobytes[name]} kB more"
            for name, size in self.kilobytes.items()
            if size - before.kilobytes[name] > kilobytes
        ]
