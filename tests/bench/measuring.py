# SPDX-License-Identifier: GPL-2.0
"""Datagrams over loopback, links that they meet, and the table of what these add."""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Final, NamedTuple, Protocol

from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.hooks.hook import Hook
from ipttctl.link.controller import Controller
from ipttctl.link.limits import Limits
from ipttctl.link.model import ProgramSet
from ipttproto import Walk
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import run, wait_for_no_redirection
from tests.kernel.support.network import Namespace, namespace
from tests.kernel.support.observing import observing

ROUNDS: Final = 6
"""Rounds of measurements; the first warms up and is not counted."""
NO_LINK: Final = "no link"
"""The setting that the others are compared with."""

#: that leaves nothing out here
_GOVERNED: Final = Limits(budget_events=1_000_000_000, budget_cpu=1_000_000)
_SAMPLE: Final = Limits(sample=100)
_PORT: Final = 61000

Setting = Callable[[], AbstractContextManager[object]]
"""A context in which datagrams are sent."""


class Sender(Protocol):
    """A socket, or another way to send a message."""

    def send(self, data: bytes, /) -> object:
        """Send a message."""


class Stage(NamedTuple):
    """Two namespaces, and a controller that trusts the walks; ``keep`` ends before it."""

    place: Namespace
    other: Namespace
    controller: Controller
    keep: ExitStack


@contextmanager
def stage() -> Iterator[Stage]:
    """The stage of a bench; afterwards the module is unloaded."""
    with (
        namespace("bench") as place,
        namespace("other") as other,
        Controller() as controller,
        ExitStack() as keep,
    ):
        controller.end_verification(Walk.VERIFIED)
        yield Stage(place, other, controller, keep)
    run("rmmod", "ipttrace")


def returning(value: int, keep: ExitStack, kind: ProgramType = ProgramType.KPROBE) -> int:
    """A program that returns a value, as a descriptor."""
    made = Program.load(asm.returning(value), name=f"return_{value}", type=kind)
    return keep.enter_context(made).fd


def sender(keep: ExitStack, port: int = _PORT) -> socket.socket:
    """A socket of this namespace whose datagrams another one receives, at a port."""
    receiver = keep.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver.bind(("127.0.0.1", port))
    made = keep.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    made.connect(receiver.getsockname())
    return made


def send(to: Sender, packets: int) -> float:
    """The nanoseconds per datagram, which count instructions in such a guest."""
    begin = time.perf_counter_ns()
    for _ in range(packets):
        to.send(b"x")
    return (time.perf_counter_ns() - begin) / packets


@contextmanager
def linked(
    controller: Controller,
    hook: Hook,
    programs: ProgramSet,
    *,
    shadow: ProgramSet | None = None,
    watched: bool = False,
) -> Iterator[None]:
    """A link, with a shadow and an observer or without."""
    with ExitStack() as stack:
        observer = stack.enter_context(observing(controller)) if watched else None
        made = controller.attach(hook, programs)
        if shadow:
            controller.shadow(made.id, shadow)
        yield
        controller.detach(made.id)
        wait_for_no_redirection()
        if observer:
            observer.drain()


def with_all_programs(controller: Controller, hook: Hook, program: int) -> dict[str, Setting]:
    """The settings of a link with one program in all slots, by name."""
    every = dict.fromkeys(hook.SLOTS, program)

    def link(limits: Limits | None = None, *, watched: bool = True) -> Setting:
        return lambda: linked(controller, hook, ProgramSet(every, limits=limits), watched=watched)

    return {
        "followed, all programs, nobody listens": link(watched=False),
        "followed, all programs, one observer": link(),
        "the same, governed": link(_GOVERNED),
        "the same, a sample of 1/100": link(_SAMPLE),
    }


def measured(
    settings: Mapping[str, Setting], to: Sender, packets: int, rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """The cost of a datagram in each setting, one after the other in every round but the first."""
    results: dict[str, list[float]] = {name: [] for name in settings}
    for number in range(rounds):
        for name, setting in settings.items():
            with setting():
                taken = send(to, packets)
            if number:
                results[name].append(taken)
    return results


def report(title: str, added_to: str, results: Mapping[str, list[float]], parts: int = 1) -> None:
    """Print a table of what each setting adds to a datagram, or to one of its equal parts."""
    base = statistics.median(results[NO_LINK])
    print(f"kernel {os.uname().release}, {title} in each of {len(results[NO_LINK])} rounds")
    print(f"{'setting':42}{f'instructions added to a {added_to}':>34}{'spread':>9}")
    for name, values in results.items():
        added = (statistics.median(values) - base) / parts
        spread = (max(values) - min(values)) / 2 / parts
        print(f"{name:42}{added:34.0f}{f'±{spread:.0f}':>9}", flush=True)
