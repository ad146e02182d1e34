# SPDX-License-Identifier: GPL-2.0
"""Events of packets other than TCP, UDP and ping, of fragments, bridges and queues."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import EventFlag, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.kernel import run
from tests.kernel.support.network import Namespace, ip_batch, namespace, send_udp
from tests.kernel.support.observing import exits, observing, text

LOCAL_IN, FORWARD, LOCAL_OUT = 1, 2, 3
FRAGMENT, DESTINATION_OPTIONS, NO_NEXT_HEADER = 44, 60, 59
SCTP, DCCP, UDPLITE = 132, 33, 136
PORTS = struct.pack("!HH", 1234, 77)
#: one PadN option that fills eight bytes, before another header
PADDING = bytes([0, 1, 4, 0, 0, 0, 0])

Trace = Callable[[Callable[[], object]], list[Any]]


@pytest.fixture
def trace(controller: Controller, make_program: MakeProgram) -> Trace:
    """Every event of the packets that a function sends."""

    def traced(send: Callable[[], object]) -> list[Any]:
        program = make_program().fd
        programs = {Slot.ENTRY: program, Slot.RULE: program, Slot.EXIT: program}
        with observing(controller) as observer:
            link = controller.attach(TableHook(), ProgramSet(programs))
            try:
                send()
                return observer.complete()
            finally:
                controller.detach(link.id)

    return traced


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("place") as made:
        made.iptables("-A", "OUTPUT", "-j", "ACCEPT")
        made.ip6tables("-A", "OUTPUT", "-j", "ACCEPT")
        yield made


def _send(family: int, protocol: int, content: bytes, hop_by_hop: bytes = b"") -> None:
    """Send a packet of a transport protocol, with these bytes after the IP header."""
    with socket.socket(family, socket.SOCK_RAW, protocol) as sender:
        if hop_by_hop:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, hop_by_hop)
        sender.sendto(content, ("127.0.0.1" if family == socket.AF_INET else "::1", 0))


def _sent(trace: Trace, place: Namespace, *packet: Any) -> Any:
    """The exit event of an outgoing packet; errors in reply come after it."""
    return next(
        e for e in exits(trace(lambda: place.call(_send, *packet))) if e["hook"] == LOCAL_OUT
    )


@pytest.mark.parametrize("protocol", [SCTP, DCCP, UDPLITE])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_protocols_with_ports(trace: Trace, place: Namespace, family: int, protocol: int) -> None:
    event = _sent(trace, place, family, protocol, PORTS + bytes(28))
    assert (event["protocol"], event["sport"], event["dport"]) == (protocol, 1234, 77)
    assert event["flags"] & (EventFlag.FRAGMENT | EventFlag.TRUNCATED) == 0
    short = _sent(trace, place, family, protocol, PORTS[:2])
    assert (short["protocol"], short["sport"], short["dport"]) == (protocol, 0, 0)
    assert short["flags"] & EventFlag.TRUNCATED


def _fragment(offset: int, following: int = socket.IPPROTO_UDP, *, more: bool) -> bytes:
    """A fragment header of IPv6."""
    return struct.pack("!BBHI", following, 0, offset | more, 99)


@pytest.mark.parametrize(
    ("content", "protocol", "ports", "flags"),
    [
        # the first fragment has the transport header, later ones only its protocol
        (_fragment(0, more=True) + PORTS + bytes(12), 17, (1234, 77), 0),
        (_fragment(8, more=False) + PORTS + bytes(4), 17, (0, 0), EventFlag.FRAGMENT),
        (_fragment(8, SCTP, more=True) + bytes(8), SCTP, (0, 0), EventFlag.FRAGMENT),
        (_fragment(8, 60, more=False) + bytes(8), DESTINATION_OPTIONS, (0, 0), EventFlag.FRAGMENT),
        (_fragment(0, 60, more=True) + b"\x11" + PADDING + PORTS, 17, (1234, 77), 0),
        (_fragment(0, more=True)[:6], FRAGMENT, (0, 0), EventFlag.TRUNCATED),
    ],
)
def test_fragments_of_ipv6(
    trace: Trace,
    place: Namespace,
    content: bytes,
    protocol: int,
    ports: tuple[int, int],
    flags: int,
) -> None:
    event = _sent(trace, place, socket.AF_INET6, FRAGMENT, content)
    assert (event["protocol"], (event["sport"], event["dport"])) == (protocol, ports)
    assert event["flags"] & (EventFlag.FRAGMENT | EventFlag.TRUNCATED) == flags


def test_no_next_header_is_not_cut_short(trace: Trace, place: Namespace) -> None:
    for content in (b"", b"what may follow is of no protocol"):
        for options in (b"", b"\0" + PADDING):
            event = _sent(trace, place, socket.AF_INET6, NO_NEXT_HEADER, content, options)
            assert event["protocol"] == NO_NEXT_HEADER
            assert event["flags"] & EventFlag.TRUNCATED == 0
    behind = bytes([NO_NEXT_HEADER]) + PADDING
    event = _sent(trace, place, socket.AF_INET6, DESTINATION_OPTIONS, behind)
    assert (event["protocol"], event["flags"] & EventFlag.TRUNCATED) == (NO_NEXT_HEADER, 0)
    event = _sent(trace, place, socket.AF_INET6, DESTINATION_OPTIONS, behind[:1])
    assert event["protocol"] == DESTINATION_OPTIONS
    assert event["flags"] & EventFlag.TRUNCATED


def test_queues_that_may_be_passed_by(trace: Trace, place: Namespace) -> None:
    for port, options in ((9, ["--queue-bypass"]), (10, [])):
        place.iptables(
            "-A", "INPUT", "-p", "udp", "--dport", str(port), "-j", "NFQUEUE", "--queue-num", "5",
            *options,
        )  # fmt: skip  # pairs together

    def send() -> None:
        for port in (9, 10):
            place.call(send_udp, "127.0.0.1", port, [b"x"])

    ends = [event for event in exits(trace(send)) if event["hook"] == LOCAL_IN]
    bypass = EventFlag.QUEUE_BYPASS
    found = {
        int(e["dport"]): (int(e["verdict_data"]), bool(e["flags"] & bypass))
        for e in ends
        if e["dport"] in {9, 10}
    }
    assert found == {9: (5, True), 10: (5, False)}


@contextmanager
def _bridge() -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    """A bridge of 10.78.0.3 between left and right, 10.78.0.1 and 10.78.0.2."""
    with namespace("left") as left, namespace("bridge") as middle, namespace("right") as right:
        ip_batch(
            middle.name,
            "link add br0 type bridge",
            f"link add p1 type veth peer name eth0 netns {left.name}",
            f"link add p2 type veth peer name eth0 netns {right.name}",
            "link set p1 master br0 up",
            "link set p2 master br0 up",
            "address add 10.78.0.3/24 dev br0",
            "link set br0 up",
        )
        for number, end in ((1, left), (2, right)):
            ip_batch(end.name, f"address add 10.78.0.{number}/24 dev eth0", "link set eth0 up")
        yield left, middle, right


def test_ports_of_a_bridge(trace: Trace) -> None:
    run("modprobe", "br_netfilter")
    try:
        with _bridge() as (left, middle, _):
            middle.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
            middle.iptables("-A", "FORWARD", "-p", "icmp", "-j", "ACCEPT")
            middle.iptables("-A", "INPUT", "-p", "icmp", "-j", "ACCEPT")
            # ports need a moment before they forward
            left.run("ping", "-n", "-q", "-c", "1", "-w", "20", "10.78.0.2")
            across = trace(lambda: left.ping("10.78.0.2"))
            to_bridge = trace(lambda: left.ping("10.78.0.3"))
    finally:
        run("modprobe", "-r", "br_netfilter")

    def seen(events: list[Any], hook: int) -> set[tuple[str, ...]]:
        names = ("in_name", "out_name", "physin_name", "physout_name")
        for event in events:
            for port in ("physin", "physout"):
                assert bool(event[f"{port}_ifindex"]) == bool(text(event[f"{port}_name"]))
        return {
            tuple(text(event[name]) for name in names) for event in events if event["hook"] == hook
        }

    assert seen(across, FORWARD) == {("br0", "br0", "p1", "p2"), ("br0", "br0", "p2", "p1")}
    assert seen(to_bridge, LOCAL_IN) == {("br0", "", "p1", "")}
