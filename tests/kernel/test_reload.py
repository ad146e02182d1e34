# SPDX-License-Identifier: GPL-2.0
"""Loading and unloading of the module under traffic.

make test-reload RELOADS=300 KERNEL=6.12-rt
"""

from __future__ import annotations

import os
import statistics
import time

from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import TABLE_SLOTS
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.kernel import (
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
