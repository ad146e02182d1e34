# SPDX-License-Identifier: GPL-2.0
"""Rulesets of nftables, committed while packets pass through them."""

from __future__ import annotations

import random

from tests.kernel.support.kernel import run
from tests.kernel.support.network import Namespace
from tests.storm.actor import Actor
from tests.storm.journal import Journal
from tests.storm.shared import Shared

_TABLE = "storm"
#: seconds that nft may take on a slow machine
_PATIENCE = 600
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_RULES = (
    "counter",
    "udp dport 9 counter",
    "meta mark 1 counter return",
    "meta l4proto { tcp, udp } counter",
    "ip daddr 10.77.0.0/16 counter jump a",
    "ip6 daddr fd77::/16 counter goto b",
    "meta l4proto vmap { udp : jump b, tcp : return }",
    "ip saddr @seen counter",
    "update @seen { ip saddr timeout 1m } counter",
    "ct state new counter",
    # pings only: tables of iptables would log each packet that carries the mark
    "icmp type echo-request meta nftrace set 1",
    "counter accept",
)


def random_chains(decide: random.Random) -> str:
    """A table of both IP versions, replaced as a whole; every packet gets through."""

    def some(rules: tuple[str, ...]) -> list[str]:
        return [decide.choice(rules) for _ in range(decide.randrange(1, 12))]

    plain = tuple(rule for rule in _RULES if "jump" not in rule and "goto" not in rule)
    lines = [
        f"table inet {_TABLE}",
        f"delete table inet {_TABLE}",
        f"table inet {_TABLE} {{",
        "set seen {",
        "type ipv4_addr; size 100; flags dynamic,timeout;",
        "}",
    ]
    for name in ("b", "a"):
        lines += [f"chain {name} {{", *some(plain), "}"]
    for hook in decide.sample(_HOOKS, decide.randrange(1, len(_HOOKS) + 1)):
        priority = decide.randrange(-50, 50)
        lines += [f"chain at_{hook} {{", f"type filter hook {hook} priority {priority}"]
        lines += [*some(_RULES), "}"]
    return "\n".join([*lines, "}", ""])


class ChainsActor(Actor):
    """Replaces a table of nftables in the permanent namespaces."""

    def __init__(
        self, name: str, seed: str, journal: Journal, shared: Shared, where: tuple[Namespace, ...]
    ) -> None:
        super().__init__(name, seed, journal, shared)
        self._where = where

    def act(self) -> None:
        """Commit the table of one namespace."""
        namespace = self.random.choice(self._where)
        chains = random_chains(self.random)
        command = ("ip", "netns", "exec", namespace.name, "nft", "-f", "-")
        run(*command, text=chains, timeout=_PATIENCE)
        self.journal.write("commit", namespace.name)
        self.pause(0, 0.4)
