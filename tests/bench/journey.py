# SPDX-License-Identifier: GPL-2.0
"""Cost of journeys for a packet, in instructions.

Run it in a guest whose clock counts instructions:

    make bench

Steps: the same messages are sent on ways of which each has one thing more than another one, with a
journey and without. The difference of the differences is the cost of that one thing. A packet that
is not followed pays for the look at it; one that is was chosen by a link at the spine, at OUTPUT.

Hooks: datagrams come to OUTPUT, which has an empty base chain, and to POSTROUTING, which has that
of AppArmor, if the kernel has it, and as many as said.

Each setting is measured in every round, one after the other, and its median counts. The first round
warms up and is not counted.
"""

from __future__ import annotations

import ctypes
import os
import socket
import statistics
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ipttctl.bpf.filters import compile_filter
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import Slot
from tests.bench.measuring import ROUNDS, Sender, Setting, returning, send, stage
from tests.kernel.support.kernel import run, wait_for_no_redirection
from tests.kernel.support.network import Namespace, enter_namespace, ip_batch
from tests.kernel.support.observing import observing
from tests.storm.memory import Memory

PACKETS: Final = 3000
#: VLANs on a device: each hands a packet to the next one
STACKED: Final = 4
#: base chains at POSTROUTING
FUNCTIONS: Final = (0, 1, 10)
_PORT: Final = 61000
_ETH_P_ALL: Final = 3
_SO_ATTACH_FILTER: Final = 26
_NEVER: Final = "tcp port 9999"

SpineLink = tuple[SpineHook, ProgramSet]


# --- ways that packets go ------------------------------------------------------------------------


class ReadAtOnce:
    """Sends a message, and reads it at the other end."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self._near = near
        self._far = far

    def send(self, data: bytes, /) -> int:
        """Send and read."""
        self._near.send(data)
        return len(self._far.recv(16))


def datagrams(keep: ExitStack, address: str) -> socket.socket:
    """A socket that sends datagrams to an address."""
    made = keep.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    made.connect((address, _PORT))
    return made


def reject_copies(keep: ExitStack, device: str) -> None:
    """Have a packet socket get a copy of each packet, which its filter rejects."""
    tap = keep.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
    program = struct.pack("HL", 1, ctypes.addressof(instruction))
    tap.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    tap.bind((device, _ETH_P_ALL))


def ways(keep: ExitStack, place: Namespace) -> dict[str, Sender]:
    """The ways, by name; in the namespace of the caller.

    bench  d0 10.9.0.1, d1 10.9.1.1 (with a tap), v4 10.9.2.1 on v3 on v2 on v1 on d2: they send
           what they get to nobody
    """
    stack = [f"link add link {below} name v{n} type vlan id {n}" for n, below in _stacked()]
    ip_batch(
        place.name,
        *(f"link add d{n} type dummy" for n in range(3)),
        *stack,
        *(f"link set {device} up" for device in ("d0", "d1", "d2", "v1", "v2", "v3", "v4")),
        *(f"address add 10.9.{n}.1/24 dev {device}" for n, device in enumerate(("d0", "d1", "v4"))),
        *(f"neighbour replace 10.9.{n}.2 lladdr 02:00:00:00:00:02 dev {device}"
          for n, device in enumerate(("d0", "d1", "v4"))),
    )  # fmt: skip  # a device together
    reject_copies(keep, "d1")
    streams, messages = (
        [keep.enter_context(end) for end in socket.socketpair(socket.AF_UNIX, kind)]
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    )
    receiver = keep.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver.bind(("127.0.0.1", _PORT))
    return {
        "stream": ReadAtOnce(*streams),
        "message": ReadAtOnce(*messages),
        "device": datagrams(keep, "10.9.0.2"),
        "copied": datagrams(keep, "10.9.1.2"),
        "stacked": datagrams(keep, "10.9.2.2"),
        "loopback": ReadAtOnce(datagrams(keep, "127.0.0.1"), receiver),
    }


def _stacked() -> list[tuple[int, str]]:
    return [(n, "d2" if n == 1 else f"v{n - 1}") for n in range(1, STACKED + 1)]


# --- settings ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """The links that packets meet meanwhile."""

    controller: Controller
    no: int
    yes: int
    other: Path

    def journey(
        self, *links: SpineLink, program: int | None = None, watched: bool = False
    ) -> Setting:
        """A journey with links on it."""
        step = ProgramSet({Slot.STEP: self.no if program is None else program})
        return partial(self._linked, links, step, watched=watched)

    def alone(self, link: SpineLink) -> Setting:
        """A link on no journey."""
        return partial(self._linked, (link,), None, watched=False)

    def choosing(self, where: str = "spine:inet4/output") -> SpineLink:
        """A link with an exit program, that of all packets at a hook."""
        return SpineHook.parse(where), ProgramSet({Slot.EXIT: self.no})

    @contextmanager
    def _linked(
        self, links: Sequence[SpineLink], step: ProgramSet | None, *, watched: bool
    ) -> Iterator[None]:
        with ExitStack() as stack:
            observer = stack.enter_context(observing(self.controller)) if watched else None
            journey = self.controller.attach(JourneyHook(), step).id if step else None
            made = [self.controller.attach(*link, journey=journey).id for link in links]
            yield
            for number in [*made, *([] if journey is None else [journey])]:
                self.controller.detach(number)
            wait_for_no_redirection()
            if observer:
                observer.drain()


def medians(
    settings: Mapping[str, Setting], to: Mapping[str, Sender]
) -> dict[str, dict[str, float]]:
    """The instructions of a message by setting and way."""
    taken: dict[str, dict[str, list[float]]] = {name: {way: [] for way in to} for name in settings}
    for number in range(ROUNDS):
        for name, setting in settings.items():
            with setting():
                for way, sender in to.items():
                    cost = send(sender, PACKETS)
                    if number:
                        taken[name][way].append(cost)
    return {
        name: {way: statistics.median(costs) for way, costs in by_way.items()}
        for name, by_way in taken.items()
    }


# --- tables --------------------------------------------------------------------------------------


def steps(settings: Settings, to: Mapping[str, Sender]) -> None:
    """Print what the steps of packets cost."""
    choosing = settings.choosing()
    costs = medians(
        {
            "nothing": nullcontext,
            "journey": settings.journey(),
            "link": settings.alone(choosing),
            "followed": settings.journey(choosing),
            "told": settings.journey(choosing, program=settings.yes, watched=True),
        },
        to,
    )

    def added(name: str, base: str) -> dict[str, float]:
        return {way: costs[name][way] - costs[base][way] for way in to}

    print(f"kernel {os.uname().release}, {PACKETS} packets in each of {ROUNDS - 1} rounds")
    print(f"{'step':34}{'not followed':>14}{'followed':>14}{'with observer':>16}")
    passing, *known = added("journey", "nothing"), added("followed", "link"), added("told", "link")
    freed = passing["stream"]
    socket_only = passing["message"] - passing["stream"]
    sent = [(all_of["stacked"] - all_of["device"]) / STACKED for all_of in (passing, *known)]
    copied = [all_of["copied"] - all_of["device"] for all_of in (passing, *known)]
    # a datagram that is read is freed by one of the two functions, any other by both
    arrived = [all_of["loopback"] - all_of["device"] + freed / 2 for all_of in (passing, *known)]
    chosen = [all_of["device"] - one for all_of, one in zip(known, sent[1:], strict=True)]
    for name, values in (
        ("freed", [freed]),
        ("chosen, and freed", [None, *chosen]),
        ("copied", [copied[0] - freed]),
        ("copied, and the copy freed", copied),
        ("sent by a device", sent),
        ("at a socket", [socket_only]),
        ("received by a device, at a socket", arrived),
    ):
        cells = [f"{'' if value is None else format(value, '.0f')}" for value in values]
        widths = (14, 14, 16)
        print(f"{name:34}" + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=False)))
    sys.stdout.flush()


def hooks(settings: Settings, to: Sender) -> None:
    """Print what links on a journey cost at a hook."""
    never = compile_filter(_NEVER)
    exit_program = {Slot.EXIT: settings.no}
    chosen = settings.choosing()
    later = settings.choosing("spine:inet4/postrouting")
    print(f"{'a hook, with links on a journey':60}" + "".join(f"{n:>8}" for n in FUNCTIONS))
    table: dict[str, list[float]] = {}
    for functions in FUNCTIONS:
        run("nft", "-f", "-", text=ruleset(functions))
        costs = medians(
            {
                "journey": settings.journey(),
                "other": settings.journey(
                    (SpineHook(netns=settings.other), ProgramSet(exit_program))
                ),
                "family": settings.journey(
                    (SpineHook.parse("spine:inet6"), ProgramSet(exit_program))
                ),
                "filter": settings.journey((SpineHook(), ProgramSet(exit_program, filter=never))),
                "chosen": settings.journey(chosen),
                "selected": settings.journey(chosen, later),
            },
            {"device": to},
        )
        cost = {name: by_way["device"] for name, by_way in costs.items()}
        # these are at both hooks
        for name, what in (
            ("link of another namespace", "other"),
            ("link of another family", "family"),
            ("a filter passes the packet over, not followed", "filter"),
        ):
            table.setdefault(name, []).append((cost[what] - cost["journey"]) / 2)
        added = cost["selected"] - cost["chosen"]
        table.setdefault("selected because it is followed, exit program", []).append(added)
    for name, values in table.items():
        print(f"{name:60}" + "".join(f"{value:8.0f}" for value in values), flush=True)


def ruleset(functions: int) -> str:
    """An empty base chain at OUTPUT, and some at POSTROUTING."""
    chains = "".join(
        f"chain p{n} {{ type filter hook postrouting priority {n}; }}\n" for n in range(functions)
    )
    return (
        "flush ruleset\ntable ip t {\n"
        f"chain o {{ type filter hook output priority 0; }}\n{chains}}}\n"
    )


def memory(controller: Controller, program: int) -> None:
    """Print the memory that journeys take, however many there are."""
    before = Memory.now()
    made = controller.attach(JourneyHook(), ProgramSet({Slot.STEP: program}))
    taken = Memory.now() - before
    print(f"memory for followed packets: {taken.total} KiB", flush=True)
    controller.detach(made.id)
    wait_for_no_redirection()


def main() -> int:
    """Measure and print the tables."""
    with stage() as (place, other, controller, keep):
        settings = Settings(controller, returning(0, keep), returning(1, keep), other.path)
        enter_namespace(place.path)
        to = ways(keep, place)
        run("nft", "-f", "-", text=ruleset(0))
        steps(settings, to)
        hooks(settings, to["device"])
        memory(controller, settings.no)
    return 0


if __name__ == "__main__":
    sys.exit(main())
