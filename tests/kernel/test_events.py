# SPDX-License-Identifier: GPL-2.0
"""Events of real packets in real tables: rules, ends of chains, policies, every verdict."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttproto import EventFlag, Kind, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import kernel_log, load_test_module, run
from tests.kernel.support.maps import element, one_element_map
from tests.kernel.support.network import Namespace, Network, namespace, send_udp
from tests.kernel.support.observing import Observer, Step, exits, observing, step, steps, text

NF_DROP, NF_ACCEPT, NF_STOLEN, NF_QUEUE = range(4)
LOCAL_IN, LOCAL_OUT = 1, 3


@contextmanager
def tracing(
    controller: Controller, make_program: MakeProgram, family: Literal[4, 6] | None = None
) -> Iterator[Link]:
    """A link that selects every packet and emits every event."""
    program = make_program().fd
    link = controller.attach(
        TableHook(family), ProgramSet({Slot.ENTRY: program, Slot.RULE: program, Slot.EXIT: program})
    )
    try:
        yield link
    finally:
        controller.detach(link.id)


@pytest.fixture
def alone() -> Iterator[Namespace]:
    with namespace("alone") as made:
        yield made


@pytest.fixture
def observer(controller: Controller) -> Iterator[Observer]:
    with observing(controller) as made:
        yield made


def test_rules_of_user_chains_and_policy(
    controller: Controller, make_program: MakeProgram, alone: Namespace, observer: Observer
) -> None:
    alone.restore(
        "*filter\n:OUTPUT ACCEPT\n:one -\n:two -\n"
        "-A OUTPUT -p tcp -j DROP\n"
        "-A OUTPUT -p udp -j one\n"
        "-A one -p udp --dport 9 -j two\n"
        "-A one -m mark --mark 7 -j DROP\n"
        "-A two -p udp -j MARK --set-mark 3\n"
        "-A two -p udp -j RETURN\n"
        "COMMIT\n"
    )
    with tracing(controller, make_program) as link:
        alone.call(send_udp, "127.0.0.1", 9, [b"x"])
        observer.complete()
    expected = [
        Step("filter", "OUTPUT", Kind.RULE, 2),
        Step("filter", "one", Kind.RULE, 1),
        Step("filter", "two", Kind.RULE, 1),
        Step("filter", "two", Kind.RULE, 2),
        Step("filter", "one", Kind.RETURN, 3),
        Step("filter", "OUTPUT", Kind.POLICY, 3),
        Step("filter", "OUTPUT", Kind.EXIT, 0),
    ]
    packet = [event for event in observer.events if event["hook"] == LOCAL_OUT][:7]
    assert steps(packet) == expected
    assert {int(event["link"]) for event in packet} == {link.id}
    assert {int(event["generation"]) for event in packet} == {1}
    assert {int(event["netns"]) for event in packet} == {alone.inode}
    assert len({int(event["skb"]) for event in packet}) == 1
    assert len({int(event["traversal"]) for event in packet}) == 1
    end = packet[-1]
    assert (end["verdict"], end["rules"], end["dport"], end["length"]) == (NF_ACCEPT, 6, 9, 29)
    assert end["cost"] > 0
    assert text(end["out_name"]) == "lo"


def test_ipv6_with_extension_headers(
    controller: Controller, make_program: MakeProgram, alone: Namespace, observer: Observer
) -> None:
    alone.ip6tables("-t", "mangle", "-A", "OUTPUT", "-p", "udp", "--dport", "77", "-j", "ACCEPT")

    def send_with_hop_by_hop() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
            # one PadN option that fills the eight bytes
            sender.setsockopt(socket.IPPROTO_IPV6, 54, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
            sender.sendto(b"x", ("::1", 77))

    with tracing(controller, make_program, family=6):
        alone.call(send_with_hop_by_hop)
        observer.complete()
    first = observer.events[0]
    assert step(first) == Step("mangle", "OUTPUT", Kind.RULE, 1)
    assert (first["protocol"], first["dport"], first["pf"]) == (socket.IPPROTO_UDP, 77, 10)
    assert bytes(first["saddr"]) == socket.inet_pton(socket.AF_INET6, "::1")


@pytest.mark.parametrize(
    ("target", "verdict", "data"),
    [
        (("ACCEPT",), NF_ACCEPT, 0),
        (("DROP",), NF_DROP, 0),
        (("NFQUEUE", "--queue-num", "5", "--queue-bypass"), NF_QUEUE, 5),
        (("REJECT",), NF_DROP, 0),
    ],
)
def test_verdicts(
    controller: Controller,
    make_program: MakeProgram,
    alone: Namespace,
    observer: Observer,
    target: tuple[str, ...],
    verdict: int,
    data: int,
) -> None:
    alone.iptables("-A", "INPUT", "-p", "udp", "--dport", "9", "-j", *target)
    with tracing(controller, make_program):
        alone.call(send_udp, "127.0.0.1", 9, [b"x"])
        observer.complete()
    arrived = [
        (event["verdict"], event["verdict_data"])
        for event in exits(observer.events)
        if event["hook"] == LOCAL_IN and event["dport"] == 9
    ]
    assert arrived == [(verdict, data)]


def test_stolen_packet_is_not_touched(
    controller: Controller, make_program: MakeProgram, alone: Namespace, observer: Observer
) -> None:
    """SYNPROXY answers the SYN itself and frees it: NF_STOLEN."""
    alone.iptables(
        "-t", "raw", "-A", "OUTPUT", "-p", "tcp", "--dport", "80", "-j", "CT", "--notrack"
    )
    alone.iptables(
        "-A", "INPUT", "-p", "tcp", "--dport", "80", "-m", "conntrack",
        "--ctstate", "INVALID,UNTRACKED", "-j", "SYNPROXY", "--mss", "1460",
    )  # fmt: skip  # pairs together

    def connect() -> None:
        with socket.socket() as client:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", 80))

    with tracing(controller, make_program):
        alone.call(connect)
        observer.collect(lambda events: any(e["verdict"] == NF_STOLEN for e in exits(events)))
    stolen = next(event for event in exits(observer.events) if event["verdict"] == NF_STOLEN)
    assert (stolen["dport"], stolen["tcp_flags"]) == (80, 2)


def test_drop_with_errno(
    controller: Controller, make_program: MakeProgram, alone: Namespace, observer: Observer
) -> None:
    """No target of the stock kernels drops with an errno: a test module provides one."""
    load_test_module("xt_errdrop")
    try:
        alone.iptables("-A", "OUTPUT", "-p", "udp", "--dport", "9", "-j", "AUDIT", "--type", "drop")
        with tracing(controller, make_program):
            alone.call(_send_refused)
            observer.complete()
        dropped = exits(observer.events)
        assert [(e["verdict"], e["verdict_data"]) for e in dropped] == [(NF_DROP, errno.EHOSTDOWN)]
    finally:
        alone.iptables("-F")
        run("rmmod", "xt_errdrop")


def _send_refused() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        pytest.raises(OSError, match=os.strerror(errno.EHOSTDOWN)),
    ):
        sender.sendto(b"x", ("127.0.0.1", 9))


def test_pid_only_in_the_senders_context(
    controller: Controller, make_program: MakeProgram, alone: Namespace, observer: Observer
) -> None:
    alone.iptables("-A", "OUTPUT", "-p", "icmp")
    alone.iptables("-A", "INPUT", "-p", "icmp")
    with tracing(controller, make_program):
        alone.ping("127.0.0.1")
        observer.complete()
    # the process sends the request; the kernel answers it where it arrives
    with_pid = [e for e in observer.events if e["flags"] & EventFlag.PID]
    assert {(int(e["hook"]), int(e["icmp_type"])) for e in with_pid} == {(LOCAL_OUT, 8)}
    assert len({int(e["pid"]) for e in with_pid}) == 1
    assert all(e["pid"] == 0 for e in observer.events if not e["flags"] & EventFlag.PID)
    assert {int(e["icmp_type"]) for e in observer.events} == {0, 8}


def test_links_see_their_own_packets(
    controller: Controller, make_program: MakeProgram, alone: Namespace, observer: Observer
) -> None:
    alone.iptables("-A", "OUTPUT", "-p", "icmp")
    everything, nothing = make_program(), make_program(asm.returning(0))
    first = controller.attach(TableHook(count_rules=True), ProgramSet({Slot.EXIT: everything.fd}))
    second = controller.attach(
        TableHook(), ProgramSet({Slot.ENTRY: nothing.fd, Slot.EXIT: everything.fd})
    )
    third = controller.attach(TableHook(6), ProgramSet({Slot.RULE: everything.fd}))
    alone.ping("127.0.0.1")
    observer.complete()
    stats = {link.id: link.stats for link in controller.links()}
    controller.detach(first.id)
    controller.detach(second.id)
    controller.detach(third.id)
    assert {int(event["link"]) for event in observer.events} == {first.id}
    assert {int(event["kind"]) for event in observer.events} == {Kind.EXIT}
    # request and reply, out and in
    assert (stats[first.id].packets, stats[first.id].selected, stats[first.id].events) == (4, 4, 4)
    assert (stats[second.id].packets, stats[second.id].selected, stats[second.id].events) == (
        4,
        0,
        0,
    )
    assert stats[third.id].packets == 0
    # rules are counted although no link wants their events
    assert {int(event["rules"]) for event in observer.events} == {1, 2}


def test_rules_are_counted_only_for_who_asks(
    controller: Controller, make_program: MakeProgram, alone: Namespace
) -> None:
    """A link without a rule program does not make the kernel look up the numbers of rules."""
    alone.iptables("-A", "OUTPUT", "-p", "icmp")
    everything = make_program()

    def rules() -> set[tuple[int, bool]]:
        with observing(controller) as observer:
            alone.ping("127.0.0.1")
            observer.complete()
        return {
            (int(event["rules"]), bool(event["flags"] & EventFlag.COUNTED))
            for event in exits(observer.events)
        }

    plain = controller.attach(TableHook(), ProgramSet({Slot.EXIT: everything.fd}))
    # the number would differ if the kernel had reported a rule
    assert rules() == {(0, False)}
    # rules counted for one link are counted for all links that follow the packet
    counting = controller.attach(
        TableHook(count_rules=True), ProgramSet({Slot.EXIT: everything.fd})
    )
    assert counting.hook == TableHook(count_rules=True, armed=frozenset({4, 6}))
    assert rules() == {(1, True), (2, True)}
    controller.detach(counting.id)
    with_rule = controller.attach(TableHook(), ProgramSet({Slot.RULE: everything.fd}))
    assert rules() == {(1, True), (2, True)}
    controller.detach(with_rule.id)
    controller.detach(plain.id)


def test_our_mark_leaves_no_trace_in_the_log(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    """Followed packets are not logged, nor are the copies that TEE makes of them."""
    run("modprobe", "nf_log_syslog")
    run("sysctl", "-qw", "net.netfilter.nf_log_all_netns=1")
    for table in ("raw", "mangle", "filter"):
        net.router.iptables("-t", table, "-A", "PREROUTING" if table != "filter" else "FORWARD")
    net.router.iptables("-t", "mangle", "-A", "PREROUTING", "-p", "udp", "-j", "TEE",
                        "--gateway", net.right_address)  # fmt: skip  # pairs together
    with kernel_log() as log, tracing(controller, make_program) as link:
        net.left.call(send_udp, net.right_address, 9, [b"x"] * 5)
        net.left.ping(net.right_address)
        selected = controller.link(link.id).stats.selected
        lines = [line for line in log.new_lines() if "TRACE:" in line]
    assert selected > 20
    assert lines == []


def test_programs_see_what_the_contract_promises(
    controller: Controller, make_program: MakeProgram, alone: Namespace
) -> None:
    alone.iptables("-A", "OUTPUT", "-p", "udp", "-j", "DROP")

    def seen(slot: Slot, what: bytes) -> int:
        """Return the value that a program in ``slot`` reads if a datagram is dropped in OUTPUT."""
        with one_element_map() as array:
            programs = {slot: make_program(asm.storing(array, what)).fd}
            link = controller.attach(
                TableHook(count_rules=slot is Slot.EXIT),
                ProgramSet(programs, cookie=0x1122334455667788),
            )
            alone.call(_send_dropped)
            controller.detach(link.id)
            return element(array)

    def register(name: str) -> bytes:
        return asm.load_reg(asm.R0, name)

    assert seen(Slot.ENTRY, asm.call(asm.GET_ATTACH_COOKIE)) == 0x1122334455667788
    assert seen(Slot.RULE, asm.call(asm.GET_ATTACH_COOKIE)) == 0x1122334455667788
    assert seen(Slot.EXIT, asm.call(asm.GET_ATTACH_COOKIE)) == 0x1122334455667788
    # the helper reads the run context, which must exist; there is no kprobe
    assert seen(Slot.ENTRY, asm.call(asm.GET_FUNC_IP)) == 0
    assert seen(Slot.ENTRY, register("cx")) > 1  # the sender's tgid
    assert seen(Slot.RULE, register("si")) == 2  # pf
    assert seen(Slot.RULE, register("dx")) == LOCAL_OUT
    assert seen(Slot.RULE, asm.read_stack(6)) & 0xFFFFFFFF == 1  # rule number
    assert seen(Slot.EXIT, register("ax")) == NF_DROP
    assert seen(Slot.EXIT, register("r8")) == 1  # rules that matched
    assert seen(Slot.EXIT, register("cx")) > 0  # cost


def _send_dropped() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        pytest.raises(PermissionError),
    ):
        sender.sendto(b"x", ("127.0.0.1", 9))


def test_slow_observer_loses_only_its_own(
    controller: Controller, make_program: MakeProgram, alone: Namespace, observer: Observer
) -> None:
    alone.iptables("-A", "OUTPUT", "-p", "udp")
    with observing(controller) as slow, tracing(controller, make_program):
        # a full batch takes more
        with socket.socket(fileno=os.dup(slow.stream.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        for _ in range(20):
            alone.call(send_udp, "127.0.0.1", 9, [b"x"] * 40)
        observer.complete()
        slow.drain()
    assert slow.stream.overruns > 0
    assert slow.stream.losses.observer > 0
    assert slow.stream.losses.observer + len(slow.events) == len(observer.events)
