# SPDX-License-Identifier: GPL-2.0
"""Hooks without functions: the module's placeholders let a link at the spine see packets there."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from ipttctl.events.records import EventRecord
from ipttctl.hooks.spine import SpineHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttproto import Kind, Slot, Verdict
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.cli import running
from tests.kernel.support.kernel import run, wait_for, wait_for_no_redirection
from tests.kernel.support.network import Namespace, namespace, send_udp
from tests.kernel.support.nfqueue import ACCEPT, Queue, queue
from tests.kernel.support.observing import records_of
from tests.kernel.support.topologies import listener, nft

PORT = 9
#: the hooks of IPv4 that a datagram over the loopback comes by, in their order
WAY = ["inet4/output", "inet4/postrouting", "inet4/prerouting", "inet4/input"]
QUEUEING = (
    "table ip t { chain out { type filter hook output priority 0; udp dport 9 queue to 5; }; }"
)
#: seconds; a namespace with queues is looked at again after ten
KEPT = 30

Attach = Callable[[str, Namespace | None], Link]


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("place") as made:
        yield made


@pytest.fixture
def attach(controller: Controller, make_program: MakeProgram) -> Attach:
    """Attach at the spine of one namespace, or of all, where somebody could queue packets."""
    run("modprobe", "nfnetlink_queue")

    def at(text: str, where: Namespace | None) -> Link:
        fd = make_program(asm.returning(1)).fd
        programs = ProgramSet({Slot.FUNCTION: fd, Slot.EXIT: fd})
        if where is None:
            return controller.attach(SpineHook.parse(text), programs)
        with where.path.open("rb") as file:
            hook = SpineHook.parse(text, netns=file.fileno())
            return controller.attach(hook, programs)

    return at


def watched(controller: Controller) -> AbstractContextManager[list[EventRecord]]:
    """Collect the events of datagrams to the port that are sent meanwhile."""
    return records_of(controller, lambda event: event.dport == PORT)


def left(seen: list[EventRecord]) -> list[tuple[str, int]]:
    """The hooks that packets left, each with the number of functions that they met there."""
    exits = [event for event in seen if event.kind == Kind.SPINE_EXIT]
    assert {event.verdict for event in exits} <= {Verdict.ACCEPT}
    return [(SpineHook.heading(event), event.rules) for event in exits]


def told(seen: list[EventRecord], hook: str) -> list[int]:
    """The numbers of the functions that packets met at a hook."""
    return [
        event.rulenum
        for event in seen
        if event.kind == Kind.SPINE_FUNCTION and SpineHook.heading(event) == hook
    ]


def send(where: Namespace) -> None:
    where.call(send_udp, "127.0.0.1", PORT, [b"x"])


@pytest.fixture
def placeholders(place: Namespace) -> Callable[[Namespace], int]:
    """Counts the placeholders of a namespace in the kernel's list of hooks."""

    def listed(where: Namespace) -> str:
        return where.run("nft", "list", "hooks", check=False)

    nft(place, "table ip t { chain c { type filter hook input priority 0; }; }")
    if "nft_do_chain" not in listed(place) and "chain ip t c" not in listed(place):
        pytest.skip("this kernel does not list hooks")
    nft(place, "flush ruleset")
    return lambda where: listed(where).count("ipttrace_placeholder")


def test_packets_are_seen_where_there_are_no_functions(
    place: Namespace, controller: Controller, attach: Attach
) -> None:
    attach("spine:inet4", place)
    with watched(controller) as seen:
        send(place)
    ways = left(seen)
    assert [hook for hook, _ in ways] == WAY
    # a security module may have a function at any of the three others
    assert ways[2] == ("inet4/prerouting", 0)
    for hook, functions in ways:
        assert told(seen, hook) == list(range(1, functions + 1))


def test_a_placeholder_is_no_function(
    place: Namespace, controller: Controller, attach: Attach
) -> None:
    """It has no number, though what confirms a connection is behind it."""
    nft(
        place,
        "table ip t { chain in { type filter hook input priority 0; ct state new accept; }; }",
    )
    attach("spine:inet4/input", place)
    with watched(controller) as seen:
        send(place)
    [(_, functions)] = left(seen)
    names = [event.chain.decode() for event in seen if event.kind == Kind.SPINE_FUNCTION]
    assert "nft_do_chain_ipv4" in names
    assert names[-1].endswith("confirm")
    assert functions == len(names)
    assert told(seen, "inet4/input") == list(range(1, functions + 1))


def test_a_rule_set_that_is_flushed_meanwhile(
    place: Namespace, controller: Controller, attach: Attach
) -> None:
    nft(place, "table ip t { chain pre { type filter hook prerouting priority 0; counter; }; }")
    attach("spine:inet4/prerouting", place)
    nft(place, "flush ruleset")
    with watched(controller) as seen:
        send(place)
    assert left(seen) == [("inet4/prerouting", 0)]


def test_namespaces_that_come(place: Namespace, controller: Controller, attach: Attach) -> None:
    attach("spine:inet4/prerouting", None)
    with namespace("later") as later, watched(controller) as seen:
        send(later)
        send(place)
    cookies = [event.netns_cookie for event in seen if event.kind == Kind.SPINE_EXIT]
    assert left(seen) == [("inet4/prerouting", 0)] * 2
    assert len(set(cookies)) == 2


def test_they_are_where_links_are_and_no_longer(
    place: Namespace,
    controller: Controller,
    attach: Attach,
    placeholders: Callable[[Namespace], int],
) -> None:
    with namespace("other") as other:
        assert [placeholders(place), placeholders(other)] == [0, 0]
        here = attach("spine:inet", place)
        # five hooks each of IPv4 and IPv6
        assert [placeholders(place), placeholders(other)] == [10, 0]
        everywhere = attach("spine:inet4/input", None)
        assert [placeholders(place), placeholders(other)] == [10, 1]
        controller.detach(here.id)
        wait_for(lambda: placeholders(place) == 1, what="the others to go")
        controller.detach(everywhere.id)
        wait_for(
            lambda: [placeholders(place), placeholders(other)] == [0, 0], what="the last to go"
        )


class Queueing:
    """A namespace with a queue that datagrams to the port go to, and a receiver behind it."""

    def __init__(self, place: Namespace, program: Queue, receiver: socket.socket) -> None:
        self._place = place
        self._program = program
        self._receiver = receiver

    def send(self) -> None:
        """Send a datagram, and wait until it is in the queue."""
        send(self._place)
        wait_for(self._holds, what="the packet in the queue")

    def pass_on(self) -> None:
        """Check that it is still there, and let it go on to the receiver."""
        assert self._holds(), "the packet is gone from the queue"
        self._program.decide(ACCEPT)
        assert self._receiver.recv(16) == b"x"

    def _holds(self) -> bool:
        [line] = self._place.run("cat", "/proc/net/netfilter/nfnetlink_queue").splitlines()
        return line.split()[2] == "1"


@contextmanager
def queueing(place: Namespace) -> Iterator[Queueing]:
    nft(place, QUEUEING)
    with queue(place, 5) as program, listener(place, PORT) as receiver:
        yield Queueing(place, program, receiver)


def detach(controller: Controller, link: Link) -> None:
    """Detach the last link, and wait until all that it leaves behind was looked at."""
    controller.detach(link.id)
    # placeholders are looked at before functions are let go, and that takes grace periods
    wait_for_no_redirection()


def test_what_waits_in_a_queue_stays_there_when_the_link_comes_and_goes(
    place: Namespace, controller: Controller, attach: Attach
) -> None:
    """A namespace with queues gets no placeholders: netfilter would drop the packet."""
    with queueing(place) as queued:
        queued.send()
        link = attach("spine:inet4", place)
        with watched(controller) as seen:
            queued.pass_on()
        assert "inet4/prerouting" not in dict(left(seen))
        queued.send()
        detach(controller, link)
        queued.pass_on()


def test_a_namespace_that_begins_to_queue_keeps_its_placeholders(
    place: Namespace, controller: Controller, attach: Attach
) -> None:
    link = attach("spine:inet4", place)
    with queueing(place) as queued:
        queued.send()
        detach(controller, link)
        queued.pass_on()


def test_what_had_to_wait_for_a_queue_is_done_when_that_has_ended(
    place: Namespace,
    controller: Controller,
    attach: Attach,
    placeholders: Callable[[Namespace], int],
) -> None:
    nft(place, QUEUEING)
    with queue(place, 5):
        link = attach("spine:inet4", place)
        assert placeholders(place) == 0
    wait_for(lambda: placeholders(place) == 5, what="placeholders", timeout=KEPT)
    with queue(place, 5):
        detach(controller, link)
        assert placeholders(place) == 5
    wait_for(lambda: placeholders(place) == 0, what="them to go", timeout=KEPT)


def test_a_trace_says_that_hooks_are_unseen(place: Namespace) -> None:
    where = "a program listens to a queue in network namespace place"
    told = f"{where}: packets are seen there only at hooks that have functions"
    with queue(place, 5), running("trace", "-N", place.name) as trace:
        # the first trace compiles, and has the walks verified
        trace.wait_for_text(told, timeout=900)
