# SPDX-License-Identifier: GPL-2.0
"""The module comes and goes under traffic."""

from __future__ import annotations

from ipttctl.controller import Controller
from ipttctl.objects import ProgramSet
from ipttproto import Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.kernel import (
    MODULE,
    load_module,
    loaded_modules,
    redirected_functions,
    unload_module,
    wait_for,
)
from tests.kernel.support.network import Network, event, flood_udp
from tests.kernel.support.observing import observing

RELOADS = 10


def test_reload_under_flood(make_program: MakeProgram, net: Network) -> None:
    """Attach, see packets, detach, unload and load again, while both ends send."""
    net.router.iptables("-A", "FORWARD", "-p", "udp")
    programs = ProgramSet(dict.fromkeys(Slot, make_program().fd))
    stop = event()
    floods = [
        net.left.start(flood_udp, net.right_address, 9, stop),
        net.right.start(flood_udp, net.left_address, 9, stop),
    ]
    try:
        for _ in range(RELOADS):
            with Controller() as controller, observing(controller) as observer:
                controller.attach(programs)
                observer.collect(bool)
            wait_for(lambda: loaded_modules()[MODULE] == 0, what="no references")
            assert redirected_functions() == []
            unload_module()
            load_module()
    finally:
        stop.set()
        for flood in floods:
            flood.join(30)
    assert [flood.exitcode for flood in floods] == [0, 0]
