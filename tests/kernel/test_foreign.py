# SPDX-License-Identifier: GPL-2.0
"""TRACE rules of others log the same lines with and without the module's links."""

from __future__ import annotations

import re

from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import TABLE_SLOTS, EventFlag
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.network import network
from tests.kernel.support.observing import observing
from tests.kernel.support.rulesets import router_rules
from tests.kernel.test_differential import kernel_logging, send_traffic

#: the fields that differ from one packet to the next
VARIABLE = re.compile(r" (ID|MAC|SEQ|ACK|ID)=\S*")


def _lines(fd: int | None, controller: Controller) -> list[str]:
    """The TRACE lines of the test traffic; with a program, while a link traces the same packets."""
    programs = dict.fromkeys(TABLE_SLOTS, fd) if fd is not None else {}
    with network() as net, kernel_logging() as log:
        # TRACE sets the mark while the packet passes raw, inside the redirected function
        net.router.restore(router_rules("-p udp -j TRACE"))
        link = controller.attach(TableHook(), ProgramSet(programs)) if programs else None
        send_traffic(net)
        if link:
            assert controller.link(link.id).stats.events > 500
            controller.detach(link.id)
        return [
            VARIABLE.sub("", line[line.index("TRACE:") :])
            for line in log.new_lines()
            if "TRACE:" in line
        ]


def test_foreign_trace_lines_are_the_same(
    controller: Controller, make_program: MakeProgram
) -> None:
    without = _lines(None, controller)
    assert len(without) > 300
    with observing(controller) as observer:
        with_us = _lines(make_program().fd, controller)
        observer.complete()
    assert with_us == without
    flagged = [bool(event["flags"] & EventFlag.FOREIGN) for event in observer.events]
    assert any(flagged)
    assert not all(flagged)
