# SPDX-License-Identifier: GPL-2.0
"""The process that sends a packet: it is told where it is certain, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ipttctl.bpf.filters import compile_filter
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.nf import NfHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import EventFlag, InetHook, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import run
from tests.kernel.support.network import Namespace, namespace, send_udp
from tests.kernel.support.nf import socket_filter
from tests.kernel.support.nfqueue import ACCEPT, queue
from tests.kernel.support.observing import records_of

QUEUED, PLAIN = 9, 10
RULES = f"""
table ip t {{
    chain out {{ type filter hook output priority 0; udp dport {QUEUED} queue to 5; }}
    chain post {{ type filter hook postrouting priority 0; counter; }}
}}
"""


@pytest.fixture
def place() -> Iterator[Namespace]:
    """A namespace in which one port's datagrams are queued; at POSTROUTING are functions."""
    run("modprobe", "nfnetlink_queue")
    with namespace("senders") as made:
        run("ip", "netns", "exec", made.name, "nft", "-f", "-", text=RULES)
        made.restore("*mangle\n-A POSTROUTING -p udp\nCOMMIT\n")
        yield made


def send(place: Namespace, port: int) -> int:
    """Send a datagram; the process that did."""
    sender = place.start(send_udp, "127.0.0.1", port, [b"x"])
    sender.join()
    assert sender.exitcode == 0
    assert sender.pid is not None
    return sender.pid


def hooks(place: Namespace) -> list[Hook]:
    """A hook of each kind at which packets of the namespace leave it."""
    return [
        SpineHook.parse("spine:inet4/postrouting", netns=place.path),
        ChainHook(netns=place.path),
        TableHook(),
        NfHook.parse("nf:inet4/postrouting", netns=place.path),
    ]


def test_who_decides_over_a_queued_packet_has_not_sent_it(
    place: Namespace, controller: Controller, make_program: MakeProgram
) -> None:
    """The packet goes on in the context of the process that gave the verdict."""
    everything = make_program(asm.returning(1)).fd
    # selects packets whose sender is known
    with_sender = make_program(asm.load_reg(asm.R0, "cx") + asm.EXIT).fd
    links: dict[int, bool] = {}
    for hook in hooks(place):
        if isinstance(hook, NfHook):
            packet = socket_filter(make_program, asm.returning(1)).fd
            sets = [ProgramSet({Slot.PACKET: packet})]
        else:
            sets = [
                ProgramSet({Slot.ENTRY: entry, Slot.EXIT: everything}, compile_filter("udp"))
                for entry in (everything, with_sender)
            ]
        for number, programs in enumerate(sets):
            links[controller.attach(hook, programs).id] = bool(number)

    def told(port: int) -> dict[int, set[int | None]]:
        """The senders of a port's packets at POSTROUTING, by link."""
        found: dict[int, set[int | None]] = {link: set() for link in links}
        for event in seen:
            if (event.netns, event.hook, event.dport) == (place.inode, InetHook.POSTROUTING, port):
                found[event.link].add(event.pid if event.flags & EventFlag.PID else None)
        return found

    with records_of(controller) as seen, queue(place, 5) as program:
        send(place, QUEUED)
        program.decide(ACCEPT)
        sender = send(place, PLAIN)
    for link in links:
        controller.detach(link)
    assert sender != os.getpid()
    assert told(PLAIN) == {link: {sender} for link in links}
    # the nf link sees it too
    assert told(QUEUED) == {link: set() if asks else {None} for link, asks in links.items()}
