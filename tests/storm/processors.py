# SPDX-License-Identifier: GPL-2.0
"""CPUs, taken offline and online."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tests.storm.actor import Actor

_CPUS = Path("/sys/devices/system/cpu")
#: ns per second that a CPU's ordinary tasks get before real-time ones; 6.1 has no fair server
_FAIR_SERVERS = Path("/sys/kernel/debug/sched/fair_server")


def switchable() -> list[Path]:
    """The switches of the CPUs that can go offline; the first cannot."""
    return sorted(path for path in _CPUS.glob("cpu[0-9]*/online") if path.parent.name != "cpu0")


def all_on_line() -> None:
    """Bring every CPU online."""
    for switch in switchable():
        if switch.read_text().strip() == "0":
            switch.write_text("1")


class ProcessorsActor(Actor):
    """Switches one CPU after the other; all are online at the end.

    Meanwhile they have no fair server: 6.12 counts it as one more running task when a CPU goes
    offline, and warns (sched_cpu_dying() checks before it stops the server).
    """

    _servers: Mapping[Path, str] = MappingProxyType({})

    def prepare(self) -> None:
        """Switch the fair servers off."""
        files = [_FAIR_SERVERS / switch.parent.name / "runtime" for switch in switchable()]
        self._servers = {file: file.read_text() for file in files if file.exists()}
        for file in self._servers:
            file.write_text("0")

    def act(self) -> None:
        """Switch one CPU."""
        switch = self.random.choice(switchable())
        on = switch.read_text().strip() == "1"
        switch.write_text("0" if on else "1")
        self.journal.write("cpu-off" if on else "cpu-on", f"{switch.parent.name} {os.cpu_count()}")
        self.pause(0.3, 3)

    def leave(self) -> None:
        """Bring back every CPU, and its fair server."""
        all_on_line()
        for file, runtime in self._servers.items():
            file.write_text(runtime)
