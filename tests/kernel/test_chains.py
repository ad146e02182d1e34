# SPDX-License-Identifier: GPL-2.0
"""Links at nftables' chains: each rule that a packet meets, and nothing changed by looking."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ipttctl.errors import KernelError
from ipttctl.events.describe import chain_decision, verdict
from ipttctl.events.records import EventRecord
from ipttctl.families import NfFamily
from ipttctl.hooks.chain import ChainHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttproto import Gone, Kind, Slot, Walk
from ipttproto.family import limit
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.dropped import dropped_in
from tests.kernel.support.kernel import loaded_modules, run, wait_for
from tests.kernel.support.network import Namespace, namespace
from tests.kernel.support.observing import records_of

UDP = socket.IPPROTO_UDP
ALL = (Slot.ENTRY, Slot.RULE, Slot.EXIT)


def nft(where: Namespace, text: str) -> None:
    run("ip", "netns", "exec", where.name, "nft", "-f", "-", text=text)


def send(address: str, port: int) -> None:
    """Send a datagram, which rules may refuse."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender, suppress(PermissionError):
        sender.bind(("", 30000 + port))
        sender.sendto(b"x", (address, port))


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("place") as made:
        yield made


Attach = Callable[..., Link]


def armed(link: Link) -> bool:
    """Whether the chains of a link are watched."""
    assert isinstance(link.hook, ChainHook)
    return link.hook.armed


@pytest.fixture
def attach(controller: Controller, make_program: MakeProgram) -> Attach:
    """Attach at chains of a namespace, in which the walk is tried."""

    def at(where: Namespace, *slots: Slot) -> Link:
        descriptor = os.open(where.path, os.O_RDONLY)
        try:
            controller.try_walk(descriptor)
            hook = ChainHook(netns=descriptor)
            fd = make_program(asm.returning(1)).fd
            return controller.attach(hook, ProgramSet(dict.fromkeys(slots or ALL, fd)))
        finally:
            os.close(descriptor)

    return at


def story(seen: list[EventRecord]) -> list[str]:
    """The events, a line for each."""
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


def test_each_rule_is_told(place: Namespace, controller: Controller, attach: Attach) -> None:
    nft(place, RULES)
    link = attach(place)
    assert armed(link)
    with records_of(controller) as seen:
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
    # nothing is left of the target of an earlier jump
    jumps = {"jump", "goto"}
    for event in seen:
        is_jump = event.kind == Kind.CHAIN_RULE and chain_decision(event).split()[0] in jumps
        assert bool(event.target) == is_jump, event


MIXED = """
table ip a {
    set seen {
        type ipv4_addr . inet_service
        flags dynamic,timeout
        timeout 1h
    }
    map ports {
        type inet_service : verdict
        elements = { 1000 : jump counted, 1001 : drop, 1002 : accept }
    }
    chain counted {
        counter
        meta mark set 7
        limit rate over 1000000/second drop
        ip dscp set cs1
        return
    }
    chain out {
        type filter hook output priority -10; policy accept;
        meta nftrace set 1
        ip daddr 127.0.0.0/8 update @seen { ip daddr . udp dport counter } counter
        udp dport vmap @ports
        udp dport { 2000-3000 } counter
        udp dport 2001 reject
        udp dport 2002 queue num 3 bypass
        udp dport 2003 ip ttl set 9 counter
        udp dport 2004 log prefix "seen"
        ct state new counter
        fib daddr type local counter
        udp length 9 @th,64,8 0x78 counter
    }
    chain late {
        type filter hook output priority 10; policy drop;
        udp dport 2005 goto counted
        oif lo accept
    }
    chain in {
        type filter hook input priority 0; policy accept;
        meta mark 7 counter drop
    }
}
"""

PORTS = (1000, 1001, 1002, 1003, 2000, 2001, 2002, 2003, 2004, 2005)


def listens_to_traces(process: int) -> bool:
    """Whether a socket of a process's network namespace is in the group NFNLGRP_NFTRACE."""
    lines = Path(f"/proc/{process}/net/netlink").read_text().splitlines()[1:]
    sockets = (line.split() for line in lines)
    return any(eth == "12" and int(groups, 16) & 1 << 8 for _, eth, _, groups, *_ in sockets)


def outcome(where: Namespace, ports: tuple[int, ...] = PORTS) -> str:
    """Counters of a ruleset and messages of `nft monitor trace`, less what differs anyway."""
    trace = where.path.parent / "trace"
    with (
        trace.open("w") as file,
        subprocess.Popen(
            ["ip", "netns", "exec", where.name, "nft", "monitor", "trace"], stdout=file
        ) as monitor,
    ):
        wait_for(lambda: listens_to_traces(monitor.pid), what="nft monitor listens")
        for port in ports:
            where.call(send, "127.0.0.1", port)
        # what the last packet meets last
        wait_for(lambda: "late policy drop" in trace.read_text(), what="the last message")
        monitor.terminate()
    lines = trace.read_text().splitlines()
    trace.unlink()
    told = [
        re.sub(r"^trace id \w+|ip id \d+|udp checksum \S+|(?<=icmp code ).*", "", line)
        for line in lines
    ]
    assert len(told) > 30
    ruleset = where.run("nft", "-a", "list", "ruleset")
    # elements of sets expire, and nf_tables counts the tables of all namespaces
    return "\n".join([re.sub(r"expires \w+|(?<={ # )handle \d+", "", ruleset), *told])


def test_nothing_changes_for_anybody(controller: Controller, attach: Attach) -> None:
    outcomes = []
    for looked in (False, True):
        with namespace("place") as place:
            nft(place, MIXED)
            link = attach(place) if looked else None
            outcomes.append(outcome(place))
            if link is not None:
                stats = controller.link(link.id).stats
                assert stats.selected == stats.packets > 2 * len(PORTS)
                controller.detach(link.id)
    assert outcomes[0] == outcomes[1]


def test_drops_are_found_where_the_kernel_drops(place: Namespace, attach: Attach) -> None:
    nft(place, "table ip t { chain c { type filter hook output priority 0; udp dport 5 drop; }; }")
    attach(place)
    with dropped_in() as functions:
        place.call(send, "127.0.0.1", 5)
    assert functions == ["nft_do_chain"]


def test_links_are_only_where_the_walk_is_tried(
    place: Namespace, controller: Controller, make_program: MakeProgram
) -> None:
    programs = ProgramSet({Slot.RULE: make_program(asm.returning(1)).fd})
    controller.end_verification(Walk.UNVERIFIED)
    status = controller.status()
    assert (status.walk, status.walk_compared) == (Walk.UNVERIFIED, True)
    for hook in (ChainHook(), ChainHook(netns=place.path)):
        assert "module verify" in str(refused(controller.attach, hook, programs))
    with Controller() as verifier, place.path.open() as opened:
        # once more for each case
        for _ in range(limit("MAX_TRIALS") + 1):
            verifier.try_walk(opened.fileno())
        controller.attach(ChainHook(netns=place.path), programs)
        assert "module verify" in str(refused(controller.attach, ChainHook(), programs))
    assert "module verify" in str(refused(controller.attach, ChainHook(netns=place.path), programs))
    with Path("/proc/1/ns/net").open("rb") as initial:
        assert "initial" in str(refused(controller.try_walk, initial.fileno()))
    controller.end_verification(Walk.VERIFIED)


def refused(call: Callable[..., object], *arguments: object) -> KernelError:
    with pytest.raises(KernelError) as error:
        call(*arguments)
    return error.value


def test_a_result_holds_for_everybody(
    place: Namespace, controller: Controller, make_program: MakeProgram
) -> None:
    programs = ProgramSet({Slot.RULE: make_program(asm.returning(1)).fd})
    nft(place, RULES)
    controller.end_verification(Walk.DIFFERS)
    with place.path.open() as opened:
        controller.try_walk(opened.fileno())
    assert "does not do" in str(refused(controller.attach, ChainHook(), programs))
    # but there it can be verified once more
    again = controller.attach(ChainHook(netns=place.path), programs)
    controller.detach(again.id)
    controller.end_verification(Walk.VERIFIED)
    link = controller.attach(ChainHook(NfFamily.INET, "t", "out"), programs)
    assert "links by this walk" in str(refused(controller.end_verification, Walk.DIFFERS))
    other = controller.attach(ChainHook(NfFamily.IPV6), programs)
    with records_of(controller) as seen:
        place.call(send, "127.0.0.1", 5)
    assert [line for line in story(seen) if "drop" in line] == ["out 3 drop depth=0"]
    assert {event.link for event in seen} == {link.id}
    controller.detach(link.id)
    controller.detach(other.id)


def test_a_rule_that_rejects_sends_through_chains(
    place: Namespace, controller: Controller, attach: Attach
) -> None:
    nft(
        place,
        """table ip t {
            chain out { type filter hook output priority 0; meta l4proto udp reject; }
        }""",
    )
    attach(place)
    with records_of(controller) as seen:
        place.call(send, "127.0.0.1", 5)
    # the ICMP error is sent while the datagram is at its rule
    assert [event.protocol for event in seen] == [1, 1, UDP, UDP]


def test_nf_tables_comes_and_goes(controller: Controller, attach: Attach) -> None:
    with namespace("place") as place:
        link = attach(place)
        assert armed(link)
        wait_for(remove_nf_tables, timeout=60, what="nf_tables is unloaded")
        assert not armed(controller.link(link.id))
        nft(place, RULES)
        assert armed(controller.link(link.id))
        with records_of(controller) as seen:
            place.call(send, "127.0.0.1", 5)
        assert "out 3 drop depth=0" in story(seen)
    gone = wait_for(lambda: controller.link(link.id).hook.gone, what="the namespace is gone")
    assert gone is Gone.NETNS


def remove_nf_tables() -> bool:
    """Unload nf_tables with the modules that use it; namespaces still hold it for a moment."""
    run("nft", "flush", "ruleset")
    _remove("nf_tables")
    return "nf_tables" not in loaded_modules()


def _remove(module: str) -> None:
    """Unload a module, the ones that use it first."""
    holders = Path("/sys/module") / module / "holders"
    for user in sorted(holders.iterdir()) if holders.exists() else ():
        _remove(user.name)
    if module in loaded_modules():
        run("rmmod", module, check=False)
