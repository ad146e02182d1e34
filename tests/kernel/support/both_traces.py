# SPDX-License-Identifier: GPL-2.0
"""The same packets as `ipttctl trace` shows them, and as nftables' own trace does.

The packets are IPv4 SYNs: one for each connection that a test tries, known by its source port.
"""

from __future__ import annotations

import json
import re
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, NamedTuple

from ipttctl.families import NFT_FAMILIES
from ipttctl.verify.netlink import TRACE_GROUP, Netlink, SubsystemMessage, attributes, text
from tests.kernel.support.box import PATIENCE, Box
from tests.kernel.support.cli import Running, trace_command
from tests.kernel.support.kernel import COMMAND_TIMEOUT, run, settled, wait_for
from tests.kernel.support.network import Namespace, event
from tests.kernel.tools.packets import Packet

#: the first chains that packets of the namespace meet
_TABLE: Final = "watch"
_MARK: Final = f"""table inet {_TABLE} {{
    chain received {{
        type filter hook prerouting priority -500
        meta nfproto ipv4 tcp flags & (syn | ack) == syn meta nftrace set 1
    }}
    chain sent {{
        type filter hook output priority -500
        meta nfproto ipv4 tcp flags & (syn | ack) == syn meta nftrace set 1
    }}
}}"""
#: the same packets for `ipttctl trace`
SYN: Final = "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn"
#: of names, events carry no more
_NAME: Final = 31
_VERDICTS: Final = {
    0xFFFFFFFF: "continue",
    0xFFFFFFFD: "jump",
    0xFFFFFFFC: "goto",
    0xFFFFFFFB: "return",
    0: "drop",
    1: "accept",
    2: "stolen",
    3: "queue",
}
# attributes of nf_tables' trace messages
_TRACE_TABLE, _TRACE_CHAIN, _TRACE_RULE, _TRACE_VERDICT, _TRACE_ID = 1, 2, 3, 5, 6
_TRACE_TRANSPORT, _TRACE_POLICY = 9, 16
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2

_FIRST_PORT: Final = 5001
#: the page of containers that are made for a test
PAGE: Final = b"a page"

Event = dict[str, Any]
#: tries a connection from a source port
Attempt = Callable[[int], None]


class Step(NamedTuple):
    """A rule that matched, or the end of a chain."""

    place: str
    handle: int
    decision: str
    target: str


def _told_by_kernel(values: dict[int, bytes], family: int) -> Step:
    table, chain = (text(values[name])[:_NAME] for name in (_TRACE_TABLE, _TRACE_CHAIN))
    place = f"{NFT_FAMILIES[family]} {table} {chain}"
    if _TRACE_POLICY in values:
        return Step(place, 0, f"policy {_VERDICTS[int.from_bytes(values[_TRACE_POLICY])]}", "")
    if _TRACE_RULE not in values:
        return Step(place, 0, "return", "")
    verdict = dict(attributes(values[_TRACE_VERDICT]))
    decision = _VERDICTS[int.from_bytes(verdict[_VERDICT_CODE])]
    target = text(verdict.get(_VERDICT_CHAIN, b""))[:_NAME]
    return Step(place, int.from_bytes(values[_TRACE_RULE]), decision, target)


def _told_by_event(event: Event) -> Step:
    place = f"{event['table_family']} {event['table']} {event['chain']}"
    if event["kind"] == "chain_policy":
        return Step(place, 0, f"policy {event['decision']}", "")
    handle = event["rule_handle"] if event["kind"] == "chain_rule" else 0
    return Step(place, handle, event["decision"], event.get("target") or "")


class Watch:
    """Both traces of a namespace."""

    def __init__(self, box: Box, trace: Running, kernel: Netlink) -> None:
        self._box, self._trace, self._kernel = box, trace, kernel
        self._messages: list[SubsystemMessage] = []
        self._ports = count(_FIRST_PORT)

    def sends(self, *attempts: Attempt) -> list[int]:
        """Send packets whose rules are all listed; returns their source ports.

        Chains are listed when a packet has been there, so the same packets are sent before.
        """
        wait_for(lambda: self._are_listed(attempts), PATIENCE, "the texts of all rules")
        return self._send(attempts)

    def _are_listed(self, attempts: Sequence[Attempt]) -> bool:
        ports = self._send(attempts)
        return all(e["rule"] for port in ports for e in self.rules(port))

    def _send(self, attempts: Sequence[Attempt]) -> list[int]:
        ports = [next(self._ports) for _ in attempts]
        for attempt, port in zip(attempts, ports, strict=True):
            attempt(port)
        return ports

    def mark(self) -> None:
        """Switch the kernel's trace on, again if somebody has flushed the ruleset."""
        run("ip", "netns", "exec", self._box.net.name, "nft", "-f", "-", text=_MARK)

    def events(self, port: int) -> list[Event]:
        """The events of the connections from a source port, in order, once all are there."""

        def sent() -> list[Event]:
            return [e for e in self._all() if e.get("source_port") == port]

        wait_for(sent, timeout=COMMAND_TIMEOUT, what=f"events of port {port}")
        settled(lambda: len(self._trace.out()))
        return sent()

    def rules(self, port: int) -> list[Event]:
        """The events of rules of a connection, but for those that switch the kernel's trace on."""
        return [e for e in self.events(port) if e["kind"] == "chain_rule" and e["table"] != _TABLE]

    def check(self, port: int) -> None:
        """Compare what both say of a connection, and every text with the ruleset's own.

        The namespace's rules must be as they were.
        """
        self._messages += self._kernel.received()
        ours = [_told_by_event(e) for e in self.events(port) if e["kind"] != "chain_exit"]
        assert ours == self._kernels(port)
        lines = _lines(self._box)
        for met in self.rules(port):
            assert not met["uncertain"]
            line = lines[_key(met)]
            assert met["rule"] == line, f"{met['rule']} ({met['rule_note']}) is {line}"

    def confirm(self, ports: Sequence[int], packets: Sequence[Packet]) -> None:
        """Compare both traces of packets, and what decided each with what is known of it."""
        for port, packet in zip(ports, packets, strict=True):
            self.check(port)
            assert (packet.decided, packet.verdict) in self._decisions(port), packet

    def _decisions(self, port: int) -> list[tuple[str, str]]:
        """The owners and subjects of rules, and the chains whose policies decided."""
        found = []
        for met in self.events(port):
            if met["kind"] == "chain_policy":
                found.append((f"policy of {met['chain']}", met["decision"]))
            elif met["kind"] == "chain_rule":
                owner = f"{met['owner']}: {met['owner_about']}" if met["owner"] else "nobody"
                found.append((owner, met["decision"]))
        return found

    def _all(self) -> list[Event]:
        return self._trace.records()

    def _kernels(self, port: int) -> list[Step]:
        """The kernel's steps of a connection, without the ends of base chains."""
        ports: dict[bytes, int] = {}
        steps: list[Step] = []
        for message in self._messages:
            values = message.attributes
            packet = values[_TRACE_ID]
            # only the first message of a base chain has the packet's headers
            if _TRACE_TRANSPORT in values:
                ports[packet] = int.from_bytes(values[_TRACE_TRANSPORT][:2])
            if ports[packet] != port:
                continue
            step = _told_by_kernel(values, message.family)
            if steps and step.handle == 0 and step.decision.startswith("policy"):
                before = steps[-1]
                if (before.place, before.handle, before.decision) == (step.place, 0, "return"):
                    steps.pop()
            steps.append(step)
        return steps


def _key(event: Event) -> tuple[object, ...]:
    if event["rule_syntax"] == "iptables":
        return event["table_family"], event["table"], event["chain"], event["rulenum"]
    return event["table_family"], event["table"], event["rule_handle"]


def _lines(box: Box) -> dict[tuple[object, ...], str]:
    """The rules as the box's own nft and iptables-save list them.

    Those of iptables are known by their numbers, those of nft by their handles. nft names the
    interfaces that rules compare by their index.
    """
    indexes = {one["ifname"]: one["ifindex"] for one in json.loads(box.run("ip", "-j", "link"))}
    found: dict[tuple[object, ...], str] = {}
    family = table = ""
    for line in box.run("nft", "-s", "-a", "list", "ruleset").splitlines():
        if head := re.match(r"table (\w+) (\S+) \{", line):
            family, table = head.groups()
        elif rule := re.match(r"\t\t(.+) # handle (\d+)$", line):
            found[family, table, int(rule[2])] = re.sub(
                r'\b([io]if (?:!= )?)"(\S+)"', lambda m: f"{m[1]}{indexes[m[2]]}", rule[1]
            )
    for family, tool in (("ip", "iptables-nft-save"), ("ip6", "ip6tables-nft-save")):
        numbers: defaultdict[tuple[str, str], int] = defaultdict(int)
        for line in box.run(tool).splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif rule := re.match(r"-A (\S+)", line):
                numbers[table, rule[1]] += 1
                found[family, table, rule[1], numbers[table, rule[1]]] = line
    return found


@contextmanager
def watched(box: Box, sender: Namespace, address: str) -> Iterator[Watch]:
    """Trace the SYNs of the box's namespace, from when texts of rules are shown.

    ``sender`` can send to ``address``, on its way through the namespace.
    """
    net = box.net
    with (
        net.path.open() as namespace,
        Netlink(namespace.fileno(), TRACE_GROUP) as kernel,
        trace_command("-N", net.name, "--backend", "nft", *SYN.split()) as trace,
    ):
        watch = Watch(box, trace, kernel)
        watch.mark()

        def is_followed() -> bool:
            sender.call(connect, address, 9, 0, None)
            return any(e.get("rule") for e in watch._all())

        # the namespace's rules are read when the first packet comes
        wait_for(is_followed, PATIENCE, "the text of a rule")
        settled(lambda: len(trace.out()))
        yield watch


def connect(address: str, port: int, source_port: int, fate: str | None) -> None:
    """Try a connection; AssertionError if its fate is another one.

    The fate is ``answered``, ``refused`` (RST, or the ICMP error that the port is unreachable),
    ``rejected`` (another ICMP error) or ``silent``.
    """
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("", source_port))
        # less than the second after which a SYN is sent again
        client.settimeout(0.8)
        try:
            client.connect((address, port))
            met = "answered"
        except ConnectionRefusedError:
            met = "refused"
        except TimeoutError:
            met = "silent"
        except OSError:
            met = "rejected"
    assert fate in {None, met}, f"{address}:{port} is {met}, not {fate}"


def fetch(address: str, port: int, source_port: int) -> None:
    """Get ``PAGE`` from a container; AssertionError if something else comes."""
    with socket.socket() as client:
        client.bind(("", source_port))
        client.settimeout(COMMAND_TIMEOUT)
        client.connect((address, port))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with client.makefile("rb") as answer:
            assert PAGE in answer.read()


def trying(sender: Namespace, address: str, port: int, packet: Packet) -> Attempt:
    """A connection that a packet of the table begins."""

    def attempt(source_port: int) -> None:
        if packet.fate == "page":
            sender.call(fetch, address, port, source_port)
        else:
            sender.call(connect, address, port, source_port, packet.fate or None)

    return attempt


def _listen(ports: tuple[int, ...], ready: Any) -> None:
    sockets = [socket.create_server(("", port)) for port in ports]
    ready.set()
    while sockets:
        sockets[0].accept()


@contextmanager
def listening(net: Namespace, *ports: int) -> Iterator[None]:
    """Sockets that take connections in a namespace, on every address of it."""
    ready = event()
    process = net.start(_listen, ports, ready)
    try:
        assert ready.wait(20)
        yield
    finally:
        process.kill()
        process.join()
