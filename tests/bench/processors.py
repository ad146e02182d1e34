# SPDX-License-Identifier: GPL-2.0
"""Cost of a packet by the number of CPUs that send at a time, in instructions.

Run it in a guest of several CPUs whose clock counts instructions:

    make bench BENCHES=processors

Each CPU sends datagrams over loopback to a socket of its own, through one base chain, in OUTPUT,
of one rule. The emulator runs one CPU at a time, and its clock counts the instructions of all: a
lock that another CPU holds is waited for, and the waiting is counted; what it costs to get a cache
line that another CPU has written is not.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from multiprocessing.connection import Connection as Pipe
from typing import Final

from ipttctl.bpf.filters import compile_filter
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import Slot
from tests.bench.chain import ruleset
from tests.bench.measuring import NO_LINK, ROUNDS, Setting, linked, returning, sender, stage
from tests.kernel.support.kernel import run, wait_for_no_redirection
from tests.kernel.support.network import enter_namespace

CPUS: Final = (1, 2, 4)
PACKETS: Final = 2000
_fork = multiprocessing.get_context("fork")


def send_from(processor: int, orders: Pipe) -> None:
    """Send datagrams as often as ordered, and tell when the first and the last one were sent."""
    os.sched_setaffinity(0, {processor})
    with ExitStack() as keep:
        to = sender(keep, port=61000 + processor)
        while packets := orders.recv():
            begin = time.perf_counter_ns()
            send_all(to, packets)
            orders.send((begin, time.perf_counter_ns()))


def send_all(to: socket.socket, packets: int) -> None:
    """Send so many datagrams."""
    for _ in range(packets):
        to.send(b"x")


@contextmanager
def senders() -> Iterator[list[Pipe]]:
    """A process on each CPU that sends."""
    pipes, processes = [], []
    for processor in range(max(CPUS)):
        ours, theirs = _fork.Pipe()
        process = _fork.Process(target=send_from, args=(processor, theirs), daemon=True)
        process.start()
        pipes.append(ours)
        processes.append(process)
    yield pipes
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(0)
        process.join()


def cost(pipes: list[Pipe]) -> float:
    """The instructions of all CPUs per datagram, while all of some senders send."""
    for pipe in pipes:
        pipe.send(PACKETS)
    times = [pipe.recv() for pipe in pipes]
    begun, ended = min(begin for begin, _ in times), max(end for _, end in times)
    return float(ended - begun) / PACKETS / len(pipes)


@contextmanager
def followed(controller: Controller, program: int) -> Iterator[None]:
    """A journey that follows each datagram from the hook on, and tells nobody."""
    journey = controller.attach(JourneyHook(), ProgramSet({Slot.STEP: program}))
    programs = ProgramSet({Slot.EXIT: program}, compile_filter("udp"))
    spine = controller.attach(SpineHook(), programs, journey=journey.id)
    yield
    controller.detach(spine.id)
    controller.detach(journey.id)
    wait_for_no_redirection()


def settings(controller: Controller, keep: ExitStack) -> dict[str, Setting]:
    """The settings in which datagrams are sent, by name."""
    leaving = ProgramSet({Slot.EXIT: returning(0, keep)})
    passed_over = ProgramSet(leaving.programs, compile_filter("tcp port 9999"))
    return {
        NO_LINK: nullcontext,
        "a filter passes the packet over": lambda: linked(controller, ChainHook(), passed_over),
        "followed, exit program only": lambda: linked(controller, ChainHook(), leaving),
        "followed by a journey": lambda: followed(controller, returning(0, keep)),
    }


def main() -> int:
    """Measure and print a table."""
    with stage() as (place, _, controller, keep):
        enter_namespace(place.path)
        run("nft", "-f", "-", text=ruleset(1))
        pipes = keep.enter_context(senders())
        costs: dict[str, list[float]] = {}
        for name, setting in settings(controller, keep).items():
            with setting():
                costs[name] = [
                    statistics.median([cost(pipes[:count]) for _ in range(ROUNDS)][1:])
                    for count in CPUS
                ]
    base = costs.pop(NO_LINK)
    print(f"kernel {os.uname().release}, {PACKETS} datagrams of each CPU in {ROUNDS - 1} rounds")
    print(f"{'instructions added to a datagram, by CPUs':42}" + "".join(f"{n:>9}" for n in CPUS))
    for name, values in costs.items():
        added = (value - without for value, without in zip(values, base, strict=True))
        print(f"{name:42}" + "".join(f"{value:9.0f}" for value in added), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
