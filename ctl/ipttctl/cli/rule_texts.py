# SPDX-License-Identifier: GPL-2.0
"""The texts of the rules that a command's events name, and whose rules they are."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Final

from ipttctl.bpf.descriptors import Closing
from ipttctl.errors import IpttctlError
from ipttctl.events import describe
from ipttctl.events.records import EventRecord
from ipttctl.families import nft_family_name
from ipttctl.link.controller import Controller
from ipttctl.rules.budget import Patience
from ipttctl.rules.legacy import Count
from ipttctl.rules.origin import Syntax
from ipttctl.rules.owners import Owners, Place
from ipttctl.rules.rulesets import NOT_FOLLOWED, LegacyKey, RuleKey, Rulesets, RuleText
from ipttctl.show.rule import Rule
from ipttctl.system import netns
from ipttctl.system.namespace_names import NamespaceNames
from ipttproto import EventFlag, Kind

_PATIENCE: Final = 2.0
"""Seconds that a batch of events waits for texts at most; the kernel keeps the next ones."""

_AGAIN: Final = 5.0
"""Seconds until a namespace that could not be opened is looked for again."""

_MOST_MISSING: Final = 4096
"""Most namespaces that are known not to be there."""

_MOST_RULESETS: Final = 64
"""Most generations of rulesets, of all namespaces, whose jumps are remembered."""

_NOT_FOUND: Final = Rule(None, "its network namespace cannot be found any more")

#: the kernel calls some rules of legacy tables the end of their chain: those that match all packets
_OF_TABLES: Final = frozenset({Kind.RULE, Kind.RETURN, Kind.POLICY})


class RuleTexts(Closing):
    """Follows the rulesets of namespaces, from the first event of each on."""

    def __init__(self, controller: Controller, names: NamespaceNames) -> None:
        """Begin with our own namespace, whose rules are needed in most cases.

        ``controller`` is asked for the generations of legacy tables, until ``close``. ``names``
        tell which namespaces are likely to go: these are not kept.

        Raises:
            UsageError: the user's table of owners has a mistake.
        """
        self._owners = Owners.load()
        self._controller = controller
        self._of_ruleset = lru_cache(maxsize=_MOST_RULESETS)(
            lambda _cookie, _generation: self._owners.of_ruleset()
        )
        self._rulesets = Rulesets()
        self._rulesets.start()
        names.tell_lost(self._rulesets.lost_name)
        self._patience = Patience()
        self._missing: dict[int, float] = {}
        self._learnt = 0
        with suppress(IpttctlError), netns.Namespace(netns.OWN) as own:
            self._rulesets.follow(own.identity.cookie, own.fileno(), self._count)

    def of(self, records: Sequence[EventRecord]) -> Sequence[Rule | None]:
        """The rules of events, None for those of no rule; it waits some time for their texts."""
        self._prepare(records)
        known = self._learnt
        rules = [self._of(record) for record in records]
        # a later event may have told of the chain that an earlier one is in
        return rules if known == self._learnt else [self._of(record) for record in records]

    def _prepare(self, records: Iterable[EventRecord]) -> None:
        keys = {key: None for record in records if (key := _key(record)) is not None}
        for cookie, inode in {(r.netns_cookie, r.netns) for r in records}:
            self._follow(cookie, inode)
        waiting: dict[int, list[RuleKey | LegacyKey]] = defaultdict(list)
        for key in keys:
            if self._patience.left(key.cookie) and self._text(key).pending:
                waiting[key.cookie].append(key)
        if waiting:
            self._wait(waiting)

    def _wait(self, waiting: dict[int, list[RuleKey | LegacyKey]]) -> None:
        """Wait for texts of some namespaces, for each as long as there is patience for it."""
        most = {cookie: min(_PATIENCE, self._patience.left(cookie)) for cookie in waiting}
        begin = time.monotonic()

        def done() -> bool:
            passed = time.monotonic() - begin
            for cookie, keys in [*waiting.items()]:
                if passed >= most[cookie] or not any(self._text(key).pending for key in keys):
                    self._patience.spend(cookie, passed)
                    del waiting[cookie]
            return not waiting

        self._rulesets.settle(max(most.values()), done)
        # the rest has waited as long as it may
        done()

    def _of(self, record: EventRecord) -> Rule | None:
        key = _key(record)
        if key is None:
            return None
        found = self._text(key)
        if found == NOT_FOLLOWED and record.netns_cookie in self._missing:
            return _NOT_FOUND
        if found.text is None:
            return None if found.certain else Rule(None, found.why)
        syntax = found.syntax.value if found.syntax else None
        place = _place(record, found)
        owners = self._of_ruleset(record.netns_cookie, record.ruleset)
        if record.target:
            # a packet meets the rule that jumps to a chain before the rules in it
            self._learnt += owners.learn([place])
        owner = owners.of(place)
        return Rule(
            found.text,
            found.why,
            syntax,
            owner.name if owner else None,
            owner.says if owner else None,
            _if_cut(found.chain, record.chain),
            _if_cut(found.table, record.table),
        )

    def close(self) -> None:
        """Let all namespaces go."""
        self._rulesets.close()

    def _text(self, key: RuleKey | LegacyKey) -> RuleText:
        if isinstance(key, LegacyKey):
            return self._rulesets.legacy_text(key)
        return self._rulesets.text(key)

    def _count(self, namespace: int, family: int, table: str) -> Count:
        found = self._controller.ruleset(namespace, family, table)
        return Count(found.generation, found.replacing)

    def _follow(self, cookie: int, inode: int) -> None:
        if self._rulesets.followed(cookie) or self._missing.get(cookie, 0) > time.monotonic():
            return
        try:
            with netns.find(str(netns.Identity(inode, cookie))) as found:
                self._rulesets.follow(cookie, found.fileno(), self._count)
            self._missing.pop(cookie, None)
        except IpttctlError:
            self._missing.pop(cookie, None)
            self._missing[cookie] = time.monotonic() + _AGAIN
            if len(self._missing) > _MOST_MISSING:
                # the one that was looked for longest ago
                del self._missing[next(iter(self._missing))]


def _key(record: EventRecord) -> RuleKey | LegacyKey | None:
    """The rule of an event, of nftables or of a legacy table; None if it is of no rule."""
    uncertain = bool(record.flags & EventFlag.UNCERTAIN)
    if record.kind == Kind.CHAIN_RULE:
        return RuleKey(
            record.netns_cookie,
            record.table_handle,
            record.rule_handle,
            record.ruleset,
            uncertain,
        )
    if record.kind not in _OF_TABLES:
        return None
    return LegacyKey(
        record.netns_cookie,
        record.pf,
        _listed(record.table),
        _listed(record.chain),
        record.rulenum,
        record.ruleset,
        uncertain,
    )


def _listed(name: bytes) -> str:
    """A name as listings have it; events have room for the longest names of legacy tables."""
    return name.decode(errors="surrogateescape")


def _if_cut(whole: str, name: bytes) -> str | None:
    """The whole name, if it is known and the event has not all of it."""
    return None if whole in {"", describe.text(name)} else whole


def _place(record: EventRecord, found: RuleText) -> Place:
    if record.kind in _OF_TABLES:
        backend, family = "legacy", record.pf
    else:
        backend = "iptables-nft" if found.syntax is Syntax.IPTABLES else "nft"
        family = record.family
    return Place(
        backend,
        nft_family_name(family),
        found.table or describe.text(record.table),
        found.chain,
        found.text or "",
    )
