# SPDX-License-Identifier: GPL-2.0
"""Cost of a link at a netfilter hook for a packet, in instructions, with and without a shadow.

Run it in a guest whose clock counts instructions:

    make bench

Datagrams go over loopback past one link in OUTPUT that lets all of them pass. Each setting is
measured in every round, one after the other; its cost is its median minus that of "no link". The
first round warms up and is not counted.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

from ipttctl.bpf.filters import compile_filter
from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.hooks.nf import NfHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import NfMode, Slot
from tests.bench.table import send
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import run
from tests.kernel.support.network import enter_namespace, namespace
from tests.kernel.support.observing import observing

PACKETS = 3000
ROUNDS = 6

Setting = Callable[[], AbstractContextManager[object]]


def settings(controller: Controller, keep: ExitStack, path: str) -> dict[str, Setting]:
    """The settings to compare, by name: each is a context in which packets are sent."""

    def program(value: int) -> ProgramSet:
        code = asm.returning(value)
        made = Program.load(code, name=f"return_{value}", type=ProgramType.SOCKET_FILTER)
        return ProgramSet({Slot.PACKET: keep.enter_context(made).fd})

    drop, accept = program(0), program(1)
    other = compile_filter("tcp port 9999")

    @contextmanager
    def link(shadow: ProgramSet | None = None, *, watched: bool = False) -> Iterator[None]:
        with ExitStack() as stack:
            observer = stack.enter_context(observing(controller)) if watched else None
            hook = NfHook.parse("nf:inet4/output", netns=path, mode=NfMode.FILTER)
            made = controller.attach(hook, accept)
            if shadow:
                controller.shadow(made.id, shadow)
            yield
            controller.detach(made.id)
            if observer:
                observer.drain()

    passed_over = ProgramSet(accept.programs, filter=other)
    return {
        "no link": nullcontext,
        "a link in filter mode": link,
        "a shadow that agrees": lambda: link(accept),
        "a shadow whose filter passes it over": lambda: link(passed_over),
        "a shadow that disagrees, nobody listens": lambda: link(drop),
        "a shadow that disagrees, one observer": lambda: link(drop, watched=True),
    }


def main() -> int:
    """Measure and print a table."""
    results: dict[str, list[float]] = {}
    with namespace("bench") as place, Controller() as controller, ExitStack() as keep:
        wanted = settings(controller, keep, str(place.path))
        enter_namespace(place.path)
        receiver = keep.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receiver.bind(("127.0.0.1", 0))
        sender = keep.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sender.connect(receiver.getsockname())
        for _ in range(ROUNDS):
            for name, setting in wanted.items():
                with setting():
                    results.setdefault(name, []).append(send(sender, PACKETS))
    run("rmmod", "ipttrace")
    base = statistics.median(results["no link"][1:])
    print(f"kernel {os.uname().release}, {PACKETS} datagrams in each of {ROUNDS - 1} rounds")
    print(f"{'setting':42}{'instructions added to a packet':>34}{'spread':>9}")
    for name, values in results.items():
        counted = values[1:]
        spread = (max(counted) - min(counted)) / 2
        print(f"{name:42}{statistics.median(counted) - base:34.0f}{f'±{spread:.0f}':>9}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
