# SPDX-License-Identifier: GPL-2.0
"""The packets that a program decides over while it is replaced, with and without a shadow before.

    left --- datagrams ---> router --- forwards them ---> right
                            the link, then filter/FORWARD: one rule, which counts

Each program counts the packets that it sees in a map of its own. The rule is the independent
witness: it counts those that the link let through, which is all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from ipttctl.bpf.filters import compile_filter
from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.hooks.nf import NfHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttctl.programs.keep import keep_maps
from ipttproto import NfMode, Slot
from tests.hot_swap.compare import PORT
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import settled, wait_for
from tests.kernel.support.maps import element, one_element_map
from tests.kernel.support.network import Network, event, flood_udp

_HOOK: Final = "nf:inet4/forward@raw"
#: packets that pass between two changes, and for which a shadow is compared
BETWEEN: Final = 20

Replace = Callable[[Controller, Link, ProgramSet], Link]


@dataclass(frozen=True)
class Decided:
    """Packets that passed, that no program decided over, and that the last program did not count.

    ``compared`` is the least number of packets for which a program was compared before it was
    swapped in. ``longest`` is the slowest of the changes, in seconds.
    """

    changes: int
    packets: int
    undecided: int
    forgotten: int
    compared: int
    longest: float


def _swap(controller: Controller, link: Link, programs: ProgramSet) -> Link:
    return controller.swap(link.id, programs)


def _promote(controller: Controller, link: Link, programs: ProgramSet) -> Link:
    shadow = controller.shadow(link.id, programs).shadow
    wait_for(lambda: controller.link(link.id).stats.agreed >= BETWEEN, 60, "packets are compared")
    return controller.promote(link.id, expect_shadow=shadow.number if shadow else 0)


def _promote_copy(controller: Controller, link: Link, programs: ProgramSet) -> Link:
    with keep_maps(link) as kept:
        kept.copy_to(programs)
    return _promote(controller, link, programs)


WAYS: Final[Mapping[str, Replace]] = {
    "`swap`": _swap,
    "`swap --shadow`, `promote`": _promote,
    "`swap --shadow --keep-maps`, `promote`": _promote_copy,
}


@contextmanager
def _counting() -> Iterator[tuple[ProgramSet, int]]:
    """A program that passes all packets and counts them, and its map."""
    with (
        one_element_map() as counter,
        Program.load(asm.counting(counter), name="count", type=ProgramType.SOCKET_FILTER) as made,
    ):
        # without the answers, that nobody is at the port
        only = compile_filter(f"udp dst port {PORT}")
        yield ProgramSet({Slot.PACKET: made.fd}, filter=only), counter


def measure(net: Network, replace: Replace, changes: int) -> Decided:
    """Load a program again and again, and have it decide, under load."""
    net.router.iptables("-F", "FORWARD")
    net.router.iptables("-A", "FORWARD", "-p", "udp", "--dport", str(PORT))
    hook = NfHook.parse(_HOOK, netns=net.router.path, mode=NfMode.FILTER)
    stop = event()
    seconds, compared = [], []
    with Controller() as controller, ExitStack() as stack:
        programs, counter = stack.enter_context(_counting())
        link = controller.attach(hook, programs)
        flood = net.left.start(flood_udp, net.right_address, PORT, stop)
        try:
            for _ in range(changes):
                _await(net)
                programs, counter = stack.enter_context(_counting())
                start = time.monotonic()
                link = replace(controller, link, programs)
                seconds.append(time.monotonic() - start)
                compared.append(link.stats.agreed)
            _await(net)
        finally:
            stop.set()
            flood.join(60)
        passed = settled(lambda: net.router.counted("FORWARD"))
        decided = controller.detach(link.id).stats.slots[Slot.PACKET].runs
        counted = element(counter)
    return Decided(changes, passed, passed - decided, passed - counted, min(compared), max(seconds))


def _await(net: Network) -> None:
    enough = net.router.counted("FORWARD") + BETWEEN
    wait_for(lambda: net.router.counted("FORWARD") >= enough, 60, "packets go through")
