# SPDX-License-Identifier: GPL-2.0
"""The packets that the map of a program forgets while the program is replaced, in several ways.

    left --- datagrams ---> router --- forwards them ---> right
                            raw/PREROUTING, raw/OUTPUT: one rule each, which counts

The programs of bpf/count.c count the packets of every table in their map. The rules are the
independent witness.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ipttctl.bpf.map_copy import copy_entries
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link
from ipttctl.programs.choice import ProgramChoice
from ipttctl.programs.keep import keep_maps
from ipttctl.programs.maps import map_of, map_of_programs
from ipttctl.programs.sources import FromObject
from ipttproto import Slot
from tests.hot_swap.compare import PORT
from tests.kernel.support.kernel import settled, wait_for
from tests.kernel.support.network import Network, event, flood_udp

_MAP: Final = "verdicts"
#: packets that pass between two changes
_BETWEEN: Final = 20

#: loads the programs again, and swaps them in
Replace = Callable[[Controller, Link, ProgramChoice], Link]


@dataclass(frozen=True)
class Remembered:
    """Packets by the rules and by the last program's map, and the longest change in seconds."""

    changes: int
    packets: int
    counted: int
    longest: float

    @property
    def forgotten(self) -> int:
        """Packets that are in no count of the last program."""
        return self.packets - self.counted


def _swap(controller: Controller, link: Link, choice: ProgramChoice) -> Link:
    with choice.open() as programs:
        return controller.swap(link.id, programs)


def _copy_and_swap(controller: Controller, link: Link, choice: ProgramChoice) -> Link:
    with (
        choice.open() as programs,
        map_of(link, _MAP) as old,
        map_of_programs(programs.programs.values(), _MAP) as new,
    ):
        copy_entries(old, new)
        return controller.swap(link.id, programs)


def _swap_keeping(controller: Controller, link: Link, choice: ProgramChoice) -> Link:
    with keep_maps(link) as kept, choice.open(keep=kept) as programs:
        return controller.swap(link.id, programs, expect_generation=link.generation)


WAYS: Final[Mapping[str, Replace]] = {
    "`swap`": _swap,
    "`map copy`, then `swap`": _copy_and_swap,
    "`swap --keep-maps`": _swap_keeping,
}


def measure(net: Network, replace: Replace, file: Path, changes: int) -> Remembered:
    """Load the programs of an object file again and again, under load."""
    for chain in ("PREROUTING", "OUTPUT"):
        net.router.iptables("-t", "raw", "-F", chain)
        net.router.iptables("-t", "raw", "-A", chain)
    choice = ProgramChoice(
        {
            Slot.ENTRY: FromObject(str(file), "count_entry"),
            Slot.EXIT: FromObject(str(file), "count_exit"),
        }
    )
    stop = event()
    seconds = []
    with Controller() as controller:
        with choice.open() as programs:
            link = controller.attach(TableHook(4), programs)
        before = _rules(net)
        flood = net.left.start(flood_udp, net.right_address, PORT, stop)
        try:
            for _ in range(changes):
                _await(net)
                start = time.monotonic()
                link = replace(controller, link, choice)
                seconds.append(time.monotonic() - start)
            _await(net)
        finally:
            stop.set()
            flood.join(60)
        packets = settled(lambda: _rules(net)) - before
        with map_of(controller.link(link.id), _MAP) as found:
            counted = sum(sum(each) for _, each in found.dump())
        controller.detach(link.id)
    return Remembered(len(seconds), packets, counted, max(seconds))


def _rules(net: Network) -> int:
    return sum(net.router.counted(chain, "raw") for chain in ("PREROUTING", "OUTPUT"))


def _await(net: Network) -> None:
    enough = _rules(net) + _BETWEEN
    wait_for(lambda: _rules(net) >= enough, 60, "packets go through")
