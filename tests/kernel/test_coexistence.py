# SPDX-License-Identifier: GPL-2.0
"""The same traffic causes the same events, whatever other tracer is at the same functions.

The router of ``network`` has every relevant kind of rule in the tables of both IP versions, and
chains of nftables beside them. Links at its tables, chains, spine and netfilter hooks report the
packets that left sends, and a journey follows its datagrams, and the errors that it gets for them;
these events, and the counters of the rules, must be the same with and without the tracer.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pytest

from ipttctl.bpf.filters import compile_filter
from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.errors import KernelError
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.nf import NfHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, LinkStats, ProgramSet
from ipttproto import SPINE_SLOTS, TABLE_SLOTS, EventFlag, Kind, Slot
from tests.kernel.support import assembler as asm
from tests.kernel.support.bpf_tracers import Counts
from tests.kernel.support.kernel import (
    load_test_module,
    remove_module,
    run,
    settled,
    wait_for,
    wait_for_no_redirection,
)
from tests.kernel.support.network import Network, ip_batch, network
from tests.kernel.support.observing import Observer, observing
from tests.kernel.support.tracers import TRACERS, Tracer, hooked_functions

#: how often a probe at a function fires for one redirected call: a replacement enters the original
#: after the place where other handlers are called
FIRINGS = 1

#: how often the traffic is sent again if other packets came in between
ATTEMPTS = 4

LIVE_PATCH = "livepatch_ipt"

#: every tracer, before the links and after them; otherwise a few before, and not those that take a
#: minute of emulation to trace every function of the kernel or of the module
WHOLE = os.environ.get("IPTT_COEXISTENCE") == "whole"
BEFORE = frozenset({"kprobe", "BPF fentry", "BPF fexit"})
LONG = frozenset({"function_graph tracer", "kretprobe on the module's functions"})

needs_live_patches = pytest.mark.skipif(
    not Path("/sys/kernel/livepatch").is_dir(), reason="this kernel has no live patches"
)

PORTS = range(1000, 1007)
SOURCE_PORT = 6000
FOLLOWED = "udp or icmp or (icmp6 and ip6[40] < 128)"
FILTER = f"tcp or {FOLLOWED}"

#: the parts of an event that do not depend on its time or on memory addresses
SAME = (
    "pf", "hook", "protocol", "length", "saddr", "daddr", "sport", "dport", "tcp_flags",
    "icmp_type", "icmp_code", "in_name", "out_name", "mark", "netns", "flags",
    "table", "chain", "kind", "rulenum", "rules", "verdict", "verdict_data",
)  # fmt: skip  # by what they tell

VERSIONS: Final[tuple[Literal[4, 6], ...]] = (4, 6)
NF_HOOKS = ("nf:inet/prerouting", "nf:inet/forward")
#: without a function there, packets of left's would not come to the spine
BEGIN_HOOKS = ("nf:inet/output", "nf:inet/input")
#: links whose packets are counted: at tables by IP version, and at chains
CHAINS: Final = 0
COUNTED: Final = (*VERSIONS, CHAINS)

CHAIN_RULES: Final = """
table inet beside {
    chain early {
        udp dport 1000 counter return
        counter
    }
    chain incoming {
        type filter hook prerouting priority -400;
        meta l4proto { udp, tcp } jump early
    }
    chain forwarded {
        type filter hook forward priority 50;
        udp dport 1003-1004 counter goto early
        meta l4proto tcp counter drop
    }
    chain outgoing {
        type filter hook postrouting priority 300;
        udp dport 1005 counter drop
    }
}
"""

#: what journeys tell of the traffic: that nobody listens is a drop too
STEPS: Final = frozenset(
    {
        Kind.JOURNEY_COPY,
        Kind.JOURNEY_SENT,
        Kind.JOURNEY_RECEIVED,
        Kind.JOURNEY_DROPPED,
        Kind.JOURNEY_FREED,
    }
)

#: each rule: its text, and its counts of packets and bytes
Counters = list[tuple[str, int, int]]

#: (link, parts that identify its packet) -> its events in the order of their times
Events = dict[tuple[Any, ...], list[tuple[Any, ...]]]


def _rules(copies_to: str) -> str:
    lines = ["*raw", ":PREROUTING ACCEPT", ":OUTPUT ACCEPT", ":early -"]
    lines += ["-A PREROUTING -p udp --dport 1005 -j TRACE", "-A PREROUTING -p udp -j early"]
    lines += ["-A early -p udp --dport 1000 -j RETURN", "-A early -p udp", "COMMIT"]
    lines += ["*mangle", ":PREROUTING ACCEPT", ":INPUT ACCEPT", ":FORWARD ACCEPT"]
    lines += [":OUTPUT ACCEPT", ":POSTROUTING ACCEPT", ":paint -"]
    lines += [f"-A PREROUTING -p udp --dport 1004 -j TEE --gateway {copies_to}"]
    lines += ["-A FORWARD -p udp -j paint", "-A paint -j MARK --set-mark 7", "COMMIT"]
    lines += ["*filter", ":INPUT ACCEPT", ":FORWARD DROP", ":OUTPUT ACCEPT", ":a -", ":b -"]
    lines += ["-A FORWARD -p udp --dport 1001 -j DROP", "-A FORWARD -p udp --dport 1002 -j REJECT"]
    lines += ["-A FORWARD -p udp --dport 1003 -g b", "-A FORWARD -p udp -j a"]
    lines += ["-A a -m mark --mark 7", "-A a -p udp --dport 1000:1005 -j ACCEPT", "-A b -p udp"]
    lines += ["COMMIT"]
    return "\n".join(lines) + "\n"


def _send(net: Network) -> None:
    """Send datagrams of several lengths to and through the router, and try to connect to it."""
    for target, itself in (
        (net.right_address, net.router_address),
        (net.right_address6, net.router_address6),
    ):
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        for number, address in enumerate([target] * len(PORTS) + [itself]):
            # a new socket each: the last one may have received a port-unreachable error
            with socket.socket(family, socket.SOCK_DGRAM) as sender:
                sender.bind(("", SOURCE_PORT))
                port = PORTS[number % len(PORTS)]
                sender.sendto(bytes(50 + number), (address, port))
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.bind(("", SOURCE_PORT))
            client.settimeout(10)
            assert client.connect_ex((itself, 80)) == errno.ECONNREFUSED


@dataclass(frozen=True)
class Measured:
    """Events, rule counters, and the counts of the links at tables and chains."""

    events: Events
    counters: Counters
    passages: dict[int, int] = field(compare=False)
    followed: dict[int, int]

    def rule_events(self, **wanted: Any) -> int:
        """The number of rule events with these members."""
        places = {SAME.index(name): value for name, value in wanted.items()}
        kind = SAME.index("kind")
        return sum(
            event[kind] in (Kind.RULE, Kind.RETURN, Kind.POLICY)
            and all(event[place] == value for place, value in places.items())
            for events in self.events.values()
            for event in events
        )

    def calls(self) -> dict[str, int]:
        """The expected calls of each redirected function, the module's own calls included."""
        marked = self.rule_events(flags=EventFlag.FOREIGN)
        again = FIRINGS - 1
        calls = {
            "ipt_do_table": self.passages[4] + self.followed[4] * again,
            "ip6t_do_table": self.passages[6] + self.followed[6] * again,
            # a walk takes the place of the original
            "nft_do_chain": self.passages[CHAINS],
            # only somebody else's trace goes on to the original
            "nf_log_trace": self.rule_events() + marked * again,
            "trace_tg": self.rule_events(table=b"raw", chain=b"PREROUTING", rulenum=1, dport=1005),
        }
        for pf, name in ((socket.AF_INET, "nf_dup_ipv4"), (socket.AF_INET6, "nf_dup_ipv6")):
            copied = self.rule_events(table=b"mangle", chain=b"PREROUTING", dport=1004, pf=pf)
            calls[name] = copied // 2 * FIRINGS  # its rule, and the policy
        return calls


def assert_same(now: Measured, alone: Measured) -> None:
    """Fail with the differences, packet by packet."""
    assert now.counters == alone.counters
    for packet in alone.events.keys() | now.events.keys():
        steps, expected = now.events.get(packet), alone.events.get(packet)
        if steps and expected:
            steps = [_known_function(*pair) for pair in zip(steps, expected, strict=False)] + (
                steps[len(expected) :]
            )
        assert steps == expected, f"link, pf, protocol, length: {packet}"
    assert now.followed == alone.followed


def _known_function(step: tuple[Any, ...], expected: tuple[Any, ...]) -> tuple[Any, ...]:
    """A step; the expected one if it is a drop whose function a tracer hides from the kernel.

    Some replace the addresses that functions return to, which is where the kernel finds it.
    """
    kind, function = SAME.index("kind"), SAME.index("chain")
    if step[kind] != Kind.JOURNEY_DROPPED or step[function]:
        return step
    module = SAME.index("table")
    return tuple(
        expected[place] if place in {module, function} else value
        for place, value in enumerate(step)
    )


@dataclass
class Scene:
    """The network, programs for links in it, and the rule counters of the last measurement."""

    net: Network
    table: Program
    packet: Program
    controller: Controller
    counted: Counters = field(default_factory=list)

    @contextmanager
    def links(self) -> Iterator[list[Link]]:
        """Links at tables of IPv4, of IPv6, at chains, spine and hooks; detached at the end."""
        code = compile_filter(FILTER)
        at_tables = ProgramSet(dict.fromkeys(TABLE_SLOTS, self.table.fd), filter=code)
        at_hooks = ProgramSet({Slot.PACKET: self.packet.fd}, filter=code)
        made = [self.controller.attach(TableHook(version), at_tables) for version in VERSIONS]
        router = os.open(self.net.router.path, os.O_RDONLY)
        try:
            made.append(self.controller.attach(ChainHook(netns=router), at_tables))
            at_spine = ProgramSet(dict.fromkeys(SPINE_SLOTS, self.table.fd), filter=code)
            made.append(self.controller.attach(SpineHook(netns=router), at_spine))
        finally:
            os.close(router)
        for place, names in ((self.net.router, NF_HOOKS), (self.net.left, BEGIN_HOOKS)):
            for name in names:
                hook = NfHook.parse(name, netns=place.path)
                made.append(self.controller.attach(hook, at_hooks))
        step = ProgramSet({Slot.STEP: self.table.fd})
        journey = self.controller.attach(JourneyHook(), step)
        sent = ProgramSet({Slot.EXIT: self.table.fd}, compile_filter(FOLLOWED))
        begin = SpineHook.parse("spine:inet", netns=self.net.left.path)
        made += [journey, self.controller.attach(begin, sent, journey=journey.id)]
        try:
            yield made
        finally:
            for link in made:
                self.controller.detach(link.id)

    def stats(self, links: list[Link]) -> list[LinkStats]:
        """The counters of each link: first in the order of ``COUNTED``."""
        return [self.controller.link(link.id).stats for link in links]

    def counters(self) -> Counters:
        """The rules of IPv4 and IPv6, and those of nftables, and their counters."""
        tools = ("iptables-legacy-save", "ip6tables-legacy-save")
        saved = "".join(self.net.router.run(tool, "-c") for tool in tools)
        found = re.findall(r"^\[(\d+):(\d+)\] (-A .*)$", saved, re.MULTILINE)
        ruleset = self.net.router.run("nft", "list", "table", "inet", "beside")
        counted = re.findall(r"^(.*)counter packets (\d+) bytes (\d+)", ruleset, re.MULTILINE)
        found += [(packets, size, rule) for rule, packets, size in counted]
        return [(rule, int(packets), int(size)) for packets, size, rule in found]

    def measure(self, links: list[Link], expected: int | None = None) -> Measured:
        """Send the traffic; wait for ``expected`` events, or until no more come."""
        before = self.stats(links)
        with observing(self.controller) as observer:
            self.net.left.call(_send, self.net)
            if expected is None:
                settled(lambda: len(observer.drain()))
            else:
                observer.collect(lambda events: len(events) >= expected, seconds=30)
            observer.complete()
        after = self.stats(links)
        assert not any(stats.nested or stats.lost for stats in after)
        last, self.counted = self.counted, self.counters()
        return Measured(
            _sequences(observer, links),
            [
                (rule, packets - old[1], size - old[2])
                for old, (rule, packets, size) in zip(last, self.counted, strict=True)
            ],
            passages(before, after),
            {
                place: now.selected - old.selected
                for place, old, now in zip(COUNTED, before, after, strict=False)
            },
        )


def passages(before: Sequence[LinkStats], after: Sequence[LinkStats]) -> dict[int, int]:
    """The packets that tables and chains saw between two times."""
    return {
        place: now.packets - old.packets
        for place, old, now in zip(COUNTED, before, after, strict=False)
    }


def _sequences(observer: Observer, links: list[Link]) -> Events:
    """Events by link and packet, in the order of their times."""
    numbers = {link.id: number for number, link in enumerate(links)}
    followed = {link.id for link in links if link.journey or isinstance(link.hook, JourneyHook)}
    sequences: Events = defaultdict(list)
    names = _Names()
    for event in sorted(observer.events, key=lambda event: int(event["time"])):
        key = tuple(int(event[name]) for name in ("pf", "protocol", "length"))
        if int(event["link"]) in followed:
            # its steps do not all describe it
            key = names.name(event, key)
        same = tuple(_plain(event[name]) for name in SAME)
        sequences[numbers[event["link"]], *key].append(same)
    return dict(sequences)


class _Names:
    """Names of followed packets: how each was when it was first seen, or whose copy it is."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[int, ...]] = {}
        self._copies: Counter[int] = Counter()

    def name(self, event: Any, described: tuple[int, ...]) -> tuple[int, ...]:
        """The name of an event's packet."""
        packet, original = int(event["packet"]), int(event["rule_handle"])
        if event["kind"] == Kind.JOURNEY_COPY:
            self._copies[original] += 1
            self._names[packet] = (*self._names[original], self._copies[original])
        return self._names.setdefault(packet, described)


def _plain(value: Any) -> int | bytes:
    return bytes(value) if isinstance(value, np.ndarray | bytes) else int(value)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with network() as net, Controller() as controller, ExitStack() as stack:
        run("modprobe", "nf_log_syslog")
        for namespace in (net.left, net.router, net.right):
            namespace.run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
        _introduce_neighbours(net)
        code = asm.returning(1)
        packet = stack.enter_context(
            Program.load(code, name="packet", type=ProgramType.SOCKET_FILTER)
        )
        table = stack.enter_context(Program.load(code, name="table"))
        made = Scene(net, table, stack.enter_context(packet), controller)
        # the tables are at their hooks before the links, and routes are known
        net.router.restore(_rules("10.77.2.2"))
        net.router.restore(_rules("fd77:2::2"), ipv6=True)
        run("ip", "netns", "exec", net.router.name, "nft", "-f", "-", text=CHAIN_RULES)
        net.left.call(_send, net)
        made.counted = settled(made.counters)
        yield made


def _introduce_neighbours(net: Network) -> None:
    """Set the neighbours, as requests for addresses are packets that come at any time."""
    for number, end in ((1, net.left), (2, net.right)):
        port = f"r{number}"
        for one, device, other, its, host in (
            (end, "eth0", net.router, port, 1),
            (net.router, port, end, "eth0", 2),
        ):
            address = other.run("cat", f"/sys/class/net/{its}/address").strip()
            known = f"lladdr {address} dev {device} nud permanent"
            ip_batch(
                one.name,
                f"neighbour replace 10.77.{number}.{host} {known}",
                f"neighbour replace fd77:{number}::{host} {known}",
            )


@pytest.fixture(scope="module")
def alone(scene: Scene) -> Measured:
    """The measurement without any other tracer."""
    with scene.links() as links:
        measured = scene.measure(links)
    wait_for_no_redirection()
    return measured


@pytest.fixture(scope="module")
def links(scene: Scene) -> Iterator[list[Link]]:
    """Links that exist before the tracers."""
    with scene.links() as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_hooked() -> Iterator[None]:
    """A tracer that has ended leaves nothing behind, whatever the order."""
    before = hooked_functions()
    yield
    with suppress(AssertionError):
        wait_for(lambda: hooked_functions() == before, timeout=60)
    assert hooked_functions() == before


def test_the_traffic_meets_all_that_is_redirected(scene: Scene, alone: Measured) -> None:
    """The traffic calls every redirected function, and nothing differs if nothing has changed."""
    assert all(alone.calls().values()), alone.calls()
    met = {event[SAME.index("kind")] for events in alone.events.values() for event in events}
    assert met >= STEPS, met
    assert len(alone.events) > 60
    with scene.links() as links:
        assert_same(scene.measure(links), alone)


def _cases(wanted: Callable[[str], bool]) -> Callable[[Any], Any]:
    chosen = [tracer for tracer in TRACERS if WHOLE or wanted(tracer.name)]
    return pytest.mark.parametrize("tracer", chosen, ids=lambda tracer: tracer.name)


def _assert_same_beside(
    tracer: Tracer, counts: Counts, scene: Scene, links: list[Link], alone: Measured
) -> None:
    """Events and rule counters are the same beside a tracer, and the tracer's counts are right.

    The tracer counts for longer than the compared interval. If the links saw no other packets in
    the rest of that time, its counts must be exactly theirs.
    """
    for _ in range(ATTEMPTS):
        first = scene.stats(links)
        before = counts()
        beside = scene.measure(links, sum(map(len, alone.events.values())))
        after = counts()
        assert_same(beside, alone)
        if passages(first, scene.stats(links)) == beside.passages:
            break
    else:
        raise AssertionError("somebody else's packets came each time")
    calls = beside.calls()
    fired = {name: after[name] - before.get(name, 0) for name in after}
    for name, count in fired.items():
        assert count == calls[name] if name in calls else count, (tracer.name, fired, calls)


@_cases(lambda name: name in BEFORE)
def test_a_tracer_that_comes_before_the_links(
    scene: Scene, alone: Measured, tracer: Tracer
) -> None:
    if reason := tracer.missing():
        pytest.skip(reason)
    with tracer.start() as counts, scene.links() as links:
        _assert_same_beside(tracer, counts, scene, links, alone)


@needs_live_patches
def test_links_do_not_go_with_a_live_patch_that_is_there(scene: Scene, alone: Measured) -> None:
    with _live_patch():
        with pytest.raises(KernelError, match="live patch") as refused, scene.links():
            pass
        assert refused.value.errno == errno.EBUSY
        assert scene.controller.links() == []
    with scene.links() as links:
        assert_same(scene.measure(links), alone)


@contextmanager
def _live_patch() -> Iterator[None]:
    load_test_module(LIVE_PATCH)
    try:
        yield
    finally:
        Path(f"/sys/kernel/livepatch/{LIVE_PATCH}/enabled").write_text("0")
        # it can be unloaded once every task has left it
        remove_module(LIVE_PATCH)


@needs_live_patches
def test_a_live_patch_does_not_go_with_links_that_are_there(
    scene: Scene, alone: Measured, links: list[Link]
) -> None:
    with pytest.raises(AssertionError, match="Device or resource busy"), _live_patch():
        pass
    assert_same(scene.measure(links), alone)


@_cases(lambda name: name not in LONG)
def test_a_tracer_that_comes_after_the_links(
    scene: Scene, alone: Measured, links: list[Link], tracer: Tracer
) -> None:
    if reason := tracer.missing():
        pytest.skip(reason)
    with tracer.start() as counts:
        _assert_same_beside(tracer, counts, scene, links, alone)
    assert_same(scene.measure(links, sum(map(len, alone.events.values()))), alone)
