# SPDX-License-Identifier: GPL-2.0
"""Time that a swap takes, and the end of the last link, from its caller and from others.

Run it in a guest whose clock counts instructions, and in one of two processors whose clock does
not:

    make bench

A swap is timed until its reply: when the new set is in force, once the old one has ended, and in a
hurry; on an idle machine, and while datagrams flood each of its processors. With the last link the
module takes its redirections out of the kernel, which waits for grace periods. ``detach`` is timed
as its caller sees it, and so is the deletion of a device that has nothing to do with links, which
holds RTNL: by itself, and while another process attaches and detaches a link all the time. The
clock of a guest that counts instructions runs on while it is idle, so that waiting counts too, a
millisecond for a million instructions.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from multiprocessing.synchronize import Event
from typing import Any

from pyroute2 import IPRoute

from ipttctl.bpf.programs import Program
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttproto import Slot
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import run, wait_for, wait_for_no_redirection
from tests.kernel.support.network import enter_namespace, flood_udp, namespace

TIMES = 20

_fork = multiprocessing.get_context("fork")


def milliseconds(call: Callable[[], object]) -> float:
    """The time that a call takes."""
    begin = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - begin) / 1e6


def detaching() -> Iterator[float]:
    """Attach a link and yield the milliseconds of its detach, for ever."""
    with Controller() as controller, Program.load(asm.returning(1), name="bench") as program:
        programs = ProgramSet({Slot.ENTRY: program.fd, Slot.EXIT: program.fd})
        while True:
            link = controller.attach(TableHook(), programs)
            yield milliseconds(partial(controller.detach, link.id))


@contextmanager
def links_come_and_go() -> Iterator[None]:
    """Another process attaches and detaches a link meanwhile."""

    def come_and_go(begun: Event, enough: Event) -> None:
        for _ in detaching():
            begun.set()
            if enough.is_set():
                return

    begun, enough = _fork.Event(), _fork.Event()
    other = _fork.Process(target=come_and_go, args=(begun, enough))
    other.start()
    begun.wait()
    yield
    enough.set()
    other.join()
    assert other.exitcode == 0


def _has_ended(link: Link) -> bool:
    return link.ended == link.generation - 1


@contextmanager
def flood() -> Iterator[None]:
    """Datagrams go through the tables meanwhile, on each processor."""

    def send_from(processor: int) -> None:
        os.sched_setaffinity(0, {processor})
        flood_udp("127.0.0.1", 9, stop)

    stop = _fork.Event()
    senders = [
        _fork.Process(target=send_from, args=(processor,)) for processor in os.sched_getaffinity(0)
    ]
    for sender in senders:
        sender.start()
    yield
    stop.set()
    for sender in senders:
        sender.join()


#: how a swap is answered -> the parameters that ask for it
ANSWERS: dict[str, dict[str, Any]] = {
    "": {},
    ", --wait": {"wait": True},
    ", --expedite": {"expedite": True},
}


def swaps(how: dict[str, Any]) -> list[float]:
    """The milliseconds of each of some swaps; before each of them the last one has ended."""
    taken = []
    with Controller() as controller, Program.load(asm.returning(1), name="bench") as program:
        programs = ProgramSet({Slot.ENTRY: program.fd, Slot.EXIT: program.fd})
        link = controller.attach(TableHook(), programs)
        for _ in range(TIMES):
            taken.append(milliseconds(partial(controller.swap, link.id, programs, **how)))
            wait_for(lambda: _has_ended(controller.link(link.id)))
        controller.detach(link.id)
    return taken


def deletions() -> list[float]:
    """The milliseconds of each deletion of a device."""
    with IPRoute() as rtnl:
        for number in range(TIMES):
            rtnl.link("add", ifname=f"bench{number}", kind="dummy")
        indexes = [rtnl.link_lookup(ifname=f"bench{number}")[0] for number in range(TIMES)]
        return [milliseconds(partial(rtnl.link, "del", index=index)) for index in indexes]


def main() -> int:
    """Measure and print a table."""
    with namespace("bench") as place:
        place.iptables("-A", "OUTPUT", "-p", "udp")
        enter_namespace(place.path)
        results = {}
        around: Callable[[], AbstractContextManager[None]]
        for name, around in (("", nullcontext), (" under a flood", flood)):
            for answer, how in ANSWERS.items():
                with around():
                    results[f"a swap{answer}{name}"] = swaps(how)
        wait_for_no_redirection()
        results["a device is deleted"] = deletions()
        with links_come_and_go():
            results["a device is deleted, links come and go"] = deletions()
        wait_for_no_redirection()
        results["the last link is detached"] = [
            taken for taken, _ in zip(detaching(), range(TIMES), strict=False)
        ]
    wait_for_no_redirection()
    run("rmmod", "ipttrace")
    print(f"kernel {os.uname().release}, {os.cpu_count()} processors, {TIMES} times each")
    print(f"{'milliseconds':42}{'median':>10}{'most':>10}")
    for name, taken in results.items():
        print(f"{name:42}{statistics.median(taken):10.1f}{max(taken):10.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
