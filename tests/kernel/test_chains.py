# SPDX-License-Identifier: GPL-2.0
"""Links at nftables' chains: each rule that a packet meets, and nothing changed by looking."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from ipttctl.events.describe import chain_decision, verdict
from ipttctl.events.records import EventRecord, decode
from ipttctl.families import NfFamily
from ipttctl.hooks.chain import ChainHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttproto import Kind, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import run
from tests.kernel.support.network import Namespace, namespace

UDP = socket.IPPROTO_UDP
ALL = (Slot.ENTRY, Slot.RULE, Slot.EXIT)


def nft(where: Namespace, text: str) -> None:
    run("ip", "netns", "exec", where.name, "nft", "-f", "-", text=text)


def send(address: str, port: int) -> None:
    """Send a datagram, which rules may refuse."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender, suppress(PermissionError):
        sender.sendto(b"x", (address, port))


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("place") as made:
        yield made


@pytest.fixture
def attach(controller: Controller, make_program: MakeProgram):  # noqa: ANN201
    """Attach at chains of a namespace, in which the walk is tried."""

    def at(where: Namespace, *slots: Slot, **options: object) -> Link:
        descriptor = os.open(where.path, os.O_RDONLY)
        try:
            controller.try_walk(descriptor)
            hook = ChainHook(netns=descriptor, **options)  # type: ignore[arg-type]
            fd = make_program(asm.returning(1)).fd
            return controller.attach(hook, ProgramSet(dict.fromkeys(slots or ALL, fd)))
        finally:
            os.close(descriptor)

    return at


@contextmanager
def watched(controller: Controller) -> Iterator[list[EventRecord]]:
    """Collect the events of what happens meanwhile."""
    seen: list[EventRecord] = []
    with controller.events() as events:
        yield seen
        time.sleep(0.3)  # a batch is sent after 10 ms
        for batch in events.drain():
            seen += decode(batch)


def story(seen: list[EventRecord]) -> list[str]:
    """What happened, a line for each event."""
    lines = []
    for event in seen:
        if event.protocol != UDP:  # an ICMP error that answers it
            continue
        chain = event.chain.decode()
        if event.kind == Kind.CHAIN_EXIT:
            lines.append(f"{chain} exit {verdict(event)} rules={event.rules}")
        elif event.kind == Kind.CHAIN_RULE:
            lines.append(f"{chain} {event.rulenum} {chain_decision(event)} depth={event.depth}")
        else:
            lines.append(f"{chain} {Kind(event.kind).name} {chain_decision(event)}")
    return lines


RULES = """
table inet t {
    chain far {
        counter
        udp dport 9 return
    }
    chain near {
        meta l4proto tcp accept
        jump far
        udp dport 7 goto last
    }
    chain last {
        ip daddr 127.0.0.1 counter
    }
    chain out {
        type filter hook output priority 0; policy accept;
        ip6 hoplimit 1 drop
        jump near
        udp dport 5 drop
        udp dport 9 accept
    }
}
"""


def test_each_rule_is_told(place: Namespace, controller: Controller, attach) -> None:  # noqa: ANN001
    nft(place, RULES)
    link = attach(place)
    assert link.hook.armed
    with watched(controller) as seen:
        for port in (9, 7, 5):
            place.call(send, "127.0.0.1", port)
    assert story(seen) == [
        "out 2 jump near depth=0",
        "near 2 jump far depth=1",
        "far 1 continue depth=2",
        "far 2 return depth=2",
        "near CHAIN_END return",
        "out 4 accept depth=0",
        "out exit ACCEPT rules=6",
        "out 2 jump near depth=0",
        "near 2 jump far depth=1",
        "far 1 continue depth=2",
        "far CHAIN_END return",
        "near 3 goto last depth=1",
        "last 1 continue depth=1",
        "last CHAIN_END return",
        "out CHAIN_POLICY accept",
        "out exit ACCEPT rules=8",
        "out 2 jump near depth=0",
        "near 2 jump far depth=1",
        "far 1 continue depth=2",
        "far CHAIN_END return",
        "near CHAIN_END return",
        "out 3 drop depth=0",
        "out exit DROP rules=6",
    ]
    assert {event.family for event in seen} == {NfFamily.INET}
    assert {event.table for event in seen} == {b"t"}
