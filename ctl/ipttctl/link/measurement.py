# SPDX-License-Identifier: GPL-2.0
"""Measurements of a link's programs over an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ipttctl.link.model import Link, SlotStats
from ipttproto import Slot


@dataclass(frozen=True)
class Measurement:
    """Runs of the programs in each slot of a link, and their time in ns, over ``seconds``.

    The time covers all these runs if the kernel's BPF statistics were on throughout, see
    ``ipttctl.bpf.syscalls.enable_run_time``.
    """

    seconds: float
    slots: Mapping[Slot, SlotStats]

    @classmethod
    def between(cls, before: Link | None, after: Link, seconds: float) -> Measurement:
        """The measurement between two states of a link; ``before`` is None if it is a new link."""
        earlier = before.stats.slots if before else {}
        nothing = SlotStats()
        return cls(
            seconds,
            {
                slot: SlotStats(
                    now.runs - earlier.get(slot, nothing).runs,
                    now.run_time - earlier.get(slot, nothing).run_time,
                )
                for slot, now in after.stats.slots.items()
            },
        )
