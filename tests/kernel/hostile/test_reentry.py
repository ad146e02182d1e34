# SPDX-License-Identifier: GPL-2.0
"""Packets that are sent from within the table that another packet is passing.

No kprobe program can send (test_refused.py asks the verifier). Rules can, under a program in every
slot, and so can a process that a program signals (test_helpers.py).
"""

from __future__ import annotations

import socket

import pytest

from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import TABLE_SLOTS
from tests.kernel.support import assembler as asm
from tests.kernel.support.loader import loaded
from tests.kernel.support.maps import element, one_element_map
from tests.kernel.support.network import Namespace
from tests.kernel.support.observing import exits, observing

NF_DROP, NF_ACCEPT = 0, 1
LINKS = 16
TIMES = 20


def _connect_refused() -> None:
    for _ in range(TIMES):
        with socket.socket() as connecting, pytest.raises(ConnectionRefusedError):
            connecting.connect(("127.0.0.1", 81))


def _send_unreachable() -> None:
    for _ in range(TIMES):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            try:
                sender.sendto(b"x", ("127.0.0.1", 81))
            except PermissionError:
                continue
            raise AssertionError("the datagram was not rejected")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_reply_from_within_the_table(
    controller: Controller, place: Namespace, protocol: str
) -> None:
    """REJECT sends RST or ICMP while its packet is in OUTPUT: a passage inside a passage."""
    how = "tcp-reset" if protocol == "tcp" else "icmp-port-unreachable"
    place.iptables("-I", "OUTPUT", "-p", protocol, "--dport", "81", "-j", "REJECT",
                   "--reject-with", how)  # fmt: skip  # pairs together
    send = _connect_refused if protocol == "tcp" else _send_unreachable
    with (
        one_element_map() as counter,
        loaded(asm.counting(counter)) as program,
        observing(controller) as observer,
    ):
        programs = ProgramSet(dict.fromkeys(TABLE_SLOTS, program))
        first, *others = [controller.attach(TableHook(), programs) for _ in range(LINKS)]
        place.call(send)
        stats = [controller.link(link.id).stats for link in (first, *others)]
        ends = [e for e in exits(observer.complete()) if e["link"] == first.id]
        assert all(one == stats[0] for one in stats)
        # the rejected packet passes OUTPUT, its reply OUTPUT and INPUT
        assert (stats[0].packets, stats[0].selected, stats[0].nested) == (3 * TIMES, 3 * TIMES, 0)
        assert element(counter) == LINKS * (stats[0].packets + stats[0].events)

        # the inner passage began later and ended earlier, on the same CPU
        dropped = [place for place, e in enumerate(ends) if e["verdict"] == NF_DROP]
        assert len(dropped) == TIMES
        for at in dropped:
            outer, inner = ends[at], ends[at - 1]
            assert inner["verdict"] == NF_ACCEPT
            assert inner["traversal"] == outer["traversal"] + 1
            assert inner["cost"] < outer["cost"]
            assert inner["skb"] != outer["skb"]
        for link in (first, *others):
            controller.detach(link.id)


def test_a_copy_from_within_the_table(controller: Controller, place: Namespace) -> None:
    """TEE sends a copy through the table that the packet is passing."""
    place.iptables("-t", "mangle", "-A", "OUTPUT", "-p", "udp", "-j", "TEE",
                   "--gateway", "127.0.0.2")  # fmt: skip  # pairs together
    with one_element_map() as counter, loaded(asm.counting(counter)) as program:
        link = controller.attach(TableHook(), ProgramSet(dict.fromkeys(TABLE_SLOTS, program)))
        place.call(_send_two)
        counted = place.iptables("-t", "mangle", "-L", "OUTPUT", "-v", "-x", "-n")
        stats = controller.detach(link.id).stats
        packets = int(
            next(line for line in counted.splitlines() if line.split()[2:3] == ["TEE"]).split()[0]
        )
        # each packet and its copy match; the copy is not copied again
        assert packets == 2 * TIMES
        assert stats.nested == 0
        assert stats.packets == stats.selected >= 2 * packets
        assert element(counter) == stats.packets + stats.events


def _send_two() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(TIMES):
            sender.sendto(b"x", ("127.0.0.1", 9))
            # the ICMP error for the closed port appears in the next call
            sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
