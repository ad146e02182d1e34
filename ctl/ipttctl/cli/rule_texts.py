# SPDX-License-Identifier: GPL-2.0
"""The texts of the rules that a command's events name, and whose rules they are."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from ipttctl.errors import IpttctlError
from ipttctl.events import describe
from ipttctl.families import nft_family_name
from ipttctl.rules.origin import Syntax
from ipttctl.rules.owners import Owners, Place
from ipttctl.rules.rulesets import RuleKey, Rulesets, RuleText
from ipttctl.show.rule import Rule
from ipttctl.system import netns
from ipttctl.system.descriptors import Closing
from ipttproto import EventFlag, Kind

if TYPE_CHECKING:
    from ipttctl.events.records import EventRecord

_PATIENCE: Final = 2.0
"""Seconds that a batch of events waits for texts at most; the kernel keeps the next ones."""

_AGAIN: Final = 5.0
"""Seconds until a namespace that could not be opened is looked for again."""

_MOST_RULESETS: Final = 64
"""Most generations of rulesets, of all namespaces, whose jumps are remembered."""

_NOT_FOUND: Final = Rule(None, "its network namespace cannot be found any more")


class RuleTexts(Closing):
    """Follows the rulesets of namespaces, from the first event of each on."""

    def __init__(self) -> None:
        """Begin with our own namespace, whose rules are needed in most cases.

        Raises:
            UsageError: the user's table of owners has a mistake.
        """
        self._owners = Owners.load()
        self._of_ruleset = lru_cache(maxsize=_MOST_RULESETS)(
            lambda _cookie, _generation: self._owners.of_ruleset()
        )
        self._rulesets = Rulesets()
        self._rulesets.start()
        self._missing: dict[int, float] = {}
        with suppress(IpttctlError), netns.Namespace(netns.OWN) as own:
            self._rulesets.follow(own.identity.cookie, own.fileno())

    def prepare(self, records: Iterable[EventRecord]) -> None:
        """Have the texts for events ready, or wait some time for them."""
        keys = [_key(record) for record in records if record.kind == Kind.CHAIN_RULE]
        for cookie, inode in {(r.netns_cookie, r.netns) for r in records}:
            self._follow(cookie, inode)
        waiting = [key for key in keys if self._rulesets.text(key).pending]
        if waiting:
            self._rulesets.settle(
                _PATIENCE, lambda: not any(self._rulesets.text(key).pending for key in waiting)
            )

    def of(self, record: EventRecord) -> Rule | None:
        """The rule of an event; None if it is not of a rule of nftables."""
        if record.kind != Kind.CHAIN_RULE:
            return None
        if record.netns_cookie in self._missing:
            return _NOT_FOUND
        found = self._rulesets.text(_key(record))
        if found.text is None:
            return Rule(None, found.why)
        syntax = found.syntax.value if found.syntax else None
        place = _place(record, found)
        owners = self._of_ruleset(record.netns_cookie, record.ruleset)
        if record.target:
            # a packet meets the rule that jumps to a chain before the rules in it
            owners.learn([place])
        owner = owners.of(place)
        return Rule(
            found.text,
            found.why,
            syntax,
            owner.name if owner else None,
            owner.says if owner else None,
        )

    def close(self) -> None:
        """Let all namespaces go."""
        self._rulesets.close()

    def _follow(self, cookie: int, inode: int) -> None:
        if self._rulesets.followed(cookie) or self._missing.get(cookie, 0) > time.monotonic():
            return
        try:
            with netns.find(str(netns.Identity(inode, cookie))) as found:
                self._rulesets.follow(cookie, found.fileno())
            self._missing.pop(cookie, None)
        except IpttctlError:
            self._missing[cookie] = time.monotonic() + _AGAIN


def _key(record: EventRecord) -> RuleKey:
    return RuleKey(
        record.netns_cookie,
        record.table_handle,
        record.rule_handle,
        record.ruleset,
        bool(record.flags & EventFlag.UNCERTAIN),
    )


def _place(record: EventRecord, found: RuleText) -> Place:
    return Place(
        "iptables-nft" if found.syntax is Syntax.IPTABLES else "nft",
        nft_family_name(record.family),
        describe.text(record.table),
        found.chain,
        found.text or "",
    )
