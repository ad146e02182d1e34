# SPDX-License-Identifier: GPL-2.0
"""The ruleset of a network namespace, followed from generation to generation.

The kernel sends the changes of a commit, then its generation. They are applied together, if the
generation is the next one. Otherwise, or where it dropped some, the ruleset is read again, and what
lies between is not known.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from ipttctl.bpf.descriptors import Closing
from ipttctl.errors import OverrunError
from ipttctl.rules import messages
from ipttctl.rules.expressions import chains
from ipttctl.rules.history import History
from ipttctl.rules.messages import NftMessage, NftMessageKind, RawChain, RawTable
from ipttctl.rules.netlink import (
    MOST_BYTES,
    Asking,
    ChangedError,
    Listening,
    Snapshot,
    TooLargeError,
)

_CHANGES: Final = frozenset(
    {
        NftMessageKind.NEW_TABLE,
        NftMessageKind.DEL_TABLE,
        NftMessageKind.NEW_CHAIN,
        NftMessageKind.DEL_CHAIN,
        NftMessageKind.NEW_RULE,
        NftMessageKind.DEL_RULE,
    }
)
_MOST_CHANGES: Final = 200_000
_ATTEMPTS: Final = 3
_MOST_ROUNDS: Final = 1000
_ON_ITS_WAY: Final = 0.1
_MOST_MADE: Final = 50_000
_GROWTH: Final = 32 << 20


class Chain:
    """A chain of the last known generation."""

    __slots__ = ("changed", "order", "raw", "rules")

    def __init__(self, raw: RawChain, generation: int) -> None:
        """Begin with a generation."""
        self.raw = raw
        self.rules: set[int] = set()
        """The handles of its rules."""
        self.changed = generation
        """The last generation that changed its rules."""
        self.order: tuple[int, ...] | None = None
        """The same in their order; None if a change made it unknown."""


class Table:
    """A table of the last known generation, with its chains by name."""

    __slots__ = ("bound", "chains", "raw")

    def __init__(self, raw: RawTable) -> None:
        """Begin without chains."""
        self.raw = raw
        self.chains: dict[str, Chain] = {}
        self.bound = 0
        """The number of chains that go with a rule."""

    def add(self, chain: Chain) -> None:
        """Add a chain; there is none of its name."""
        self.chains[chain.raw.name] = chain
        self.bound += chain.raw.bound

    def drop(self, name: str) -> None:
        """Drop a chain."""
        self.bound -= self.chains.pop(name).raw.bound


class Follower(Closing):
    """A ruleset, its history, and the sockets that bring its changes."""

    def __init__(
        self,
        listening: Listening,
        asking: Asking,
        history: History | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """Take ownership of the sockets, and go on with a history from before.

        The history begins with ``read_again``.
        """
        self.asking = asking
        self._listening = listening
        self._pending: list[NftMessage] = []
        self._broken = False
        self._most_bytes = most_bytes
        self.history = history or History()
        self.tables: dict[int, Table] = {}
        """The tables of the last known generation by their handles."""
        self._handles: dict[tuple[int, str], int] = {}
        self._size_read = 0
        self._made = 0
        """The number of tables and chains that were made since the ruleset was read."""
        self.readings = 0
        """How often the ruleset was read."""

    def fileno(self) -> int:
        """The descriptor that is readable when there are changes."""
        return self._listening.fileno()

    def close(self) -> None:
        """Close the sockets; the history stays."""
        self._listening.close()
        self.asking.close()

    def follow(self) -> bool:
        """Take the changes that wait, up to a limit; returns whether there were any.

        Raises:
            ChangedError: some were lost, and the ruleset changes faster than it can be read.
            TooLargeError: the ruleset is too large to be kept.
            KernelError: the kernel refuses, or does not answer.
        """
        try:
            received = [] if self._broken else self._listening.receive()
        except OverrunError:
            self._broken = True
        if self._broken:
            self.read_again()
            return True
        if not self._take(received):
            self.read_again()
        # The kernel tells nothing of a table that goes with the process that owns it.
        size = self.history.size
        if size > min(self._most_bytes, 2 * self._size_read + _GROWTH) or self._made > _MOST_MADE:
            self.read_again()
        if self.history.size > self._most_bytes:
            raise TooLargeError
        return bool(received)

    def reach(self, generation: int) -> None:
        """Follow until a generation is known that the kernel has; raises as ``follow``.

        Under a flood of changes it may give up before that.
        """
        readings = self.readings
        for _ in range(_MOST_ROUNDS):
            if (self.history.known or 0) >= generation or self.readings > readings:
                break
            # changes may be on their way; or none tells of it
            if not self.follow() and not self._listening.wait(_ON_ITS_WAY):
                self.read_again()

    def read_again(self) -> None:
        """Read the ruleset; raises as ``follow``."""
        self._broken = True
        self._pending.clear()
        for _ in range(_ATTEMPTS):
            self._listening.discard()
            self.readings += 1
            snapshot = self.asking.snapshot()
            self._set(snapshot)
            try:
                received = self._listening.receive()
            except OverrunError:
                continue
            # The kernel counts a generation before it makes it: this one may have been half made.
            if snapshot.generation in _generations(received):
                continue
            if self._take(received, stale=True):
                self._broken = False
                return
        raise ChangedError

    def table_of(self, family: int, name: str) -> Table | None:
        """The table with a name in the last known generation."""
        return self.tables.get(self._handles.get((family, name), 0))

    # --- snapshots --------------------------------------------------------------------------------

    def _set(self, snapshot: Snapshot) -> None:
        generation = snapshot.generation
        if generation < (self.history.known or 0):
            # nf_tables was unloaded: generations and handles begin anew
            self.history = History()
        self.tables = {raw.handle: Table(raw) for raw in snapshot.tables}
        self._handles = {(raw.family, raw.name): raw.handle for raw in snapshot.tables}
        for chain in snapshot.chains:
            if table := self.table_of(chain.family, chain.table):
                table.add(Chain(chain, generation))
        order: dict[tuple[int, str], list[int]] = defaultdict(list)
        rules = []
        for rule in snapshot.rules:
            handle = self._handles.get((rule.family, rule.table), 0)
            rules.append((handle, rule))
            order[handle, rule.chain].append(rule.handle)
        for handle, table in self.tables.items():
            for name, found in table.chains.items():
                found.order = tuple(order.get((handle, name), ()))
                found.rules = set(found.order)
        self.history.replace(rules, generation)
        self._size_read = self.history.size
        self._made = 0

    # --- changes ----------------------------------------------------------------------------------

    def _take(self, received: list[NftMessage], *, stale: bool = False) -> bool:
        """Apply the commits that are complete; False if the ruleset has to be read again.

        With ``stale`` some may be older than the last known generation, which has them.
        """
        for message in received:
            if message.kind in _CHANGES:
                self._pending.append(message)
                if len(self._pending) > _MOST_CHANGES:
                    return False
            elif message.kind is NftMessageKind.NEW_GENERATION:
                made = messages.parse_generation(message)
                known = self.history.known or 0
                changes, self._pending = self._pending, []
                if stale and made <= known:
                    continue
                if made < known and not stale:
                    # nf_tables was unloaded: handles mean other rules from now on
                    self.history = History()
                    return False
                if made != known + 1 or not self._apply(changes, made):
                    return False
                self.history.advance(made)
        return True

    def _apply(self, changes: list[NftMessage], generation: int) -> bool:
        """Apply the changes of a commit; False if they cannot be understood."""
        return all(self._change(message, generation) for message in changes)

    def _change(self, message: NftMessage, generation: int) -> bool:
        match message.kind:
            case NftMessageKind.NEW_TABLE:
                return self._new_table(messages.parse_table(message), generation)
            case NftMessageKind.DEL_TABLE:
                return self._drop_table(messages.parse_table(message), generation)
            case NftMessageKind.NEW_CHAIN:
                return self._new_chain(messages.parse_chain(message), generation)
            case NftMessageKind.DEL_CHAIN:
                return self._drop_chain(messages.parse_chain(message))
        rule = messages.parse_rule(message)
        table = self.table_of(rule.family, rule.table)
        chain = table.chains.get(rule.chain) if table else None
        if table is None or chain is None:
            return False
        chain.changed = generation
        chain.order = None
        if rule.handle in chain.rules:
            self._drop_rule(table, chain, rule.handle, generation)
        if message.kind is NftMessageKind.NEW_RULE:
            chain.rules.add(rule.handle)
            self.history.add(table.raw.handle, rule, generation)
        return True

    def _drop_rule(self, table: Table, chain: Chain, handle: int, generation: int) -> None:
        """End a rule, and the chains that go with it, of which the kernel tells nothing."""
        ended = [(chain, handle)]
        while ended:
            chain, handle = ended.pop()
            chain.rules.discard(handle)
            version = self.history.current((table.raw.handle, handle))
            self.history.remove((table.raw.handle, handle), generation)
            if version is None or not table.bound:
                continue
            for name in chains(version.rule.expressions):
                bound = table.chains.get(name)
                if bound is not None and bound.raw.bound:
                    table.drop(name)
                    ended += [(bound, inside) for inside in bound.rules]

    def _new_table(self, raw: RawTable, generation: int) -> bool:
        known = self._handles.get((raw.family, raw.name))
        if known not in {None, raw.handle}:
            self._drop_table(self.tables[known or 0].raw, generation)
        if raw.handle not in self.tables:
            self.tables[raw.handle] = Table(raw)
            self._handles[raw.family, raw.name] = raw.handle
            self._made += 1
        return True

    def _drop_table(self, raw: RawTable, generation: int) -> bool:
        handle = self._handles.pop((raw.family, raw.name), None)
        if handle is not None:
            for chain in self.tables.pop(handle).chains.values():
                for rule in chain.rules:
                    self.history.remove((handle, rule), generation)
        return True

    def _new_chain(self, raw: RawChain, generation: int) -> bool:
        table = self.table_of(raw.family, raw.table)
        if table is None:
            return False
        known = table.chains.get(raw.name)
        if known is not None and known.raw.handle == raw.handle:
            known.raw = raw
            return True
        # a chain with another name now: rules that jump to it say so
        renamed = any(chain.raw.handle == raw.handle for chain in table.chains.values())
        if known is not None:
            return False
        made = Chain(raw, generation)
        made.order = ()
        table.add(made)
        self._made += 1
        return not renamed

    def _drop_chain(self, raw: RawChain) -> bool:
        table = self.table_of(raw.family, raw.table)
        chain = table.chains.get(raw.name) if table else None
        if table is None or chain is None:
            return True
        # its rules have gone before it: otherwise it has lost some of its devices only
        if chain.rules:
            return False
        table.drop(raw.name)
        return True


def _generations(received: list[NftMessage]) -> list[int]:
    return [
        messages.parse_generation(m) for m in received if m.kind is NftMessageKind.NEW_GENERATION
    ]
