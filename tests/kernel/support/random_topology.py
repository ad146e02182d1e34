# SPDX-License-Identifier: GPL-2.0
"""Random topologies: a row of namespaces, links of several kinds between them, and random rules.

    client --- router --- ... --- router --- server

Each link has a network of its own, whose host 1 is on the client's side and host 2 on the server's.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tests.kernel.support.network import Namespace, ip_batch, namespace
from tests.kernel.support.topologies import nft, set_up

LINKS: Final = ("veth", "bridge", "macvlan", "ipip", "gre")
VRF: Final = "vrf1"
TABLE: Final = "rules"
PACKETS: Final = 6
PORTS: Final = tuple(range(1000, 1000 + PACKETS))
OTHER_PORTS: Final = tuple(range(2000, 2000 + PACKETS))

#: table and chain of iptables-legacy, and chain of nftables
_AT: Final = {
    "mark": ("mangle", "PREROUTING"),
    "dnat": ("nat", "PREROUTING"),
    "accept": ("filter", "FORWARD"),
    "drop": ("filter", "FORWARD"),
    "snat": ("nat", "POSTROUTING"),
}
_CHAINS: Final = {
    ("mangle", "PREROUTING"): "type filter hook prerouting priority mangle;",
    ("nat", "PREROUTING"): "type nat hook prerouting priority dstnat;",
    ("filter", "FORWARD"): "type filter hook forward priority filter;",
    ("nat", "POSTROUTING"): "type nat hook postrouting priority srcnat;",
}
#: so that a hook tells of each packet by which device it came in
WATCH: Final = "watch"
_WATCHING: Final = (
    f"table ip {WATCH} {{ chain pre {{ type filter hook prerouting priority 100; counter; }}; }}"
)


class RulePlace(NamedTuple):
    """A rule by its place, as events name it."""

    netns: int
    table: str
    chain: str
    number: int


@dataclass(frozen=True)
class Rule:
    """A rule for the datagrams to a port; ``value`` is a mark, port or address."""

    action: str
    port: int
    value: str = ""

    def legacy(self) -> str:
        """The rule behind ``-A CHAIN``."""
        target = {
            "mark": f"MARK --set-mark {self.value}",
            "dnat": f"DNAT --to-destination :{self.value}",
            "snat": f"SNAT --to-source {self.value}",
        }.get(self.action, self.action.upper())
        return f"-p udp --dport {self.port} -j {target}"

    def nft(self) -> str:
        """The rule of nftables."""
        statement = {
            "mark": f"meta mark set {self.value}",
            "dnat": f"dnat to :{self.value}",
            "snat": f"snat to {self.value}",
        }.get(self.action, self.action)
        return f"udp dport {self.port} counter {statement}"


@dataclass(frozen=True)
class Router:
    """A namespace that forwards: whether its devices are in a VRF, and its rules."""

    vrf: bool
    legacy: bool
    rules: tuple[Rule, ...]

    def at(self) -> dict[tuple[str, str], list[Rule]]:
        """The rules by table and chain, in their order."""
        found: defaultdict[tuple[str, str], list[Rule]] = defaultdict(list)
        for rule in self.rules:
            found[_AT[rule.action]].append(rule)
        return found


@dataclass(frozen=True)
class Plan:
    """A topology: the links from client to server, and the routers between them."""

    links: tuple[str, ...]
    routers: tuple[Router, ...]


def plan(seed: int, number: int) -> Plan:
    """The plan of a number."""
    made = random.Random(f"{seed}/{number}")
    routers = made.randint(1, 3)
    # a few topologies have a link of each kind
    others = (made.choice(LINKS) for _ in range(routers))
    links = (LINKS[number % len(LINKS)], *others)
    return Plan(links, tuple(_router(made, at) for at in range(routers)))


def _router(made: random.Random, at: int) -> Router:
    rules = []
    for _ in range(made.randint(3, 8)):
        action = made.choice(tuple(_AT))
        # most rules are met: packets have the others from rules alone
        port = made.choice((*PORTS, *PORTS, *OTHER_PORTS))
        value = {
            "mark": str(made.randint(1, 250)),
            "dnat": str(made.choice(OTHER_PORTS)),
            "snat": address(at + 1, 1),
        }.get(action, "")
        rules.append(Rule(action, port, value))
    return Router(made.random() < 0.3, made.random() < 0.5, tuple(rules))


def address(link: int, host: int) -> str:
    """The address of an end of a link."""
    return f"10.{60 + link}.0.{host}"


@dataclass
class Row:
    """The namespaces of a topology."""

    plan: Plan
    namespaces: list[Namespace] = field(default_factory=list)

    @property
    def client(self) -> Namespace:
        """The first namespace."""
        return self.namespaces[0]

    @property
    def server(self) -> Namespace:
        """The last namespace."""
        return self.namespaces[-1]

    @property
    def server_address(self) -> str:
        """The address of the server."""
        return address(len(self.plan.links) - 1, 2)

    def load_rules(self) -> None:
        """Load the routers' rules."""
        for where, router in self._routers():
            chains = router.at()
            if router.legacy:
                tables: defaultdict[str, list[str]] = defaultdict(list)
                for (table, chain), rules in chains.items():
                    tables[table] += [f"-A {chain} {rule.legacy()}" for rule in rules]
                where.restore(
                    "".join(
                        "\n".join([f"*{table}", *lines, "COMMIT", ""])
                        for table, lines in tables.items()
                    )
                )
            else:
                text = "\n".join(
                    f"chain {'_'.join(at).lower()} {{ {_CHAINS[at]}\n"
                    + "\n".join(rule.nft() for rule in rules)
                    + "\n}"
                    for at, rules in chains.items()
                )
                nft(where, f"table ip {TABLE} {{\n{text}\n}}")

    def counted(self) -> Counter[RulePlace]:
        """The packets that each rule has counted."""
        found: Counter[RulePlace] = Counter()
        for where, router in self._routers():
            found.update(_legacy_counts(where) if router.legacy else _nft_counts(where))
        return +found

    def rule(self, place: RulePlace) -> Rule:
        """The rule at a place."""
        [router] = [router for where, router in self._routers() if where.inode == place.netns]
        for (table, chain), rules in router.at().items():
            named = (table, chain) if router.legacy else (TABLE, f"{table}_{chain}".lower())
            if named == (place.table, place.chain):
                return rules[place.number - 1]
        raise LookupError(place)

    def _routers(self) -> Iterator[tuple[Namespace, Router]]:
        return zip(self.namespaces[1:-1], self.plan.routers, strict=True)


def _legacy_counts(where: Namespace) -> dict[RulePlace, int]:
    found: dict[RulePlace, int] = {}
    numbers: Counter[tuple[str, str]] = Counter()
    table = ""
    for line in where.run("iptables-legacy-save", "-c").splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif rule := re.match(r"\[(\d+):\d+\] -A (\S+)", line):
            numbers[table, rule[2]] += 1
            place = RulePlace(where.inode, table, rule[2], numbers[table, rule[2]])
            found[place] = int(rule[1])
    return found


def _nft_counts(where: Namespace) -> dict[RulePlace, int]:
    found: dict[RulePlace, int] = {}
    numbers: Counter[str] = Counter()
    for one in json.loads(where.run("nft", "-j", "list", "table", "ip", TABLE))["nftables"]:
        if "rule" in one:
            chain = one["rule"]["chain"]
            numbers[chain] += 1
            [packets] = [e["counter"]["packets"] for e in one["rule"]["expr"] if "counter" in e]
            found[RulePlace(where.inode, TABLE, chain, numbers[chain])] = packets
    return found


# --- links ----------------------------------------------------------------------------------------


def _end(kind: str, link: int, host: int, vrf: bool) -> tuple[list[str], str]:
    """The commands that make an end of a link out of its veth, and the device with the address."""
    cable, name, far = f"c{link}", f"d{link}", 3 - host
    commands: list[str] = []
    match kind:
        case "bridge":
            commands = [f"link add {name} type bridge", f"link set {cable} master {name}"]
        case "macvlan" if host == 2:
            commands = [f"link add link {cable} name {name} type macvlan mode bridge"]
        case "ipip" | "gre":
            ends = [f"10.{160 + link}.0.{number}" for number in (host, far)]
            commands = [f"link add {name} type {kind} local {ends[0]} remote {ends[1]}"]
            commands += [f"address add {ends[0]}/24 dev {cable}"]
        case _:
            name = cable
    commands += set_up(cable)
    if vrf:
        commands.append(f"link set {name} master {VRF}")
    return [*commands, *set_up(name, f"{address(link, host)}/24")], name


@contextmanager
def row(planned: Plan) -> Iterator[Row]:
    """The namespaces of a plan, with links and routes, and rules that only count."""
    made = Row(planned)
    links = len(planned.links)
    with ExitStack() as stack:
        for number in range(links + 1):
            made.namespaces.append(stack.enter_context(namespace(f"row{number}")))
        for number, where in enumerate(made.namespaces):
            ip_batch(where.name, *_commands(planned, made.namespaces, number))
            where.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
            if number:
                nft(where, _WATCHING)
        yield made


def _commands(planned: Plan, namespaces: Sequence[Namespace], number: int) -> list[str]:
    """The commands that set a namespace up; the cable to the next one is made here."""
    last = len(planned.links)
    vrf = 0 < number < last and planned.routers[number - 1].vrf
    commands = [f"link add {VRF} type vrf table 100", f"link set {VRF} up"] if vrf else []
    table = f" vrf {VRF}" if vrf else ""
    if number:
        commands += _end(planned.links[number - 1], number - 1, 2, vrf)[0]
    if number < last:
        following = namespaces[number + 1].name
        commands.append(f"link add c{number} type veth peer name c{number} netns {following}")
        commands += _end(planned.links[number], number, 1, vrf)[0]
        commands.append(f"route add default via {address(number, 2)}{table}")
    for link in range(number - 1):
        commands.append(f"route add 10.{60 + link}.0.0/24 via {address(number - 1, 1)}{table}")
    return commands
