# SPDX-License-Identifier: GPL-2.0
"""Tables and chains of NAT that are not consulted, since the packet's connection is known.

    left                 router                  right
10.77.1.2 --- veth --- 10.77.1.1
                       10.77.2.1 --- veth --- 10.77.2.2
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from ipttctl.bpf.filters import compile_filter
from ipttctl.events.records import EventRecord
from ipttctl.families import NfFamily
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttproto import EventFlag, Kind, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.journeys import following
from tests.kernel.support.kernel import loaded_modules, redirected_functions, run, wait_for
from tests.kernel.support.network import Namespace, Network, namespace
from tests.kernel.support.observing import records_of

KNOWN = (Kind.KNOWN, Kind.CHAIN_KNOWN)
ENDS = (Kind.EXIT, Kind.CHAIN_EXIT)
ALL = (Slot.ENTRY, Slot.RULE, Slot.EXIT)
PREROUTING, INPUT, OUTPUT, POSTROUTING = 0, 1, 3, 4
ICMP, TCP, UDP = socket.IPPROTO_ICMP, socket.IPPROTO_TCP, socket.IPPROTO_UDP
NFT_CONTINUE = -1

Attach = Callable[..., Link]


@pytest.fixture
def attach(controller: Controller, make_program: MakeProgram) -> Attach:
    """Attach at chains of a namespace, in which the walk is tried."""

    def at(
        where: Namespace,
        code: bytes | None = None,
        *slots: Slot,
        entry: bytes | None = None,
        family: NfFamily | None = None,
        bytecode: bytes | None = None,
    ) -> Link:
        fds = dict.fromkeys(slots or ALL, make_program(code).fd)
        if entry is not None:
            fds[Slot.ENTRY] = make_program(entry).fd
        with where.path.open("rb") as opened:
            controller.try_walk(opened.fileno())
            hook: Hook = ChainHook(family, netns=opened.fileno())
            return controller.attach(hook, ProgramSet(fds, bytecode))

    return at


def watched(controller: Controller, where: Namespace) -> AbstractContextManager[list[EventRecord]]:
    """Collect the events of a namespace that happen meanwhile."""
    return records_of(controller, lambda event: event.netns == where.inode)


def nft(where: Namespace, text: str) -> None:
    run("ip", "netns", "exec", where.name, "nft", "-f", "-", text=text)


def known(seen: list[EventRecord], protocol: int = UDP) -> list[tuple[int, str]]:
    """The hook and the chain of each event of a chain that is not consulted."""
    return [
        (event.hook, event.chain.decode())
        for event in seen
        if event.kind in KNOWN and event.protocol == protocol
    ]


def consulted(seen: list[EventRecord], protocol: int = UDP) -> list[tuple[int, str]]:
    """The hook and the chain of each passage through a table or base chain of NAT."""
    return [
        (event.hook, event.chain.decode())
        for event in seen
        if event.kind in ENDS and event.table == b"nat" and event.protocol == protocol
    ]


# --- traffic ----------------------------------------------------------------------------------


def answer_udp(port: int) -> None:
    """Send back every datagram that comes to a port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("", port))
        while True:
            data, sender = server.recvfrom(64)
            server.sendto(data, sender)


def ask_udp(address: str, port: int, rounds: int, source_port: int) -> None:
    """Send datagrams of one connection, and wait for the answer to each."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("", source_port))
        client.connect((address, port))
        client.settimeout(10)
        for number in range(rounds):
            client.send(b"%d" % number)
            assert client.recv(64) == b"%d" % number


def answer_tcp(port: int) -> None:
    """Send back what comes over a connection."""
    with socket.create_server(("", port)) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(64):
                    connection.sendall(data)


def ask_tcp(address: str, port: int, rounds: int) -> None:
    with socket.create_connection((address, port), timeout=10) as client:
        for number in range(rounds):
            client.sendall(b"%d" % number)
            assert client.recv(64) == b"%d" % number


def listening(where: Namespace, option: str, port: int) -> bool:
    return f":{port} " in where.run("ss", "-Hln", option)


@contextmanager
def answering(where: Namespace, *ports: int) -> Iterator[None]:
    """Answer at UDP ports, and at the same ports of TCP."""
    servers: list[BaseProcess] = []
    try:
        for port in ports:
            servers += [where.start(answer_udp, port), where.start(answer_tcp, port)]
            for option in ("-u", "-t"):
                wait_for(partial(listening, where, option, port), what="the server")
        yield
    finally:
        for server in servers:
            server.kill()
            server.join()


# --- what is told -----------------------------------------------------------------------------

#: without a rule that needs connection tracking there is none, and no NAT
TRACKED = """
table inet tracked {
    chain every { type filter hook forward priority 0; ct state invalid counter; }
}
"""
#: judge says what connection tracking knows of a packet, before NAT at the same hook
JUDGE = """
table ip judge {
    counter new {}
    counter old {}
    chain pre {
        type filter hook prerouting priority -150;
        meta l4proto { tcp, udp } ct state established counter name old accept
        meta l4proto { tcp, udp } ct state new counter name new
    }
    chain post {
        type filter hook postrouting priority 50;
        meta l4proto { tcp, udp } ct state established counter name old accept
        meta l4proto { tcp, udp } ct state new counter name new
    }
}
"""
NFT = """
table ip nat {
    chain early { type nat hook prerouting priority -101; counter; }
    chain pre {
        type nat hook prerouting priority -100;
        meta l4proto { tcp, udp } th dport 53 dnat to 10.77.2.2:5353
    }
    chain in { type nat hook input priority 100; }
    chain out { type nat hook output priority -100; }
    chain post {
        type nat hook postrouting priority 100;
        udp dport 54 accept
        ip daddr 10.77.2.2 masquerade
    }
}
"""
#: UDP port and first source port of each connection: both addresses are rewritten, one, none
CONNECTIONS = ((53, 4000), (5353, 4001), (54, 4002))
ROUNDS = 3


def converse(net: Network) -> None:
    """Have some connections through the router, each with several packets both ways."""
    with answering(net.right, 5353, 54):
        for port, source_port in CONNECTIONS:
            address = net.router_address if port == 53 else net.right_address
            net.left.call(ask_udp, address, port, ROUNDS, source_port)
        net.left.call(ask_tcp, net.router_address, 53, ROUNDS)


def judged(where: Namespace, counter: str) -> int:
    words = where.run("nft", "list", "counter", "ip", "judge", counter).split()
    return int(words[words.index("packets") + 1])


def assert_told(
    seen: list[EventRecord], where: Namespace, chains: dict[int, list[str]], *, legacy: bool = False
) -> None:
    """Each chain of NAT is told of once for each packet that the judge finds established.

    ``chains`` are those at each hook. For any other packet they are consulted. The judge's own
    events come before them in the order of the CPU.
    """
    told = known(seen, UDP) + known(seen, TCP)
    asked = consulted(seen, UDP) + consulted(seen, TCP)
    established = 0
    for hook, names in chains.items():
        old = [event for event in told if event[0] == hook]
        assert {name for _, name in old} == set(names)
        assert len({old.count((hook, name)) for name in names}) == 1
        established += old.count((hook, names[0]))
    assert {hook for hook, _ in told} == set(chains)
    assert established == judged(where, "old") > 2 * ROUNDS * len(CONNECTIONS)
    new = [event for event in asked if event[1] in {names[0] for names in chains.values()}]
    assert len(new) == judged(where, "new") == 2 * (len(CONNECTIONS) + 1)
    if legacy:
        return
    is_old: dict[int, bool] = {}
    for event in sorted(seen, key=lambda event: (event.cpu, event.sequence)):
        if event.table == b"judge":
            if event.kind == Kind.CHAIN_RULE:
                is_old[event.hook] = event.rulenum == 1
        elif event.table == b"nat" and event.protocol in {TCP, UDP}:
            assert (event.kind in KNOWN) == is_old[event.hook], event


def test_chains_of_nft(net: Network, controller: Controller, attach: Attach) -> None:
    nft(net.router, JUDGE + NFT)
    link = attach(net.router)
    with watched(controller, net.router) as seen:
        converse(net)
    chains = {PREROUTING: ["early", "pre"], POSTROUTING: ["post"]}
    assert_told(seen, net.router, chains)
    order = [event.chain for event in seen if event.kind in KNOWN and event.hook == PREROUTING]
    assert order[::2] == [b"early"] * (len(order) // 2)
    first = [e for e in seen if e.table == b"nat" and e.sport == 4000][:5]
    assert [(event.chain, event.kind) for event in first] == [
        (b"early", Kind.CHAIN_RULE),
        (b"early", Kind.CHAIN_POLICY),
        (b"early", Kind.CHAIN_EXIT),
        (b"pre", Kind.CHAIN_RULE),
        (b"pre", Kind.CHAIN_EXIT),
    ]
    event = next(event for event in seen if event.kind == Kind.CHAIN_KNOWN)
    assert (event.family, event.pf, event.table) == (NfFamily.IPV4, NfFamily.IPV4, b"nat")
    assert (event.rulenum, event.rule_handle, event.rules, event.target) == (0, 0, 0, b"")
    assert event.table_handle == first[0].table_handle
    assert event.chain_handle == first[0].chain_handle
    assert event.ruleset == first[0].ruleset
    assert not event.flags & EventFlag.UNCERTAIN
    # such a packet does not pass the chain
    stats = controller.link(link.id).stats
    assert stats.packets == stats.selected == sum(event.kind in ENDS for event in seen)
    assert stats.events == len(seen)


def test_chains_of_iptables_nft(net: Network, controller: Controller, attach: Attach) -> None:
    nft(net.router, JUDGE)
    nat = ("-t", "nat")
    net.router.iptables_nft(
        *nat, "-A", "PREROUTING", "-p", "udp", "--dport", "53", "-j", "DNAT",
        "--to", f"{net.right_address}:5353",
    )  # fmt: skip  # options with their values
    net.router.iptables_nft(
        *nat, "-A", "PREROUTING", "-p", "tcp", "--dport", "53", "-j", "DNAT",
        "--to", f"{net.right_address}:5353",
    )  # fmt: skip  # options with their values
    net.router.iptables_nft(*nat, "-A", "POSTROUTING", "-o", "r2", "-j", "MASQUERADE")
    attach(net.router)
    with watched(controller, net.router) as seen:
        converse(net)
    assert_told(seen, net.router, {PREROUTING: ["PREROUTING"], POSTROUTING: ["POSTROUTING"]})


@pytest.mark.usefixtures("no_links")
def test_tables_of_iptables_legacy(
    net: Network, controller: Controller, make_program: MakeProgram
) -> None:
    nft(net.router, JUDGE)
    rules = [
        f"-A PREROUTING -p {protocol} --dport 53 -j DNAT --to {net.right_address}:5353"
        for protocol in ("udp", "tcp")
    ]
    net.router.restore(
        "\n".join(["*nat", *rules, "-A POSTROUTING -o r2 -j MASQUERADE", "COMMIT", ""])
    )
    fd = make_program().fd
    link = controller.attach(TableHook(), ProgramSet(dict.fromkeys(ALL, fd)))
    with watched(controller, net.router) as seen:
        converse(net)
    assert {event.table for event in seen} == {b"nat"}
    chains = {PREROUTING: ["PREROUTING"], POSTROUTING: ["POSTROUTING"]}
    assert_told(seen, net.router, chains, legacy=True)
    event = next(event for event in seen if event.kind == Kind.KNOWN)
    assert (event.rulenum, event.family, event.pf) == (0, 0, NfFamily.IPV4)
    assert not event.flags & (EventFlag.COUNTED | EventFlag.FOREIGN)
    stats = controller.link(link.id).stats
    assert stats.selected == sum(event.kind in ENDS for event in seen)
    assert stats.events == len(seen)


def test_both_back_ends_at_a_hook(
    net: Network, controller: Controller, attach: Attach, make_program: MakeProgram
) -> None:
    """From the second packet on there is an event for both, whichever bound the connection."""
    nft(
        net.router,
        TRACKED + "table inet nat { chain pre { type nat hook prerouting priority -101; }; }",
    )
    net.router.iptables("-t", "nat", "-A", "PREROUTING", "-p", "udp", "-j", "ACCEPT")
    attach(net.router)
    fd = make_program().fd
    controller.attach(TableHook(), ProgramSet(dict.fromkeys(ALL, fd)))
    with answering(net.right, 54), watched(controller, net.router) as seen:
        net.left.call(ask_udp, net.right_address, 54, 1, 4000)
    at = [event for event in seen if event.hook == PREROUTING and event.protocol == UDP]
    assert [(event.kind, event.family) for event in at] == [
        (Kind.CHAIN_POLICY, NfFamily.INET),
        (Kind.CHAIN_EXIT, NfFamily.INET),
        (Kind.RULE, 0),
        (Kind.EXIT, 0),
        (Kind.CHAIN_KNOWN, NfFamily.INET),
        (Kind.KNOWN, 0),
    ]


def test_what_a_journey_follows_is_not_counted_there(
    net: Network, controller: Controller, make_program: MakeProgram
) -> None:
    """Such a packet does not pass the chain or table: it is not selected there either."""
    nft(net.router, TRACKED + NFT)
    net.router.iptables("-t", "nat", "-A", "PREROUTING", "-p", "udp", "-j", "ACCEPT")
    with following(controller, make_program, None) as journey, answering(net.right, 54):
        net.left.call(ask_udp, net.right_address, 54, 3, 4000)
        for link in controller.links():
            if isinstance(link.hook, ChainHook | TableHook):
                assert 0 < link.stats.selected <= link.stats.packets, link.hook
    of = [event for event in journey.events if event.netns == net.router.inode]
    assert {*KNOWN} <= {event.kind for event in of}


# --- packets of other kinds -------------------------------------------------------------------

ALL_HOOKS = (
    TRACKED
    + """
table inet nat {
    chain pre { type nat hook prerouting priority -100; }
    chain in { type nat hook input priority 100; }
    chain out { type nat hook output priority -100; }
    chain post { type nat hook postrouting priority 100; }
}
"""
)


def send(address: str, port: int, times: int = 1) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.bind(("", 4000))
        for _ in range(times):
            # the ICMP error of the one before
            with suppress(ConnectionRefusedError):
                sender.sendto(b"x", (address, port))


def test_a_packet_that_is_looped_back(controller: Controller, attach: Attach) -> None:
    """It comes in with the connection that it went out with, of which all is known."""
    with namespace("place") as place:
        nft(place, ALL_HOOKS)
        attach(place)
        with watched(controller, place) as seen:
            for address in ("127.0.0.1", "::1"):
                place.call(send, address, 9)
        for pf in (NfFamily.IPV4, NfFamily.IPV6):
            of = [event for event in seen if event.pf == pf]
            assert consulted(of) == [(OUTPUT, "out"), (POSTROUTING, "post")]
            assert known(of) == [(PREROUTING, "pre"), (INPUT, "in")]
            # an ICMP error is translated as its connection is, and asks nobody
            assert {event.protocol for event in of if event.table == b"nat"} == {UDP}


def test_further_packets_of_a_new_connection(
    net: Network, controller: Controller, attach: Attach
) -> None:
    """Nobody has answered: it stays new, and is known."""
    nft(net.router, ALL_HOOKS)
    nft(net.right, "table ip t { chain c { type filter hook input priority 0; drop; }; }")
    attach(net.router)
    with watched(controller, net.router) as seen:
        net.left.call(send, net.right_address, 9, 3)
    passage = [(PREROUTING, "pre"), (POSTROUTING, "post")]
    assert consulted(seen) == passage
    assert known(seen) == passage * 2


def test_errors_and_untracked_packets(net: Network, controller: Controller, attach: Attach) -> None:
    nft(
        net.router,
        ALL_HOOKS
        + """table ip raw { chain p {
            type filter hook prerouting priority -300;
            udp sport 4001 notrack ; udp dport 4001 notrack
        }; }""",
    )
    attach(net.router)
    with watched(controller, net.router) as seen, answering(net.right, 54):
        # a related ICMP error comes back
        net.left.call(send, net.right_address, 9)
        net.left.call(ask_udp, net.right_address, 54, 2, 4001)
        net.left.ping(net.right_address)
    in_nat = [event for event in seen if event.table == b"nat"]
    passage = [(PREROUTING, "pre"), (POSTROUTING, "post")]
    assert consulted(in_nat) == passage
    assert known(in_nat) == []
    assert {event.sport for event in in_nat if event.protocol == UDP} == {4000}
    # of ICMP, the ping alone
    assert consulted(in_nat, ICMP) == known(in_nat, ICMP) == passage


# --- programs ---------------------------------------------------------------------------------


def test_links_are_told_as_they_choose(
    net: Network, controller: Controller, attach: Attach
) -> None:
    nft(net.router, ALL_HOOKS)
    # a program knows such a packet by its arguments: no number, no handle, no decision
    marks = [("cx", 0), ("r8", 0), ("r9", NFT_CONTINUE)]
    code = b""
    for i, (register, value) in enumerate(marks):
        code += asm.load_reg(asm.R2, register)
        code += asm.jump_unless_equal(asm.R2, value, 2 * (len(marks) - i))
    code += asm.returning(1) + asm.returning(0)
    telling = attach(net.router, code, Slot.RULE)
    passes_over = attach(net.router, entry=asm.returning(0))
    filtered = attach(net.router, bytecode=compile_filter("udp port 9"))
    other_family = attach(net.router, family=NfFamily.IPV4)
    without_rules = attach(net.router, None, Slot.ENTRY, Slot.EXIT)
    with watched(controller, net.router) as seen, answering(net.right, 54):
        net.left.call(ask_udp, net.right_address, 54, 2, 4000)
    passage = [(PREROUTING, "pre"), (POSTROUTING, "post")]
    of = [event for event in seen if event.link == telling.id]
    assert known(of) == passage * 3
    assert len(of) == 6
    for link in (passes_over, filtered, other_family, without_rules):
        assert not known([event for event in seen if event.link == link.id]), link
    assert consulted([event for event in seen if event.link == without_rules.id]) == passage


@pytest.mark.usefixtures("no_links")
def test_arguments_at_legacy_tables(
    net: Network, controller: Controller, make_program: MakeProgram
) -> None:
    """The comment in the place of "rule" is "known", and the number 0."""
    nft(net.router, TRACKED)
    net.router.iptables("-t", "nat", "-A", "PREROUTING", "-p", "udp", "-j", "ACCEPT")
    comment = asm.read_stack(5) + asm.mov_reg(asm.R3, asm.R0) + asm.read_at_r3()
    word = int.from_bytes(b"known", "little")
    mask = asm.load_wide(asm.R2, (1 << 40) - 1) + asm.instruction(0x5F, asm.R0, asm.R2)
    wanted = asm.load_wide(asm.R2, word) + asm.instruction(0x5D, asm.R0, asm.R2, 2)
    code = comment + mask + wanted + asm.returning(1) + asm.returning(0)
    fd = make_program(code).fd
    link = controller.attach(TableHook(), ProgramSet({Slot.RULE: fd}))
    with watched(controller, net.router) as seen, answering(net.right, 54):
        net.left.call(ask_udp, net.right_address, 54, 1, 4000)
    passage = [(PREROUTING, "PREROUTING"), (POSTROUTING, "POSTROUTING")]
    assert known(seen) == passage
    assert len(seen) == 2
    assert controller.link(link.id).stats.events == 2


# --- nf_nat comes and goes --------------------------------------------------------------------


def redirected() -> bool:
    return any(line.startswith("nf_nat_inet_fn ") for line in redirected_functions())


def test_nf_nat_comes_and_goes(controller: Controller, attach: Attach) -> None:
    with namespace("place") as place:
        nft(place, "table ip t { chain c { type filter hook output priority 0; }; }")
        wait_for(lambda: _removed("nf_nat"), timeout=60, what="nf_nat is unloaded")
        attach(place)
        assert not redirected()
        # the second connection is another: conntrack keeps the first
        for port in (9, 10):
            nft(place, ALL_HOOKS)
            assert redirected()
            with watched(controller, place) as seen:
                place.call(send, "127.0.0.1", port)
            assert known(seen) == [(PREROUTING, "pre"), (INPUT, "in")]
            nft(place, "delete table inet nat; delete table inet tracked")
            wait_for(lambda: _removed("nf_nat"), timeout=60, what="nf_nat is unloaded")
            assert not redirected()


def _removed(module: str) -> bool:
    """Unload a module, the ones that use it first; they may be in use for a moment."""
    holders = Path("/sys/module") / module / "holders"
    for user in sorted(holders.iterdir()) if holders.exists() else ():
        _removed(user.name)
    if module in loaded_modules():
        run("rmmod", module, check=False)
    return module not in loaded_modules()
