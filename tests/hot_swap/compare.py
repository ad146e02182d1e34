# SPDX-License-Identifier: GPL-2.0
"""Packets during the replacement of programs, in several ways.

    left --- numbered datagrams ---> router --- forwards them ---> right
                                     raw/PREROUTING: one rule, which counts

Two sets of the same programs record each datagram's number, each in a map of its own. The rule is
the independent witness of the number of packets that went through the table.
"""

from __future__ import annotations

import mmap
import os
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ipttctl.bpf.collection import Collection
from ipttctl.bpf.specs import CollectionSpec
from ipttproto import Slot
from tests.hot_swap.ways import Fds, Way
from tests.kernel.support.kernel import settled, wait_for
from tests.kernel.support.network import Namespace, Network, event

PORT: Final = 9
PACKETS: Final = 1 << 20
"""The capacity of the maps of seen.c."""

_SOURCE: Final = Path(__file__).with_name("seen.c")
_INCLUDE: Final = (Path(__file__).parents[2] / "bpf", Path(__file__).parents[2] / "kmod_netlink")
_MMAPABLE: Final = 1 << 10
_BY_ENTRY: Final = np.uint64(0xFFFFFFFF)
_EXIT_SHIFT: Final = np.uint64(32)
#: burst size, and seconds between bursts: the rate; `flood_udp` explains the pauses
_BURST: Final = 20
_PAUSE: Final = 0.002


@dataclass
class Seen:
    """A program set, and its records of each packet: 32 bits entry, 32 bits exit."""

    fds: Fds
    packets: npt.NDArray[np.uint64]

    @property
    def entries(self) -> npt.NDArray[np.uint64]:
        """How often its entry program saw each packet."""
        return self.packets & _BY_ENTRY

    @property
    def exits(self) -> npt.NDArray[np.uint64]:
        """How often its exit program saw each packet."""
        return self.packets >> _EXIT_SHIFT


@dataclass(frozen=True)
class Result:
    """Counts of the packets, and the duration of the changes in seconds."""

    changes: int
    packets: int
    none: int
    both: int
    torn: int
    longest: float
    median: float


@contextmanager
def two_sets() -> Iterator[tuple[Seen, Seen]]:
    """The same programs loaded twice, each time with a map of their own."""
    with ExitStack() as stack:
        spec = CollectionSpec.from_source(_SOURCE, include=_INCLUDE)
        spec.set_constants({"port": PORT})
        spec.maps["seen"].flags |= _MMAPABLE
        sets = []
        for _ in range(2):
            collection = stack.enter_context(Collection.load(spec))
            memory = mmap.mmap(collection.maps["seen"].fd, PACKETS * 8)
            fds = {
                Slot.ENTRY: collection.programs["seen_entry"].fd,
                Slot.EXIT: collection.programs["seen_exit"].fd,
            }
            sets.append(Seen(fds, np.frombuffer(memory, np.uint64)))
        yield sets[0], sets[1]


def send_numbered(address: str, begin: Any, stop: Any) -> None:
    """Send datagrams numbered from 0, from one event to the other.

    AssertionError if the numbers run out.
    """
    os.nice(10)
    begin.wait()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(PACKETS):
            # a full queue; the rule counts the packets that got through
            with suppress(OSError):
                sender.sendto(number.to_bytes(4, "little"), (address, PORT))
            if number % _BURST == 0:
                if stop.is_set():
                    return
                # `flood_udp` explains the pauses
                time.sleep(_PAUSE)
    raise AssertionError("the changes took longer than there are numbers")


def measure(
    net: Network, way: Way, sets: tuple[Seen, Seen], changes: int, *, in_a_row: bool = False
) -> Result:
    """Replace one set by the other and back, ``changes`` times, under load.

    Some packets pass in each state, unless the changes are made ``in_a_row``.
    """
    for seen in sets:
        seen.packets[:] = 0
    net.router.iptables("-t", "raw", "-F")
    net.router.iptables("-t", "raw", "-A", "PREROUTING", "-p", "udp", "--dport", str(PORT))
    begin, stop = event(), event()
    # before there is a controller, whose socket the process would keep open
    sender = net.left.start(send_numbered, net.right_address, begin, stop)
    seconds = []
    with way(sets[0].fds) as replace:
        begin.set()
        for change in range(1, changes + 1):
            if not in_a_row or change == 1:
                _await_packets(net.router)
            start = time.monotonic()
            replace(sets[change % 2].fds)
            seconds.append(time.monotonic() - start)
        _await_packets(net.router)
        stop.set()
        sender.join(60)
        assert sender.exitcode == 0
        counted = settled(lambda: _counted(net.router))
    return _judge(sets, counted, seconds)


def _judge(sets: tuple[Seen, Seen], counted: int, seconds: list[float]) -> Result:
    first, second = sets
    torn = (first.entries != first.exits) | (second.entries != second.exits)
    seen = (first.packets | second.packets) != 0
    both = (first.packets != 0) & (second.packets != 0) & ~torn
    return Result(
        changes=len(seconds),
        packets=counted,
        none=counted - int(seen.sum()),
        both=int(both.sum()),
        torn=int(torn.sum()),
        longest=max(seconds),
        median=statistics.median(seconds),
    )


def _counted(router: Namespace) -> int:
    return router.counted("PREROUTING", "raw")


def _await_packets(router: Namespace) -> None:
    before = _counted(router)
    wait_for(lambda: _counted(router) >= before + _BURST, 60, "packets go through")
