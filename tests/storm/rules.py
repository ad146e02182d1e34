# SPDX-License-Identifier: GPL-2.0
"""Rulesets, replaced as a whole while packets traverse them."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence

from tests.kernel.support.network import Namespace
from tests.storm.actor import Actor
from tests.storm.journal import Journal
from tests.storm.shared import FAMILIES, Shared

TABLES = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
#: seconds that a tool may take on a slow machine
_PATIENCE = 600

_MATCHES = ("", "-p udp", "-p udp --dport 9", "-p {icmp}", "-m mark --mark 1", "-p tcp")
_TARGETS = ("", "-j ACCEPT", "-j RETURN", "-j {chain}", "-g {chain}")
_OF_TABLE = {
    "raw": ("-j TRACE", "-j CT --notrack"),
    "mangle": ("-j MARK --set-mark 1", "-j TEE --gateway {gateway}", "-j DROP"),
    "nat": (),
    "filter": ("-j REJECT", "-j DROP"),
    "security": (),
}
_WORDS = {
    4: {"icmp": "icmp", "gateway": "10.77.2.2"},
    6: {"icmp": "icmpv6", "gateway": "fd77:2::2"},
}


def kernel_tables() -> list[str]:
    """The tables that this kernel supports: the small debug kernels lack one."""
    return [
        table
        for table in TABLES
        if subprocess.run(["modprobe", "-nq", f"iptable_{table}"], check=False).returncode == 0
    ]


def flushed(tables: list[str]) -> str:
    """Tables without rules."""
    lines = []
    for table in tables:
        lines += [f"*{table}", *(f":{chain} ACCEPT" for chain in TABLES[table]), "COMMIT"]
    return "\n".join([*lines, ""])


def random_rules(decide: random.Random, family: int, tables: Sequence[str], *, copies: bool) -> str:
    """Rules for one to three of the tables, with user chains; most packets get through.

    ``copies`` allows TEE. The host that receives the copies must not have it: it would copy them
    again.
    """
    lines = []
    for table in decide.sample(tables, decide.randint(1, 3)):
        users = [f"user{number}" for number in range(decide.randint(1, 3))]
        lines += [f"*{table}", *(f":{chain} ACCEPT" for chain in TABLES[table])]
        lines += [f":{chain} -" for chain in users]
        for chain in TABLES[table]:
            for _ in range(decide.randint(0, 3)):
                lines.append(_rule(decide, family, table, chain, users))
        for number, chain in enumerate(users):
            # to later chains only, so that there is no loop
            lines.append(_rule(decide, family, table, chain, users[number + 1 :]))
        lines.append("COMMIT")
    return "\n".join(line for line in [*lines, ""] if copies or " TEE " not in line)


def _rule(decide: random.Random, family: int, table: str, chain: str, chains: list[str]) -> str:
    targets = [t for t in _TARGETS if chains or "{chain}" not in t]
    special = decide.random() < 0.3 and _OF_TABLE[table]
    match = decide.choice(_MATCHES)
    target = decide.choice(special or targets)
    if target in {"-j DROP", "-j REJECT"}:
        match = "-p udp --dport 10"
    elif "TEE" in target:
        # Copies of multicast, such as neighbour discovery, return to the host that makes them, are
        # copied again, and with two such rules overload every processor.
        match = "-p udp --dport 9"
    elif "TRACE" in target:
        # each such packet causes a line in the kernel's log for each rule from there on
        match = "-p {icmp}"
    words = {**_WORDS[family], "chain": decide.choice(chains or [""])}
    return f"-A {chain} {match} {target}".format(**words)


def restore(namespace: Namespace, family: int, rules: str) -> str:
    """Replace tables; return the tool's complaint, empty if it succeeded."""
    tool = {4: "iptables-legacy-restore", 6: "ip6tables-legacy-restore"}[family]
    done = subprocess.run(
        ["ip", "netns", "exec", namespace.name, tool, "-w"],
        input=rules, text=True, capture_output=True, check=False, timeout=_PATIENCE,
    )  # fmt: skip  # plain options together
    return "" if done.returncode == 0 else f"{tool}: {done.stderr.strip()}"


def replace(
    namespace: Namespace, family: int, rules: str, shared: Shared, journal: Journal
) -> bool:
    """Replace tables, unless their code is being unloaded; return whether it was done."""
    unloads = shared.table_unloads(family)
    if shared.closed(family):
        return False
    complaint = restore(namespace, family, rules)
    if not complaint:
        journal.write(f"restore-{family}", namespace.name)
        return True
    unloading = shared.closed(family) or shared.table_unloads(family) != unloads
    assert unloading, f"{namespace.name}: {complaint}\n{rules}"
    journal.write("restore-met-an-unload", complaint)
    return False


class RulesActor(Actor):
    """Replaces rulesets in the permanent namespaces."""

    def __init__(
        self, name: str, seed: str, journal: Journal, shared: Shared, where: tuple[Namespace, ...]
    ) -> None:
        super().__init__(name, seed, journal, shared)
        self._where = where
        self._tables = kernel_tables()

    def act(self) -> None:
        """Replace the rules of one namespace."""
        namespace, family = self.random.choice(self._where), self.random.choice(FAMILIES)
        copies = namespace.name.endswith("router")
        rules = random_rules(self.random, family, self._tables, copies=copies)
        replace(namespace, family, rules, self.shared, self.journal)
        self.pause(0, 0.4)
