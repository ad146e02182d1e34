# SPDX-License-Identifier: GPL-2.0
"""Cost of the chain hook for a packet, in instructions.

Run it in a guest whose clock counts instructions:

    make bench

Datagrams go over loopback and meet one base chain, in OUTPUT, of as many rules as said. Each
setting is measured in every round, one after the other; the cost of a setting is its median minus
that of "no link". The first round warms up and is not counted.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

from ipttctl.bpf.filters import compile_filter
from ipttctl.bpf.programs import Program
from ipttctl.hooks.chain import ChainHook
from ipttctl.link.controller import Controller
from ipttctl.link.limits import Limits
from ipttctl.link.model import ProgramSet
from ipttproto import Slot, Walk
from tests.bench.table import ROUNDS, send
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import run, wait_for_no_redirection
from tests.kernel.support.network import enter_namespace, namespace
from tests.kernel.support.observing import observing

#: that leaves nothing out here
_GOVERNED = Limits(budget_events=1_000_000_000, budget_cpu=1_000_000)
_SAMPLE = Limits(sample=100)

Setting = Callable[[], AbstractContextManager[object]]
SIZES = (1, 21, 20_000)
EVERYWHERE = ChainHook()


def settings(controller: Controller, keep: ExitStack, other: Path) -> dict[str, Setting]:
    """The settings to compare, by name: each is a context in which packets are sent."""

    def program(value: int) -> int:
        return keep.enter_context(Program.load(asm.returning(value), name=f"return_{value}")).fd

    no, yes = program(0), program(1)

    @contextmanager
    def link(
        programs: ProgramSet, hook: ChainHook = EVERYWHERE, *, watched: bool = False
    ) -> Iterator[None]:
        with ExitStack() as stack:
            observer = stack.enter_context(observing(controller)) if watched else None
            made = controller.attach(hook, programs)
            yield
            controller.detach(made.id)
            wait_for_no_redirection()
            if observer:
                observer.drain()

    every = {Slot.ENTRY: yes, Slot.RULE: yes, Slot.EXIT: yes}
    leaving = ProgramSet({Slot.EXIT: no})
    filtered = ProgramSet(every, filter=compile_filter("tcp port 9999"))
    return {
        "no link": nullcontext,
        "link of another namespace": lambda: link(ProgramSet(every), ChainHook(netns=other)),
        "link of another family": lambda: link(ProgramSet(every), ChainHook.parse("chain:ip6")),
        "a filter passes the packet over": lambda: link(filtered),
        "the entry program passes it over": lambda: link(ProgramSet({**every, Slot.ENTRY: no})),
        "followed, exit program only": lambda: link(leaving),
        "followed, all programs, nobody listens": lambda: link(ProgramSet(every)),
        "followed, all programs, one observer": lambda: link(ProgramSet(every), watched=True),
        "the same, governed": lambda: link(ProgramSet(every, limits=_GOVERNED), watched=True),
        "the same, a sample of 1/100": lambda: link(
            ProgramSet(every, limits=_SAMPLE), watched=True
        ),
    }


def ruleset(rules: int) -> str:
    """A base chain whose rules match no packet but the last one."""
    middle = "\n".join(f"udp dport {1 + n % 60000} drop" for n in range(rules - 1))
    return f"""
        flush ruleset
        table ip t {{
            chain c {{
                type filter hook output priority 0
                {middle}
                accept
            }}
        }}
    """


def main() -> int:
    """Measure and print a table for each size of the chain."""
    with (
        namespace("bench") as place,
        namespace("other") as other,
        Controller() as controller,
        ExitStack() as keep,
    ):
        controller.end_verification(Walk.VERIFIED)
        wanted = settings(controller, keep, other.path)
        enter_namespace(place.path)
        receiver = keep.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receiver.bind(("127.0.0.1", 61000))
        sender = keep.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sender.connect(receiver.getsockname())
        for rules in SIZES:
            run("nft", "-f", "-", text=ruleset(rules))
            packets = 6000 if rules < 1000 else 20
            results: dict[str, list[float]] = {}
            for _ in range(ROUNDS if rules < 1000 else 4):
                for name, setting in wanted.items():
                    with setting():
                        results.setdefault(name, []).append(send(sender, packets))
            report(rules, packets, results)
    run("rmmod", "ipttrace")
    return 0


def report(rules: int, packets: int, results: dict[str, list[float]]) -> None:
    """Print a table."""
    base = statistics.median(results["no link"][1:])
    rounds = len(results["no link"]) - 1
    print(f"kernel {os.uname().release}, {rules} rules, {packets} datagrams in {rounds} rounds")
    print(f"{'setting':42}{'instructions added to a passage':>34}{'spread':>9}{'a rule':>9}")
    for name, values in results.items():
        counted = values[1:]
        added = statistics.median(counted) - base
        spread = (max(counted) - min(counted)) / 2
        print(f"{name:42}{added:34.0f}{f'±{spread:.0f}':>9}{added / rules:9.1f}")


if __name__ == "__main__":
    sys.exit(main())
