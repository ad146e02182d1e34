# SPDX-License-Identifier: GPL-2.0
"""Loading and unloading of the module: under traffic, and below those who observe it.

make test-reload RELOADS=300 KERNEL=6.12-rt
"""

from __future__ import annotations

import os
import statistics
import time
from contextlib import ExitStack
from typing import Any

import pytest

from ipttctl.errors import ModuleError, OverrunError
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttctl.link.streams import Stream
from ipttctl.link.wire import Connection
from ipttctl.system import netns
from ipttproto import TABLE_SLOTS, Group
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.cli import running
from tests.kernel.support.kernel import (
    COMMAND_TIMEOUT,
    MODULE,
    KernelLog,
    assert_kernel_content,
    load_module,
    loaded_modules,
    mark_log,
    redirected_functions,
    unload_module,
    wait_for,
)
from tests.kernel.support.network import Network, event, flood_udp

#: leaves the emulator half of its time for reloads; several bursts still come in each step
PAUSE = 0.01
RELOADS = int(os.environ.get("IPTT_RELOADS", "10"))


def test_observers_and_controllers_are_told() -> None:
    """Nobody waits for events of a module that has gone, and an old controller names the reason."""
    unloaded = "was unloaded; run `ipttctl module load`"
    loaded_again = "was unloaded and loaded again"
    with Controller() as controller, ExitStack() as stack:
        streams: list[Stream[Any]] = [
            stack.enter_context(controller.events()),
            stack.enter_context(controller.link_changes()),
            stack.enter_context(controller.namespaces_going()),
        ]
        commands = [
            stack.enter_context(running(*line))
            for line in (("events",), ("events", "--links", "-o", "json"))
        ]
        for command in commands:
            command.wait_for_text("listening")
        unload_module()
        try:
            for stream in streams:
                with pytest.raises(ModuleError, match=unloaded):
                    stream.read(5)
        finally:
            load_module()
        for stream in streams:
            with pytest.raises(ModuleError, match=loaded_again):
                stream.read(5)
        for ask in (controller.links, controller.status, lambda: controller.detach(1)):
            with pytest.raises(ModuleError, match=loaded_again):
                ask()
        for command in commands:
            assert command.process.wait(COMMAND_TIMEOUT) == 3
            assert "ipttctl: the ipttrace module was unloaded" in command.err()
    with Controller() as controller:
        assert controller.links() == []


def test_an_observer_that_was_full_is_told() -> None:
    """The kernel drops its own message too for a socket that is full."""
    with Connection.open() as connection:
        connection.join(Group.NAMESPACES, buffer=1)
        for _ in range(50):
            netns.create().close()
        wait_for(lambda: _overrun(connection), what="a full socket")
        unload_module()
        load_module()
        with pytest.raises(ModuleError, match="loaded again"):
            _read_on(connection)
        assert connection.gone


def _read_on(connection: Connection) -> None:
    """Read what is left, and whatever comes, until the connection says that nothing will."""
    for _ in range(1000):
        connection.receive()


def _overrun(connection: Connection) -> bool:
    """Whether messages were dropped; the others stay unread."""
    try:
        connection.receive()
    except OverrunError:
        return True
    return False


def test_reload_under_flood(
    make_program: MakeProgram, net: Network, session_log: KernelLog
) -> None:
    """Attach, see packets, detach, unload and load again, while both ends send."""
    net.router.iptables("-A", "FORWARD", "-p", "udp")
    programs = ProgramSet(dict.fromkeys(TABLE_SLOTS, make_program().fd))
    stop = event()
    floods = [
        net.left.start(flood_udp, net.right_address, 9, stop, PAUSE),
        net.right.start(flood_udp, net.left_address, 9, stop, PAUSE),
    ]
    seconds = []
    try:
        for number in range(RELOADS):
            start = time.monotonic()
            # only the console is left of a guest that dies
            mark_log(f"reload {number + 1} of {RELOADS}")
            with Controller() as controller, controller.events() as events:
                controller.attach(TableHook(), programs)
                wait_for(lambda: any(b.events.size for b in events.read(5)), what="an event")
            wait_for(lambda: loaded_modules()[MODULE] == 0, what="no references")
            unload_module()
            assert redirected_functions() == []
            load_module()
            assert [flood.exitcode for flood in floods] == [None, None]
            assert_kernel_content(session_log)
            seconds.append(time.monotonic() - start)
    finally:
        stop.set()
        for flood in floods:
            flood.join(30)
    assert [flood.exitcode for flood in floods] == [0, 0]
    passed = net.router.counted("FORWARD")
    assert passed > 20 * RELOADS
    pace = f"median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s"
    print(f"{RELOADS} reloads, {passed} packets, {pace}")
