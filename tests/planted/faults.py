# SPDX-License-Identifier: GPL-2.0
"""The faults: a patch of the module, the tests that must fail with it, and their words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class PlantedFault:
    """``report`` is a regular expression that the failed run's output must contain."""

    name: str
    meaning: str
    tests: tuple[str, ...]
    report: str

    @property
    def patch(self) -> Path:
        """The patch of the module's source."""
        return _HERE / f"{self.name}.patch"


_LINKS = "tests/kernel/test_links.py"

FAULTS = (
    PlantedFault(
        "program-leak",
        "a program reference is not given back at detach",
        (f"{_LINKS}::test_attach_get_swap_detach",),
        r"AssertionError: .*programs \[\d+",
    ),
    PlantedFault(
        "use-after-free",
        "a link is read after it was freed",
        (f"{_LINKS}::test_attach_get_swap_detach",),
        r"BUG: KASAN: slab-use-after-free in .*\[ipttrace\]",
    ),
    PlantedFault(
        "lock-order",
        "two locks are taken in both orders",
        (f"{_LINKS}::test_attach_get_swap_detach",),
        r"WARNING: possible circular locking dependency",
    ),
    PlantedFault(
        "lost-event",
        "one event in a thousand is lost and not counted",
        ("tests/kernel/test_losses.py",),
        r"assert \d+ == \(\d+ \+ \d+\)",
    ),
)
