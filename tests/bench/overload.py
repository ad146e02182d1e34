# SPDX-License-Identifier: GPL-2.0
"""Events under overload, and the losses by their causes.

Run it in a guest whose clock counts instructions:

    make bench

Of several processors an emulator runs one for up to 100 ms before it turns to the next, in which a
ring would overflow that has to wait for another processor: hence one.

Datagrams are sent as fast as can be, through a base chain of eight rules that all match. A process
reads all events, or stops reading, while a governor leaves packets out, or none does.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import ExitStack
from typing import Final

from ipttctl.bpf.programs import Program
from ipttctl.hooks.chain import ChainHook
from ipttctl.link.controller import Controller
from ipttctl.link.limits import Limits
from ipttctl.link.model import ProgramSet
from ipttproto import Slot, Walk
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import run, wait_for_no_redirection
from tests.kernel.support.network import Namespace, namespace

PACKETS: Final = 20_000
_EVENTS: Final = 5_000


def flood() -> None:
    """Send the datagrams, to a socket that is there: nothing answers."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        for _ in range(PACKETS):
            sender.send(b"x")


def measure(controller: Controller, place: Namespace, limits: Limits | None, *, stops: bool) -> str:
    """A line of the table."""
    with ExitStack() as keep:
        program = keep.enter_context(Program.load(asm.returning(1), name="return_1")).fd
        stream = keep.enter_context(controller.events())
        programs = ProgramSet({Slot.RULE: program, Slot.EXIT: program}, limits=limits)
        link = controller.attach(ChainHook(netns=place.path), programs)
        begin = time.monotonic()
        sender = place.start(flood)
        read = 0
        while sender.is_alive():
            if stops:
                sender.join()
            else:
                read += sum(map(len, stream.read(0.1)))
        seconds = time.monotonic() - begin
        stats = controller.detach(link.id).stats
        wait_for_no_redirection()
        read += sum(map(len, stream.drain()))
        lost = stream.losses
    return (
        f"{PACKETS / seconds:11.0f}{stats.events:10}{read:10}{lost.ring:10}{lost.observer:10}"
        f"{stats.left_out.packets:10}"
    )


def main() -> int:
    """Measure and print a table."""
    print(f"kernel {os.uname().release}, {os.cpu_count()} processors, {PACKETS} datagrams")
    print(f"{'setting':30}{'datagrams/s':>11}{'events':>10}{'read':>10}", end="")
    print(f"{'ring full':>10}{'unread':>10}{'left out':>10}")
    rules = "counter\n" * 8
    with namespace("bench") as place, Controller() as controller:
        controller.end_verification(Walk.VERIFIED)
        chain = f"chain c {{ type filter hook output priority 0\n{rules}}}"
        run("ip", "netns", "exec", place.name, "nft", "-f", "-", text=f"table ip t {{\n{chain}\n}}")
        for name, limits, stops in (
            ("a reader", None, False),
            ("a reader, governed", Limits(budget_events=_EVENTS), False),
            ("one that stops", None, True),
            ("one that stops, governed", Limits(budget_events=_EVENTS), True),
        ):
            print(f"{name:30}{measure(controller, place, limits, stops=stops)}", flush=True)
    run("rmmod", "ipttrace")
    return 0


if __name__ == "__main__":
    sys.exit(main())
