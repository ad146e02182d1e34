# SPDX-License-Identifier: GPL-2.0
"""Links at netfilter hooks: every family and hook, order, verdicts."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ipttctl.bpf.filters import compile_filter
from ipttctl.families import HOOKS, NfFamily, family_name
from ipttctl.hooks.nf import NfHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttproto import EventFlag, Kind, NfMode, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import run, wait_for
from tests.kernel.support.network import (
    Namespace,
    Network,
    ip_batch,
    namespace,
    send_udp,
)
from tests.kernel.support.nf import (
    NF_ACCEPT,
    NF_DROP,
    UDP,
    all_but,
    attach,
    netns_of,
    nf_hook,
    of_protocol,
    socket_filter,
)
from tests.kernel.support.observing import Observer, observing

ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 0x0800, 0x0806, 0x86DD
ARP_REQUEST, ARP_REPLY = 1, 2


def of_link(observer: Observer, link: Link) -> list[Any]:
    """The events of a link so far."""
    return [one for one in observer.events if one["link"] == link.id]


def wait_for_event(observer: Observer, link: Link, matches: Callable[[Any], bool]) -> Any:
    """Wait for an event of a link that matches, and return it."""
    observer.collect(lambda _: any(matches(one) for one in of_link(observer, link)), seconds=20)
    return next(one for one in of_link(observer, link) if matches(one))


def passing(
    saddr: bytes, daddr: bytes | None = None, ethertype: int | None = None
) -> Callable[[Any], bool]:
    """A test for events of packets between two addresses."""

    def matches(one: Any) -> bool:
        return (
            bytes(one["saddr"]) == saddr
            and daddr in (None, bytes(one["daddr"]))
            and ethertype in (None, int(one["ethertype"]))
        )

    return matches


def ip(address: str) -> bytes:
    """An address as events contain it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.inet_pton(family, address).ljust(16, b"\0")


# --- every family and hook ------------------------------------------------------------------------


def test_every_hook_of_ip_sees_its_packets(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    """At the router, left pings right (three hooks), then the router itself (the other two)."""
    program = socket_filter(make_program, asm.returning(1))
    families = {"inet4": [4], "inet6": [6], "inet": [4, 6]}
    hooks = ("prerouting", "input", "forward", "output", "postrouting")
    targets = {
        4: (net.left_address, net.right_address, net.router_address),
        6: (net.left_address6, net.right_address6, net.router_address6),
    }
    numbers = {4: (2, ETH_P_IP), 6: (10, ETH_P_IPV6)}
    with observing(controller) as observer:
        links = {
            (family, hook): attach(controller, program, f"nf:{family}/{hook}", net.router)
            for family in families
            for hook in hooks
        }
        for _, right, router in targets.values():
            net.left.ping(right)
            net.left.ping(router)
        for (family, hook), link in links.items():
            for version in families[family]:
                pf, ethertype = numbers[version]
                from_, to, itself = (ip(address) for address in targets[version])
                way = {
                    "prerouting": (from_, to, b"r1", b""),
                    "input": (from_, itself, b"r1", b""),
                    "forward": (from_, to, b"r1", b"r2"),
                    "output": (itself, from_, b"", b"r1"),
                    "postrouting": (from_, to, b"r1", b"r2"),
                }[hook]
                found = wait_for_event(observer, link, passing(*way[:2]))
                assert (found["pf"], found["hook"]) == (pf, HOOKS[NfFamily.INET][hook])
                assert (found["kind"], found["verdict"]) == (Kind.PACKET, NF_ACCEPT)
                assert (found["ethertype"], found["netns"]) == (ethertype, net.router.inode)
                assert found["in_name"] == way[2], (family, hook)
                assert found["out_name"] == way[3], (family, hook)
                assert found["generation"] == 1
    for (family, hook), link in links.items():
        now = controller.link(link.id)
        slot = now.stats.slots[Slot.PACKET]
        assert now.stats.packets == now.stats.selected == slot.runs == now.stats.events > 0
        where = nf_hook(now)
        assert (family_name(where.family), where.registered) == (family, True)
        assert (where.hook, netns_of(now).inode) == (HOOKS[NfFamily.INET][hook], net.router.inode)
        assert (where.priority, where.mode, where.gone) == (0, NfMode.OBSERVE, None)


def test_arp_in_and_out(controller: Controller, make_program: MakeProgram, net: Network) -> None:
    program = socket_filter(make_program, asm.returning(1))
    with observing(controller) as observer:
        into = attach(controller, program, "nf:arp/in", net.router)
        out = attach(controller, program, "nf:arp/out", net.router)
        run("ip", "-n", net.left.name, "neigh", "flush", "all")
        net.left.ping(net.router_address)
        asked = wait_for_event(observer, into, lambda one: one["arp_operation"] == ARP_REQUEST)
        answered = wait_for_event(observer, out, lambda one: one["arp_operation"] == ARP_REPLY)
    assert (bytes(asked["saddr"]), bytes(asked["daddr"])) == (
        ip(net.left_address),
        ip(net.router_address),
    )
    assert (bytes(answered["saddr"]), bytes(answered["daddr"])) == (
        ip(net.router_address),
        ip(net.left_address),
    )
    assert (asked["pf"], asked["hook"], asked["ethertype"]) == (NfFamily.ARP, 0, ETH_P_ARP)
    assert (asked["in_name"], answered["out_name"]) == (b"r1", b"r1")
    # 28 bytes of ARP over Ethernet; what follows is the link layer's padding
    assert answered["length"] == 28
    assert answered["hook"] == 1


@contextmanager
def switched() -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    """Two hosts at a switch that has an address of its own.

    one 10.78.0.1 --- p1 [br0 10.78.0.9] p2 --- two 10.78.0.2
    """
    with (
        namespace("nf-one") as one,
        namespace("nf-switch") as switch,
        namespace("nf-two") as two,
    ):
        ip_batch(switch.name, "link add br0 type bridge", "address add 10.78.0.9/24 dev br0")
        for number, end in ((1, one), (2, two)):
            ip_batch(
                switch.name,
                f"link add p{number} type veth peer name eth0 netns {end.name}",
                f"link set p{number} master br0 up",
            )
            ip_batch(end.name, f"address add 10.78.0.{number}/24 dev eth0", "link set eth0 up")
        ip_batch(switch.name, "link set br0 up")
        yield one, switch, two


def test_every_hook_of_bridges_and_forwarded_arp(
    controller: Controller, make_program: MakeProgram
) -> None:
    program = socket_filter(make_program, asm.returning(1))
    with switched() as (one, switch, _), observing(controller) as observer:
        # ports that have just come up do not forward at once
        wait_for(lambda: "1 received" in one.ping("10.78.0.2", check=False), what="a bridge")
        links = {
            hook: attach(controller, program, f"nf:bridge/{hook}", switch)
            for hook in HOOKS[NfFamily.BRIDGE]
        }
        run("modprobe", "br_netfilter")
        switch.run("sysctl", "-qw", "net.bridge.bridge-nf-call-arptables=1")
        links["arp"] = attach(controller, program, "nf:arp/forward", switch)
        one.ping("10.78.0.2")
        one.ping("10.78.0.9")
        run("ip", "-n", one.name, "neigh", "flush", "all")
        one.ping("10.78.0.2")
        first, second, itself = (ip(f"10.78.0.{host}") for host in (1, 2, 9))
        ways = {
            "prerouting": (first, second, b"p1", b""),
            "input": (first, itself, b"br0", b""),
            "forward": (first, second, b"p1", b"p2"),
            "output": (itself, first, b"", b"p1"),
            "postrouting": (first, second, b"", b"p2"),
        }
        for hook, way in ways.items():
            found = wait_for_event(observer, links[hook], passing(*way[:2], ethertype=ETH_P_IP))
            assert (found["pf"], found["hook"]) == (NfFamily.BRIDGE, HOOKS[NfFamily.BRIDGE][hook])
            assert (found["protocol"], found["icmp_type"]) in ((1, 8), (1, 0))
            assert found["netns"] == switch.inode
            shown = (bytes(found["in_name"]), bytes(found["out_name"]))
            assert shown == way[2:] or hook == "input", (hook, shown)
        asking = passing(first, second, ETH_P_ARP)
        asked = wait_for_event(
            observer, links["arp"], lambda e: asking(e) and e["arp_operation"] == ARP_REQUEST
        )
        assert (asked["pf"], asked["hook"]) == (NfFamily.ARP, 2)
        for link in links.values():
            controller.detach(link.id)
    run("modprobe", "-r", "br_netfilter")


def test_ingress_of_a_device(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    program = socket_filter(make_program, asm.returning(1))
    with observing(controller) as observer:
        links = [
            attach(controller, program, where, net.router, device="r1")
            for where in ("nf:netdev/ingress", "nf:inet/ingress@-5")
        ]
        other = attach(controller, program, "nf:netdev/ingress", net.router, device="r2")
        for link in links:
            assert (nf_hook(link).device, nf_hook(link).registered) == ("r1", True)
        run("ip", "-n", net.left.name, "neigh", "flush", "all")
        net.left.ping(net.router_address)
        net.left.ping(net.router_address6)
        for link in links:
            for saddr, ethertype in (
                (net.left_address, ETH_P_IP),
                (net.left_address, ETH_P_ARP),
                (net.left_address6, ETH_P_IPV6),
            ):
                found = wait_for_event(observer, link, passing(ip(saddr), ethertype=ethertype))
                assert found["in_name"] == b"r1"
                assert found["in_ifindex"] == nf_hook(link).ifindex
                assert found["flags"] & EventFlag.DMAC
    assert [controller.link(link.id).stats.packets for link in links].count(0) == 0
    quiet = [bytes(e["saddr"]) for e in of_link(observer, other)]
    assert ip(net.left_address) not in quiet


# --- order, verdicts ------------------------------------------------------------------------------


def test_links_see_a_packet_by_priority(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    program = socket_filter(make_program, of_protocol(UDP))
    names = ("filter", "last", "first", "raw", "-299", "srcnat")
    with observing(controller) as observer:
        links = {
            name: attach(controller, program, f"nf:inet4/output@{name}", net.left) for name in names
        }
        # of links with equal priorities the latest comes first
        links["filter, later"] = attach(controller, program, "nf:inet4/output", net.left)
        net.left.call(send_udp, net.right_address, 9, [b"x"])
        observer.collect(lambda events: len(events) == len(links))
    order = {link.id: name for name, link in links.items()}
    assert [order[int(e["link"])] for e in observer.events] == [
        "first", "raw", "-299", "filter, later", "filter", "srcnat", "last",
    ]  # fmt: skip  # a line in order
    assert [int(e["priority"]) for e in observer.events] == [
        -(1 << 31), -300, -299, 0, 0, 100, (1 << 31) - 1,
    ]  # fmt: skip  # as above
    assert len({int(e["skb"]) for e in observer.events}) == 1


def test_filter_mode_drops_before_and_after_a_table(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    """A packet dropped before the raw table is not counted there; one dropped after it is."""
    net.router.iptables("-t", "raw", "-A", "PREROUTING", "-p", "udp")
    program = socket_filter(make_program, all_but(UDP))
    payloads = [b"x"] * 10

    def counted(where: str, *, report: bool = False) -> tuple[Link, int]:
        before = net.router.counted("PREROUTING", "raw")
        link = attach(
            controller, program, where, net.router, mode=NfMode.FILTER, report_drops=report
        )
        net.left.call(send_udp, net.right_address, 9, payloads)
        net.left.ping(net.right_address)
        wait_for(lambda: controller.link(link.id).stats.drops == len(payloads))
        return controller.detach(link.id), net.router.counted("PREROUTING", "raw") - before

    with observing(controller) as observer:
        ahead, seen_ahead = counted("nf:inet4/prerouting@-301")
        behind, seen_behind = counted("nf:inet4/prerouting@-299", report=True)
        observer.complete()
    assert (seen_ahead, seen_behind) == (0, len(payloads))
    assert (ahead.stats.events, behind.stats.events) == (0, len(payloads))
    assert ahead.stats.drops == behind.stats.drops == len(payloads)
    # the ping's packets passed, and are no events
    assert behind.stats.packets > behind.stats.drops
    drops = of_link(observer, behind)
    assert len(drops) == len(payloads) == len(observer.events)
    assert {(int(e["verdict"]), int(e["kind"])) for e in drops} == {(NF_DROP, Kind.PACKET)}
    assert {int(e["dport"]) for e in drops} == {9}


def _expect_not_permitted(address: str) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        pytest.raises(PermissionError),
    ):
        sender.sendto(b"x", (address, 9))


def test_a_sender_learns_that_its_packet_was_dropped(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    """The sender gets EPERM at output, as with iptables; the event names the sender."""
    program = socket_filter(make_program, all_but(UDP))
    with observing(controller) as observer:
        link = attach(
            controller,
            program,
            "nf:inet/output",
            net.left,
            mode=NfMode.FILTER,
            report_drops=True,
        )
        net.left.call(_expect_not_permitted, net.right_address)
        [dropped] = observer.collect(lambda events: len(events) == 1)
    assert nf_hook(link).report_drops
    assert dropped["flags"] & EventFlag.PID
    assert dropped["pid"] not in (0, os.getpid())


def test_a_classic_filter_stands_before_the_program(
    controller: Controller, make_program: MakeProgram, net: Network
) -> None:
    """Packets that the filter passes over get through, in filter mode too."""
    program = socket_filter(make_program, asm.returning(0))
    programs = ProgramSet({Slot.PACKET: program.fd}, filter=compile_filter("udp port 9"))
    hook = NfHook.parse("nf:inet/forward", netns=net.router.path, mode=NfMode.FILTER)
    link = controller.attach(hook, programs)
    net.left.call(send_udp, net.right_address, 9, [b"x"] * 3)
    net.left.ping(net.right_address)
    net.left.ping(net.right_address6)
    wait_for(lambda: controller.link(link.id).stats.drops == 3)
    stats = controller.link(link.id).stats
    assert stats.selected == stats.slots[Slot.PACKET].runs == 3
    assert stats.packets >= 7
