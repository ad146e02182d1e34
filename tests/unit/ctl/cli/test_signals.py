# SPDX-License-Identifier: GPL-2.0
"""Signals: repeated ones, and ones that were ignored before a command began."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ipttctl.bpf import tools
from ipttctl.cli.signals import interrupted_by, on_ending, wait_ending
from ipttctl.link.wire import wait_readable

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def told() -> Iterator[list[int]]:
    """The signals that reached the handler from before."""
    numbers: list[int] = []
    before = {n: signal.signal(n, lambda number, _: numbers.append(number)) for n in NUMBERS}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_third_signal_is_for_the_process(told: list[int]) -> None:
    stops: list[None] = []
    with interrupted_by(lambda: stops.append(None)):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
        assert (len(stops), told) == (2, [])
        signal.raise_signal(signal.SIGHUP)
        assert (len(stops), told) == (2, [signal.SIGHUP])
    signal.raise_signal(signal.SIGINT)
    assert (len(stops), told) == (2, [signal.SIGHUP, signal.SIGINT])


@pytest.mark.parametrize("number", NUMBERS)
def test_an_ignored_signal_stays_so(number: signal.Signals, told: list[int]) -> None:
    signal.signal(number, signal.SIG_IGN)
    stops: list[None] = []
    with on_ending(lambda: stops.append(None)):
        signal.raise_signal(number)
    signal.raise_signal(number)
    assert (stops, told) == ([], [])
    assert signal.getsignal(number) is signal.SIG_IGN


def test_a_process_that_keeps_on_reads_again(told: list[int]) -> None:
    """SIGHUP is not counted among the signals that end it, however often it comes."""
    called: list[str] = []
    with on_ending(lambda: called.append("stop"), lambda: called.append("reread")):
        for _ in range(4):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
    assert (called, told) == (["reread"] * 4 + ["stop"], [])


def test_a_signal_stops_once(told: list[int]) -> None:
    """A second call means a second signal: events that wait are not shown then."""
    stops: list[None] = []
    for number in NUMBERS:
        with on_ending(lambda: stops.append(None)):
            signal.raise_signal(number)
        # the end of the block waits for the thread
        assert len(stops) == 1
        stops.clear()
    with on_ending(lambda: stops.append(None)):
        for number in NUMBERS[:2]:
            signal.raise_signal(number)
    assert (len(stops), told) == (2, [])


def test_waiting_ends_with_a_signal(told: list[int]) -> None:
    main = threading.main_thread()
    assert main.ident is not None
    timer = threading.Timer(0.05, signal.pthread_kill, (main.ident, signal.SIGTERM))
    timer.start()
    begin = time.monotonic()
    wait_ending(60)
    assert time.monotonic() - begin < 30
    assert told == []
    timer.join()


def test_a_signal_ends_a_wait_that_it_does_not_interrupt(told: list[int]) -> None:
    """It comes to another thread, as one does that comes before the wait has begun."""

    def send() -> None:
        time.sleep(0.2)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    sender = threading.Thread(target=send)
    sender.start()
    begin = time.monotonic()
    wait_ending(30)
    assert time.monotonic() - begin < 10
    sender.join()
    assert told == []


def test_tools_have_exit_statuses_though_sigchld_is_ignored() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert tools.run(["sh", "-c", "exit 3"]).returncode == 3
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_tool_reads_its_input_and_is_in_its_directory() -> None:
    assert tools.run(["sh", "-c", "cat; pwd"], text="in\n", directory=Path("/")).stdout == "in\n/\n"
    assert tools.run(["cat"]).stdout == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_tool_ends_with_the_process_that_waits_for_it(number: signal.Signals) -> None:
    waiting = ["sh", "-c", "echo $$ >&3; exec sleep 60 3>&-"]
    reader, writer = os.pipe()
    code = (
        f"import os, subprocess\nos.dup2({writer}, 3)\nfrom ipttctl.bpf import tools\n"
        "run = subprocess.run\n"
        "subprocess.run = lambda *a, **k: run(*a, pass_fds=(3,), **k)\n"
        f"tools.run({waiting!r})"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        pass_fds=(writer,),
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    ) as process:
        os.close(writer)
        with os.fdopen(reader) as told:
            tool = os.pidfd_open(int(told.readline()))
        process.send_signal(number)
    try:
        assert wait_readable([tool], 30)
    finally:
        os.close(tool)


def test_a_tool_whose_process_is_gone_does_not_begin() -> None:
    """The kernel tells only of an end that is still to come."""
    gone = subprocess.run(
        ["echo", "begun"],
        stdout=subprocess.PIPE,
        preexec_fn=partial(tools._end_with, os.getpid() + 1, ctypes.CDLL(None).prctl),
        check=False,
    )
    assert (gone.returncode, gone.stdout) == (128 + signal.SIGTERM, b"")
