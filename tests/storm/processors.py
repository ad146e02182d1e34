# SPDX-License-Identifier: GPL-2.0
"""CPUs, taken off line and on line."""

from __future__ import annotations

import os
from pathlib import Path

from tests.storm.actor import Actor

_CPUS = Path("/sys/devices/system/cpu")


def switchable() -> list[Path]:
    """The switches of the CPUs that can go off line; the first cannot."""
    return sorted(path for path in _CPUS.glob("cpu[0-9]*/online") if path.parent.name != "cpu0")


def all_on_line() -> None:
    """Bring back every CPU."""
    for switch in switchable():
        if switch.read_text().strip() == "0":
            switch.write_text("1")


class ProcessorsActor(Actor):
    """Switches one CPU after the other; all are on line at the end."""

    def act(self) -> None:
        """Switch one CPU."""
        switch = self.random.choice(switchable())
        on = switch.read_text().strip() == "1"
        switch.write_text("0" if on else "1")
        self.journal.write("cpu-off" if on else "cpu-on", f"{switch.parent.name} {os.cpu_count()}")
        self.pause(0.3, 3)

    def leave(self) -> None:
        """Bring back every CPU."""
        all_on_line()
