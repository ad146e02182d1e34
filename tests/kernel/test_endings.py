# SPDX-License-Identifier: GPL-2.0
"""Commands end when they are told to, under traffic that never ends."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttproto import Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.cli import IPTTCTL, Running, running, trace_command
from tests.kernel.support.kernel import wait_for
from tests.kernel.support.network import Namespace, event, flood_udp, namespace

#: seconds; far more than the longest drain in a busy guest
ENDED = 120


@pytest.fixture
def flooded(controller: Controller, make_program: MakeProgram) -> Iterator[tuple[Namespace, Link]]:
    """A namespace under a flood of packets, and a link that emits an event for each."""
    with namespace("flooded") as place:
        place.iptables("-A", "OUTPUT", "-p", "udp")
        program = make_program().fd
        link = controller.attach(
            TableHook(), ProgramSet({Slot.ENTRY: program, Slot.RULE: program, Slot.EXIT: program})
        )
        stop = event()
        sender = place.start(flood_udp, "127.0.0.1", 9, stop)
        try:
            yield place, link
            assert sender.is_alive()
        finally:
            stop.set()
            sender.join(ENDED)
            controller.detach(link.id)


def in_the_middle(command: Running) -> None:
    """Wait until a command has shown some events."""
    wait_for(lambda: command.out().count("\n") > 50, timeout=ENDED, what="events are shown")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_events_ends_when_it_is_told(
    number: signal.Signals, flooded: tuple[Namespace, Link]
) -> None:
    with running("events", "--link", str(flooded[1].id)) as command:
        in_the_middle(command)
        assert command.stop(number, timeout=ENDED) == 0
        assert " events, " in command.err()


def test_events_ends_after_a_count(flooded: tuple[Namespace, Link]) -> None:
    with running("events", "-c", "5", "--link", str(flooded[1].id)) as command:
        assert command.process.wait(ENDED) == 0
        assert command.err().splitlines()[-1].startswith("5 events, ")


def test_trace_ends_though_others_go_on(flooded: tuple[Namespace, Link]) -> None:
    with trace_command("-N", flooded[0].name) as command:
        in_the_middle(command)
        assert command.stop(timeout=ENDED) == 0


def test_a_reader_that_does_not_read_keeps_nobody(flooded: tuple[Namespace, Link]) -> None:
    """The first two signals are for the pending output, the third for the process."""
    del flooded
    with subprocess.Popen(
        [*IPTTCTL, "events"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        assert process.stdout
        try:
            assert process.stderr.readline() == "listening\n"
            # it waits for room in the pipe
            wait_for(lambda: "pipe" in wchan(process.pid), timeout=ENDED, what="the pipe is full")
            # three different ones: pending signals of one kind merge
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                assert process.poll() is None
                process.send_signal(number)
            assert process.wait(ENDED) == -signal.SIGTERM
        finally:
            process.kill()


def wchan(pid: int) -> str:
    """The kernel function in which a process waits."""
    return Path(f"/proc/{pid}/wchan").read_text()
