# SPDX-License-Identifier: GPL-2.0
"""The names that stories show: rules, namespaces, processes, sockets, and reasons of drops."""

from __future__ import annotations

from functools import cache
from typing import Final

from ipttctl.bpf.drop_reasons import DropReasons
from ipttctl.cli.rule_texts import RuleTexts
from ipttctl.events.records import decode_event
from ipttctl.show.story_words import ReasonOf, StorySources
from ipttctl.stories.steps import OF_RULES
from ipttctl.system.namespace_names import NamespaceNames
from ipttctl.system.who import Sending, Who
from ipttproto import JoinedBatches

_RULE: Final = (
    *("netns_cookie", "netns", "pf", "family", "kind", "flags", "ruleset"),
    *("table_handle", "rule_handle", "rulenum", "table", "chain", "target"),
)
"""The members of an event that say which rule it is of."""

_SENDING: Final = ("pid_start", "cgroup", "pid", "uid", "comm")
"""The members of an event that say which process sent the packet, as ``Sending`` has them."""

_MOST_KNOWN: Final = 1 << 15
"""Most rules that are known to be looked up already."""


class StoryNames:
    """The sources of a command's stories.

    Processes and rules are looked up when their events come. Stories are told later: by then many
    processes have ended, and rules are other ones.
    """

    def __init__(self, who: Who, names: NamespaceNames, rules: RuleTexts | None) -> None:
        """Take processes, names of namespaces, and rules unless none are to be shown.

        ``who`` was made before the first event.
        """
        self._who = who
        self._rules = rules
        self._known: set[bytes] = set()
        self.sources = StorySources(
            rules=rules.of if rules else None,
            names=names,
            sender=who.sender,
            socket=who.receiver,
            reason=_reasons(),
        )

    def learn(self, events: JoinedBatches) -> None:
        """Look up the senders and rules of events that have just come."""
        self._learn_senders(events)
        if self._rules is not None:
            self._learn_rules(events, self._rules)

    def _learn_senders(self, events: JoinedBatches) -> None:
        pids = events.values("pid")
        if not any(pids):
            return
        keys = events.keys(_SENDING)
        first = {key: place for place, key in enumerate(keys) if pids[place]}
        for start, cgroup, pid, uid, comm in events.rows(_SENDING, first.values()):
            self._who.sender(Sending(start, cgroup, pid, uid, comm.rstrip(b"\0")))

    def _learn_rules(self, events: JoinedBatches, rules: RuleTexts) -> None:
        """Have the texts of rules that are new, which are kept for those who ask again."""
        known, kinds = self._known, events.values("kind")
        new = {key: place for place, key in enumerate(events.keys(_RULE)) if key not in known}
        if not new:
            return
        if len(known) > _MOST_KNOWN:
            known.clear()
        known.update(new)
        records = [decode_event(events, at) for at in new.values() if kinds[at] in OF_RULES]
        if records:
            rules.of(records)


def _reasons() -> ReasonOf:
    """The names of drop reasons, which are read at the first drop."""

    @cache
    def of_kernel() -> DropReasons | None:
        return DropReasons.of_kernel()

    def name(number: int) -> str | None:
        reasons = of_kernel()
        return reasons.name(number) if reasons else None

    return name
