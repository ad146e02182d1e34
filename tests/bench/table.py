# SPDX-License-Identifier: GPL-2.0
"""Cost of the table hook for a packet, in instructions.

Run it in a guest whose clock counts instructions:

    make bench

Datagrams go over loopback through one rule of the filter table in OUTPUT and one in INPUT. Each
setting is measured in every round, one after the other; the cost of a setting is its median minus
that of "no link", for one passage through a table. The first round warms up and is not counted.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

from ipttctl.bpf.filters import compile_filter
from ipttctl.bpf.programs import Program
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.limits import Limits
from ipttctl.link.model import ProgramSet
from ipttproto import Slot
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import run, wait_for_no_redirection
from tests.kernel.support.network import enter_namespace, namespace
from tests.kernel.support.observing import observing

PACKETS = 2000
ROUNDS = 6
#: a datagram over loopback passes filter twice: OUTPUT and INPUT
PASSAGES = 2

#: that leaves nothing out here
_GOVERNED = Limits(budget_events=1_000_000_000, budget_cpu=1_000_000)
_SAMPLE = Limits(sample=100)

Setting = Callable[[], AbstractContextManager[object]]


def send(sender: socket.socket, packets: int = PACKETS) -> float:
    """The nanoseconds per datagram, which count instructions in such a guest."""
    begin = time.perf_counter_ns()
    for _ in range(packets):
        sender.send(b"x")
    return (time.perf_counter_ns() - begin) / packets


def settings(controller: Controller, keep: ExitStack) -> dict[str, Setting]:
    """The settings to compare, by name: each is a context in which packets are sent."""

    def program(value: int) -> int:
        return keep.enter_context(Program.load(asm.returning(value), name=f"return_{value}")).fd

    no, yes = program(0), program(1)

    @contextmanager
    def link(
        programs: ProgramSet, *, watched: bool = False, count_rules: bool = False
    ) -> Iterator[None]:
        with ExitStack() as stack:
            observer = stack.enter_context(observing(controller)) if watched else None
            made = controller.attach(TableHook(count_rules=count_rules), programs)
            yield
            controller.detach(made.id)
            wait_for_no_redirection()
            if observer:
                observer.drain()

    every = {Slot.ENTRY: yes, Slot.RULE: yes, Slot.EXIT: yes}
    leaving = ProgramSet({Slot.ENTRY: yes, Slot.EXIT: no})
    other = compile_filter("tcp port 9999")
    return {
        "no link": nullcontext,
        "a filter passes the packet over": lambda: link(ProgramSet(every, filter=other)),
        "the entry program passes it over": lambda: link(ProgramSet({**every, Slot.ENTRY: no})),
        "selected, no rule and exit program": lambda: link(ProgramSet({Slot.ENTRY: yes})),
        "followed, exit program only": lambda: link(leaving),
        "followed, exit program, rules counted": lambda: link(leaving, count_rules=True),
        "followed, all programs, nobody listens": lambda: link(ProgramSet(every)),
        "followed, all programs, one observer": lambda: link(ProgramSet(every), watched=True),
        "the same, governed": lambda: link(ProgramSet(every, limits=_GOVERNED), watched=True),
        "the same, a sample of 1/100": lambda: link(
            ProgramSet(every, limits=_SAMPLE), watched=True
        ),
    }


def main() -> int:
    """Measure and print a table."""
    results: dict[str, list[float]] = {}
    with namespace("bench") as place, Controller() as controller, ExitStack() as keep:
        place.iptables("-A", "OUTPUT", "-p", "udp")
        place.iptables("-A", "INPUT", "-p", "udp")
        wanted = settings(controller, keep)
        enter_namespace(place.path)
        receiver = keep.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receiver.bind(("127.0.0.1", 0))
        sender = keep.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sender.connect(receiver.getsockname())
        for _ in range(ROUNDS):
            for name, setting in wanted.items():
                with setting():
                    results.setdefault(name, []).append(send(sender))
    run("rmmod", "ipttrace")
    base = statistics.median(results["no link"][1:])
    print(f"kernel {os.uname().release}, {PACKETS} datagrams in each of {ROUNDS - 1} rounds")
    print(f"{'setting':42}{'instructions added to a passage':>34}{'spread':>9}")
    for name, values in results.items():
        counted = values[1:]
        added = (statistics.median(counted) - base) / PASSAGES
        spread = (max(counted) - min(counted)) / 2 / PASSAGES
        print(f"{name:42}{added:34.0f}{f'±{spread:.0f}':>9}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
