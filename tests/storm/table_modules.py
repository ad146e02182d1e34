# SPDX-License-Identifier: GPL-2.0
"""The table code, unloaded and loaded under links and traffic.

A table that holds rules keeps its module. So one IP version's code goes at a time, while the
accountant's rule is in the other's tables: its rules are removed everywhere, nobody may add new
ones, and then the modules are unloaded while packets still traverse the empty tables.
"""

from __future__ import annotations

from tests.kernel.support.kernel import loaded_modules, run
from tests.kernel.support.network import Namespace
from tests.storm.actor import Actor, delete_module
from tests.storm.journal import Journal
from tests.storm.rules import TABLES, flushed, restore
from tests.storm.shared import FAMILIES, Shared

CODE = {4: "ip_tables", 6: "ip6_tables"}
_TABLE_PREFIX = {4: "iptable", 6: "ip6table"}
#: modules of targets that ipttrace also watches
_TARGETS = ("xt_TRACE", "xt_TEE", "nf_dup_ipv4", "nf_dup_ipv6")
#: modules that rules and the storm's tools load, and keep while there are such rules
_HELPERS = (
    "nf_conntrack", "nf_nat", "veth", "xt_mark", "xt_tcpudp", "xt_CT", "xt_comment",
    "ipt_REJECT", "ip6t_REJECT", *_TARGETS,
)  # fmt: skip  # pairs together


def loaded_tables(family: int) -> list[str]:
    """The tables whose modules are loaded."""
    loaded = loaded_modules()
    return [table for table in TABLES if f"{_TABLE_PREFIX[family]}_{table}" in loaded]


def unload_tables(family: int) -> bool:
    """Unload an IP version's table code if nothing holds it; return whether it is gone."""
    for table in loaded_tables(family):
        if not delete_module(f"{_TABLE_PREFIX[family]}_{table}"):
            return False
    return CODE[family] not in loaded_modules() or delete_module(CODE[family])


def load_helpers() -> None:
    """Load the modules that rules need besides the table code, so that they are always the same."""
    run("modprobe", "-a", *_HELPERS, timeout=600)


class TableModulesActor(Actor):
    """Unloads the table code that the accountant does not need, and loads it."""

    def __init__(
        self, name: str, seed: str, journal: Journal, shared: Shared, where: tuple[Namespace, ...]
    ) -> None:
        super().__init__(name, seed, journal, shared)
        self._where = where

    def act(self) -> None:
        """Unload the table code once."""
        loads, targets = self.random.random() < 0.5, self.random.random() < 0.5
        family = next((f for f in FAMILIES if f != self.shared.accounted), 6)
        if not self.shared.accounted:
            self.pause(0.05, 0.2)
            return
        self.shared.close(family, True)
        try:
            if self._unload(family):
                self.shared.count_table_unload(family)
                self.journal.write(f"tables-unloaded-{family}")
                if targets:
                    self._unload_targets()
                # packets meet no table
                self.pause(0, 0.5)
                if loads:
                    run("modprobe", CODE[family], timeout=600)
                    self.journal.write(f"tables-loaded-{family}")
        finally:
            self.shared.close(family, False)
        # otherwise the next rule loads it
        self.pause(1, 4)

    def _unload(self, family: int) -> bool:
        """Try until it is unloaded, or the accountant needs it."""
        while not self.shared.ended and self.shared.accounted not in {family, 0}:
            tables = loaded_tables(family)
            for namespace in self._where if tables else ():
                complaint = restore(namespace, family, flushed(tables))
                assert not complaint, f"{namespace.name}: {complaint}"
            if unload_tables(family):
                return True
            # a namespace with rules still exists, or a packet is under way
            self.pause(0.1, 0.3)
        return False

    def _unload_targets(self) -> None:
        """Unload the targets of both versions' rules, which nobody may add meanwhile."""
        closed = [family for family in FAMILIES if not self.shared.closed(family)]
        for family in closed:
            self.shared.close(family, True)
        for module in _TARGETS:
            if module in loaded_modules() and delete_module(module):
                self.journal.write("target-unloaded", module)
        for family in FAMILIES:
            self.shared.count_table_unload(family)
        for family in closed:
            self.shared.close(family, False)
