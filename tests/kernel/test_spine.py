# SPDX-License-Identifier: GPL-2.0
"""Links at the spine: each function that a packet meets at a hook, and nothing changed by it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from ipttctl.bpf.filters import compile_filter
from ipttctl.errors import KernelError
from ipttctl.events.records import EventRecord
from ipttctl.families import NfFamily
from ipttctl.hooks.spine import SpineHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttproto import (
    SPINE_SLOTS,
    Conntrack,
    EventFlag,
    InetHook,
    Kind,
    NetdevHook,
    Slot,
    Verdict,
    Walk,
)
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.cli import ipttctl, running
from tests.kernel.support.dropped import dropped_in
from tests.kernel.support.kernel import load_test_module, remove_module, run, wait_for
from tests.kernel.support.network import Namespace, ip_batch, namespace
from tests.kernel.support.objects import BPF, compile_object
from tests.kernel.support.observing import records_of

UDP = socket.IPPROTO_UDP
PORT = 9


def nft(where: Namespace, text: str) -> None:
    run("ip", "netns", "exec", where.name, "nft", "-f", "-", text=text)


def send(address: str, port: int = PORT, count: int = 1, mark: int = 0) -> None:
    """Send datagrams, which functions may refuse."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        if mark:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        sender.bind(("", 30000 + port))
        for _ in range(count):
            with suppress(PermissionError):
                sender.sendto(b"x", (address, port))


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("place") as made:
        yield made


Attach = Callable[..., Link]


@pytest.fixture
def attach(controller: Controller, make_program: MakeProgram) -> Attach:
    """Attach at the spine of a namespace, in which the walk is tried."""

    def at(where: Namespace, text: str = "spine", slots: tuple[Slot, ...] = SPINE_SLOTS) -> Link:
        descriptor = os.open(where.path, os.O_RDONLY)
        try:
            controller.try_walk(descriptor)
            fd = make_program(asm.returning(1)).fd
            hook = SpineHook.parse(text, netns=descriptor)
            return controller.attach(hook, ProgramSet(dict.fromkeys(slots, fd)))
        finally:
            os.close(descriptor)

    return at


def watched(controller: Controller) -> AbstractContextManager[list[EventRecord]]:
    """Collect the events of datagrams that are sent meanwhile."""
    return records_of(controller, lambda event: event.protocol == UDP)


def place_of(event: EventRecord) -> str:
    return SpineHook.heading(event)


def story(seen: list[EventRecord]) -> list[str]:
    """The events, a line for each."""
    return [f"{place_of(event)} {' '.join(SpineHook.outcome(event))}" for event in seen]


def functions(seen: list[EventRecord], hook: str) -> list[str]:
    """The functions that packets met at a hook, each with its verdict."""
    return [
        f"{event.chain.decode()} {Verdict(event.verdict).name}"
        for event in seen
        if event.kind == Kind.SPINE_FUNCTION and place_of(event) == hook
    ]


RULES = """
table ip t {
    chain raw { type filter hook output priority raw; meta mark set 7; }
    chain nat { type nat hook output priority -100; udp dport 9 dnat to 127.0.0.1:10; }
    chain out { type filter hook output priority filter; ct state new ip ttl set 5; }
    chain in { type filter hook input priority filter; udp dport 11 drop; }
}
"""


def test_each_function_is_told_with_what_it_changed(
    place: Namespace, controller: Controller, attach: Attach
) -> None:
    nft(place, RULES)
    link = attach(place)
    assert isinstance(link.hook, SpineHook)
    assert link.hook.armed
    with watched(controller) as seen:
        place.call(send, "127.0.0.1")
    out = [event for event in seen if place_of(event) == "inet4/output"]
    told = [event for event in out if event.kind == Kind.SPINE_FUNCTION]
    names = [event.chain.decode() for event in told]
    ours = [n for n in names if n in {"nft_do_chain_ipv4", "nf_nat_ipv4_local_fn"}]
    assert ours == ["nft_do_chain_ipv4", "nf_nat_ipv4_local_fn", "nft_do_chain_ipv4"]
    # defragmentation comes first of all
    raw, tracked, nat, out_filter = (
        told[names.index("nft_do_chain_ipv4")],
        told[names.index("ipv4_conntrack_local")],
        told[names.index("nf_nat_ipv4_local_fn")],
        told[-1],
    )
    assert (raw.chain, raw.table, raw.mark) == (b"nft_do_chain_ipv4", b"nf_tables", 7)
    assert raw.ct_state == 0
    assert (tracked.table, tracked.ct_state) == (b"nf_conntrack", Conntrack.NEW)
    assert (tracked.dport, nat.dport) == (9, 10)
    assert (nat.ttl, out_filter.ttl) == (64, 5)
    assert all(event.flags & EventFlag.PRIORITY for event in told)
    assert [event.priority for event in told] == sorted(event.priority for event in told)
    assert [event.rulenum for event in told] == list(range(1, len(told) + 1))
    # one number a function, and none twice for different ones
    numbers = {(event.chain, event.rule_handle) for event in told}
    assert len(numbers) == len({name for name, _ in numbers}) == len({n for _, n in numbers})
    assert all(number for _, number in numbers)
    (left,) = (event for event in out if event.kind == Kind.SPINE_EXIT)
    assert (left.verdict, left.rules, left.ttl) == (Verdict.ACCEPT, len(told), 5)
    assert left.cost > 0
    assert {event.traversal for event in out} == {left.traversal}


def test_a_dropped_packet_ends_there(
    place: Namespace, controller: Controller, attach: Attach
) -> None:
    nft(place, RULES)
    attach(place, "spine:inet4/input")
    with watched(controller) as seen:
        place.call(send, "127.0.0.1", 11)
    assert {place_of(event) for event in seen} == {"inet4/input"}
    lines = [" ".join(SpineHook.outcome(event)).split(" cost")[0] for event in seen]
    assert lines[-2].startswith("nft_do_chain_ipv4 DROP")
    assert lines[-1].startswith("DROP")
    assert seen[-1].kind == Kind.SPINE_EXIT


def test_drops_are_found_where_the_kernel_drops(place: Namespace, attach: Attach) -> None:
    place.iptables("-A", "OUTPUT", "-p", "udp", "-j", "DROP")
    found = []
    for looked in (False, True):
        if looked:
            attach(place)
        with dropped_in() as functions:
            place.call(send, "127.0.0.1")
        found.append(functions)
    assert found == [["nf_hook_slow"]] * 2


def test_hooks_and_families_are_told_apart(
    place: Namespace, controller: Controller, attach: Attach
) -> None:
    of_ipv6 = {"table ip t": "table ip6 t", "ip ttl": "ip6 hoplimit", "127.0.0.1": "[::1]"}
    rules = RULES
    for word, other in of_ipv6.items():
        rules = rules.replace(word, other)
    nft(place, rules)
    nft(place, RULES)
    attach(place, "spine:inet6")
    attach(place, "spine:inet/output", (Slot.EXIT,))
    with watched(controller) as seen:
        place.call(send, "::1")
        place.call(send, "127.0.0.1")
    first, second = sorted({event.link for event in seen})
    assert {event.pf for event in seen if event.link == first} == {NfFamily.IPV6}
    places = [place_of(event) for event in seen if event.link == second]
    assert places == ["inet6/output", "inet4/output"]


def test_devices_are_hooks_too(place: Namespace, controller: Controller, attach: Attach) -> None:
    nft(
        place,
        """
table netdev t {
    chain in { type filter hook ingress device "lo" priority 0; }
    chain out { type filter hook egress device "lo" priority 0; }
}
""",
    )
    attach(place, "spine:netdev")
    with watched(controller) as seen:
        place.call(send, "127.0.0.1")
    assert [(event.hook, event.kind) for event in seen] == [
        (NetdevHook.EGRESS, Kind.SPINE_FUNCTION),
        (NetdevHook.EGRESS, Kind.SPINE_EXIT),
        (NetdevHook.INGRESS, Kind.SPINE_FUNCTION),
        (NetdevHook.INGRESS, Kind.SPINE_EXIT),
    ]
    assert {event.dport for event in seen} == {PORT}
    assert functions(seen, "netdev/egress") == ["nft_do_chain_netdev ACCEPT"]


def test_queues(place: Namespace, controller: Controller, attach: Attach) -> None:
    nft(
        place,
        """
table ip t {
    chain first { type filter hook output priority -1; udp dport 9 queue flags bypass to 3; }
    chain last { type filter hook output priority 1; udp dport 10 queue to 4; }
}
""",
    )
    attach(place, "spine:inet4/output")
    with watched(controller) as seen:
        place.call(send, "127.0.0.1", 9)
        place.call(send, "127.0.0.1", 10)
    bypassed = [event for event in seen if event.dport == 9]
    assert [e.split(" ttl")[0] for e in functions(bypassed, "inet4/output")] == [
        "nft_do_chain_ipv4 QUEUE",
        "nft_do_chain_ipv4 ACCEPT",
    ]
    assert bypassed[0].flags & EventFlag.QUEUE_BYPASS
    assert bypassed[-1].verdict == Verdict.ACCEPT
    queued = [event for event in seen if event.dport == 10]
    assert (queued[-1].kind, queued[-1].verdict, queued[-1].verdict_data) == (
        Kind.SPINE_EXIT,
        Verdict.QUEUE,
        4,
    )


COUNTERS = """
table ip t {
    chain out { type filter hook output priority 0; counter; udp dport 12 drop; }
    chain in { type filter hook input priority 0; udp dport 11 counter drop; counter; }
}
"""


def test_packets_pass_as_without_us(place: Namespace, attach: Attach) -> None:
    """Counters of rules, and what arrives, are the same with a link and without."""

    def counters() -> list[str]:
        text = place.run("nft", "list", "table", "ip", "t")
        return [line.split("counter")[1] for line in text.splitlines() if "counter" in line]

    def flood() -> list[str]:
        for port in (9, 11, 12):
            place.call(send, "127.0.0.1", port, 50)
        found = counters()
        nft(place, "flush ruleset")
        nft(place, COUNTERS)
        return found

    nft(place, COUNTERS)

    without = flood()
    attach(place)
    assert flood() == without


def test_programs_choose(
    place: Namespace, controller: Controller, make_program: MakeProgram
) -> None:
    """An entry program that returns 0 passes packets over; a function program asks for some."""
    nft(place, RULES)
    with place.path.open("rb") as file:
        descriptor = file.fileno()
        controller.try_walk(descriptor)
        hook = SpineHook(NfFamily.IPV4, InetHook.OUTPUT, netns=descriptor)
        none = make_program(asm.returning(0)).fd
        yes = make_program(asm.returning(1)).fd
        link = controller.attach(hook, ProgramSet({Slot.ENTRY: none, Slot.EXIT: yes}))
        with watched(controller) as seen:
            place.call(send, "127.0.0.1")
        assert seen == []
        controller.swap(link.id, ProgramSet({Slot.FUNCTION: none, Slot.EXIT: yes}))
        with watched(controller) as seen:
            place.call(send, "127.0.0.1")
        assert [event.kind for event in seen] == [Kind.SPINE_EXIT]
        stats = controller.link(link.id).stats
        assert stats is not None
        # each datagram is answered by an ICMP error
        assert stats.packets == 4
        controller.detach(link.id)


@pytest.mark.parametrize(
    ("slots", "hook", "sentence"),
    [
        ((Slot.RULE,), SpineHook(), "the spine has the slots entry, function and exit"),
        ((Slot.FUNCTION,), TableHook(), "the function slot of the spine"),
        ((Slot.EXIT,), SpineHook(NfFamily.IPV4, 7), "the family has no hook of this number"),
        ((Slot.EXIT,), SpineHook(NfFamily.BRIDGE, 0), "the family has no hook of this number"),
        ((Slot.EXIT,), SpineHook(4), "hooks of the spine are of family 1"),
        ((Slot.EXIT,), SpineHook(NfFamily.INET, InetHook.INGRESS), "no hook of this number"),
        ((Slot.EXIT,), SpineHook(NfFamily.IPV4, 9), "the family has no hook of this number"),
    ],
)
def test_refusals(
    controller: Controller,
    make_program: MakeProgram,
    slots: tuple[Slot, ...],
    hook: SpineHook | TableHook,
    sentence: str,
) -> None:
    with pytest.raises(KernelError, match=sentence):
        controller.attach(hook, ProgramSet(dict.fromkeys(slots, make_program().fd)))


def test_a_spine_link_waits_for_the_verifier(
    controller: Controller, make_program: MakeProgram
) -> None:
    controller.end_verification(Walk.UNVERIFIED)
    programs = ProgramSet({Slot.EXIT: make_program().fd})
    with pytest.raises(KernelError, match="not verified on this kernel yet"):
        controller.attach(SpineHook(), programs)
    controller.end_verification(Walk.VERIFIED, although_not_compared=True)
    link = controller.attach(SpineHook(), programs)
    with pytest.raises(KernelError, match="there are links by this walk"):
        controller.end_verification(Walk.DIFFERS)
    controller.detach(link.id)


def test_a_namespace_that_goes_is_told(controller: Controller, attach: Attach) -> None:
    with namespace("short") as short:
        link = attach(short)
    wait_for(lambda: controller.link(link.id).hook.gone is not None)
    controller.detach(link.id)


def test_the_example_from_the_command_line(
    place: Namespace, controller: Controller, tmp_path: Path
) -> None:
    """Functions that keep packets, by the names that a user reads."""
    built = compile_object(BPF / "functions.c", tmp_path)
    place.iptables("-A", "INPUT", "-p", "udp", "--dport", str(PORT), "-j", "DROP")
    controller.end_verification(Walk.VERIFIED, although_not_compared=True)
    attached = ipttctl(
        "attach", "--hook", "spine:inet4", "--netns", place.name, "--persist", "-o", "json",
        "--object", f"function={built}:keeping_function",
    )  # fmt: skip  # pairs together
    assert attached.returncode == 0, attached.stderr
    link = json.loads(attached.stdout)
    assert (link["hook"], link["armed"]) == ("spine:inet4", ["spine"])
    with running("events", "--hook", "spine:inet4/input", "-c", "1") as events:
        events.wait_for_text("listening")
        place.call(send, "127.0.0.1")
        assert events.process.wait(60) == 0
    [line] = [text for text in events.out().splitlines() if "spine=" in text]
    assert "hook=inet4/input in=lo out= function=ipt_do_table module=ip_tables" in line
    assert "priority=filter verdict=DROP" in line
    assert ipttctl("detach", str(link["link"])).returncode == 0


def test_names_are_looked_up_again_once_a_module_was_loaded(
    place: Namespace, controller: Controller, attach: Attach
) -> None:
    """Its functions may lie where those of another one lay."""
    nft(place, RULES)
    attach(place, "spine:inet4/output", (Slot.FUNCTION,))
    found = []
    for _ in range(2):
        with watched(controller) as seen:
            place.call(send, "127.0.0.1")
        found.append({event.chain: event.rule_handle for event in seen})
        load_test_module("rcu_reader")
        remove_module("rcu_reader")
    first, again = found
    assert first.keys() == again.keys() > {b"nft_do_chain_ipv4"}
    assert not set(first.values()) & set(again.values())


# --- bridges ----------------------------------------------------------------------------------


@contextmanager
def quiet_bridge() -> Iterator[tuple[Namespace, Namespace]]:
    """A namespace with a bridge that hands packets to IP, and another one on it, 10.78.0.1.

    Behind it is 10.78.0.2. All know the others' addresses: nobody sends anything unasked.
    """
    run("modprobe", "br_netfilter")
    try:
        with namespace("left") as left, namespace("bridge") as middle, namespace("right") as right:
            for where in (left, middle, right):
                where.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
            ip_batch(middle.name, "link add br0 type bridge", "link set br0 up")
            for number, end in ((1, left), (2, right)):
                peer = f"peer name eth0 address 02:00:00:00:00:0{number} netns {end.name}"
                ip_batch(
                    middle.name,
                    f"link add p{number} type veth {peer}",
                    f"link set p{number} master br0 up",
                )
                ip_batch(
                    end.name,
                    f"address add 10.78.0.{number}/24 dev eth0",
                    "link set eth0 up",
                    f"neigh replace 10.78.0.{3 - number} dev eth0 nud permanent"
                    f" lladdr 02:00:00:00:00:0{3 - number}",
                )
            middle.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
            # ports need a moment before they forward
            left.run("ping", "-n", "-q", "-c", "1", "-w", "20", "10.78.0.2")
            yield left, middle
    finally:
        run("modprobe", "-r", "br_netfilter")


def test_the_rest_of_a_hook_is_a_passage_only_if_it_has_functions(
    controller: Controller, make_program: MakeProgram
) -> None:
    """br_netfilter goes on behind its own function, where only a placeholder is."""
    fd = make_program(asm.returning(1)).fd

    def passages(bytecode: bytes | None) -> int:
        """The packets of a link while an echo is answered."""
        hook = SpineHook.parse("spine:bridge/forward", netns=middle.path)
        link = controller.attach(hook, ProgramSet({Slot.EXIT: fd}, bytecode))
        left.ping("10.78.0.2")
        return controller.detach(link.id).stats.packets

    with quiet_bridge() as (left, middle):
        assert [passages(None), passages(compile_filter("udp port 1"))] == [2, 2]
        nft(middle, "table bridge t { chain f { type filter hook forward priority 300; }; }")
        assert [passages(None), passages(compile_filter("udp port 1"))] == [4, 4]
