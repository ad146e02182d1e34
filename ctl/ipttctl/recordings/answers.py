# SPDX-License-Identifier: GPL-2.0
"""The names that stories and events showed when they were recorded, for those who show them again.

Whoever shows a story asks for rules, names, processes, sockets, peers and reasons. ``Recorder`` is
between them and the host, and writes each answer that is new. ``Answers`` gives them again. What
depends on the moment has an answer for each moment at which it was another than before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from operator import attrgetter, itemgetter
from typing import Any, Final

from ipttctl.events.records import EventRecord
from ipttctl.frames.head import FrameError
from ipttctl.recordings.values import from_object, member, to_object
from ipttctl.show.rule import Rule
from ipttctl.show.story_rules import MAYBE_RULES
from ipttctl.show.story_words import StorySources
from ipttctl.stories.steps import OF_RULES
from ipttctl.system.namespace_names import NameAt
from ipttctl.system.peers import Device, Peer
from ipttctl.system.who import Participant, Receiver, Sending
from ipttproto import Kind

OF_RULE: Final = {
    **dict.fromkeys(("netns_cookie", "netns", "table_handle", "rule_handle"), int),
    **dict.fromkeys(("ruleset", "rulenum", "flags", "kind", "pf", "family"), int),
    **dict.fromkeys(("table", "chain", "target"), bytes),
}
"""The members of an event that say which rule it is of, with their types."""

_NAMING: Final = frozenset({Kind.RULE, Kind.CHAIN_RULE}) | MAYBE_RULES
"""Kinds of events that are of a rule, or may be."""

_LACKING: Final = Rule(None, "the recording lacks it")

_RULE_KEY: Final = attrgetter(*OF_RULE)
_MOST_WRITTEN: Final = 1 << 17
_MOST_ANSWERS: Final = 1 << 20

Write = Callable[[dict[str, Any]], None]
"""Takes an object to be recorded."""


class Recorder:
    """Asks the host, and writes the answers that are new."""

    def __init__(self, sources: StorySources, write: Write, write_rule: Write) -> None:
        """Ask ``sources``; ``write_rule`` takes rules, ``write`` everything else."""
        self._asked = sources
        self._write = write
        self._write_rule = write_rule
        self._written: dict[Hashable, object] = {}
        self.sources = StorySources(
            rules=self._rules if sources.rules else None,
            names=self if sources.names else None,
            sender=self._sender if sources.sender else None,
            socket=self._socket if sources.socket else None,
            reason=self._reason if sources.reason else None,
            peer=self._peer if sources.peer else None,
        )

    def name(self, cookie: int, moment: int | None = None) -> str | None:
        """The name of a namespace."""
        assert self._asked.names
        found = self._asked.names.name(cookie, moment)
        if self._new(("netns", cookie), found):
            self._write({"about": "netns", "cookie": cookie, "moment": moment or 0, "name": found})
        return found

    def _rules(self, records: Sequence[EventRecord]) -> Sequence[Rule | None]:
        assert self._asked.rules
        found = self._asked.rules(records)
        for record, rule in zip(records, found, strict=True):
            if record.kind in OF_RULES and self._new(("rule", _RULE_KEY(record)), rule):
                key = {name: to_object(getattr(record, name)) for name in OF_RULE}
                numbers = {name: int(key[name]) for name, kind in OF_RULE.items() if kind is int}
                self._write_rule({"about": "rule", **key, **numbers, "rule": to_object(rule)})
        return found

    def _sender(self, sent: Sending) -> Participant | None:
        assert self._asked.sender
        found = self._asked.sender(sent)
        if self._new(("sender", sent), found):
            what = dict(zip(Sending._fields, map(to_object, sent), strict=True))
            self._write({"about": "sender", **what, "sender": to_object(found)})
        return found

    def _socket(self, inode: int, moment: int, uid: int | None) -> Receiver | None:
        assert self._asked.socket
        found = self._asked.socket(inode, moment, uid)
        if self._new(("socket", inode, uid), found):
            key = {"inode": inode, "moment": moment, "uid": uid}
            self._write({"about": "socket", **key, "socket": to_object(found)})
        return found

    def _reason(self, number: int) -> str | None:
        assert self._asked.reason
        found = self._asked.reason(number)
        if self._new(("reason", number), found):
            self._write({"about": "reason", "number": number, "name": found})
        return found

    def _peer(self, device: Device, moment: int) -> Peer | None:
        assert self._asked.peer
        found = self._asked.peer(device, moment)
        if self._new(("peer", device), found):
            key = dict(zip(Device._fields, map(to_object, device), strict=True))
            self._write({"about": "peer", **key, "moment": moment, "peer": to_object(found)})
        return found

    def _new(self, key: Hashable, answer: object) -> bool:
        """Whether this is not the answer that was written last."""
        if key in self._written and self._written[key] == answer:
            return False
        if len(self._written) > _MOST_WRITTEN:
            self._written.clear()
        self._written[key] = answer
        return True


class Answers:
    """The answers of a recording."""

    def __init__(self) -> None:
        self._of: dict[Hashable, Any] = {}
        #: (moment, number, answer), sorted by the first two, but for those of ``_unsorted``
        self._at: defaultdict[Hashable, list[tuple[int, int, Any]]] = defaultdict(list)
        self._unsorted: set[Hashable] = set()
        self._count = 0
        self._has_rules = False
        self.whole = True
        """Whether the recording was read from its beginning to its end."""

    def take(self, value: dict[str, Any]) -> None:
        """Take an object of a recording; those that are not about names are passed over.

        Raises:
            FrameError: it is not as ``Recorder`` writes it, or there are too many.
        """
        taker = self._TAKERS.get(str(value.get("about")))
        if taker is None:
            return
        self._count += 1
        if self._count > _MOST_ANSWERS:
            raise FrameError("a recording has more names than can be")
        taker(self, value)

    def sources(self, *, rules: bool) -> StorySources:
        """Sources that give the answers."""
        return StorySources(
            rules=self.rules if rules else None,
            names=self.names,
            sender=self._of.get,
            socket=self._socket,
            reason=lambda number: self._of.get(("reason", number)),
            peer=self._latest,
        )

    @property
    def names(self) -> NameAt:
        """The names of namespaces."""
        return self

    def name(self, cookie: int, moment: int | None = None) -> str | None:
        """The name of a namespace at a moment."""
        found: str | None = self._latest(("netns", cookie), 1 << 64 if moment is None else moment)
        return found

    def named(self, name: str) -> list[int]:
        """The cookies of the namespaces that had a name."""
        return [
            key[1]
            for key, found in self._at.items()
            if isinstance(key, tuple) and key[0] == "netns"
            if any(answer == name for _, _, answer in found)
        ]

    def rules(self, records: Sequence[EventRecord]) -> Sequence[Rule | None]:
        """The rules of events.

        An event of no rule was recorded with that for an answer; where there is none it is missing.
        """
        return [self._rule(record) for record in records]

    def _rule(self, record: EventRecord) -> Rule | None:
        key = _RULE_KEY(record)
        if key in self._of:
            found: Rule | None = self._of[key]
            return found
        lacks = record.kind in _NAMING and (self._has_rules or not self.whole)
        return _LACKING if lacks else None

    def _socket(self, inode: int, moment: int, uid: int | None) -> Receiver | None:
        found: Receiver | None = self._latest(("socket", inode, uid), moment)
        return found

    def _latest(self, key: Hashable, moment: int) -> Any:
        """The answer at a moment: the last one before it, or else the first of all."""
        found = self._at.get(key)
        if not found:
            return None
        if key in self._unsorted:
            found.sort(key=itemgetter(0, 1))
            self._unsorted.remove(key)
        place = bisect_right(found, moment, key=itemgetter(0))
        return found[max(0, place - 1)][2]

    def _add(self, key: Hashable, value: dict[str, Any], answer: Any) -> None:
        moment = member(int, value, "moment")
        found = self._at[key]
        # they come in order but for a few; a place for each costs too much if somebody turned them
        if found and moment < found[-1][0]:
            self._unsorted.add(key)
        found.append((moment, self._count, answer))

    def _take_netns(self, value: dict[str, Any]) -> None:
        key = "netns", member(int, value, "cookie")
        self._add(key, value, member(str | None, value, "name"))

    def _take_rule(self, value: dict[str, Any]) -> None:
        key = tuple(member(kind, value, name) for name, kind in OF_RULE.items())
        rule = _or_none(Rule, value, "rule")
        self._has_rules = True
        before = self._of.get(key)
        # a text may come late, but it does not go
        if before is None or before.text is None or (rule and rule.text is not None):
            self._of[key] = rule

    def _take_sender(self, value: dict[str, Any]) -> None:
        numbers = [member(int, value, name) for name in Sending._fields[:-1]]
        sent = Sending._make([*numbers, member(bytes, value, "comm")])
        self._of[sent] = _or_none(Participant, value, "sender")

    def _take_socket(self, value: dict[str, Any]) -> None:
        key = "socket", member(int, value, "inode"), member(int | None, value, "uid")
        self._add(key, value, _or_none(Receiver, value, "socket"))

    def _take_reason(self, value: dict[str, Any]) -> None:
        self._of["reason", member(int, value, "number")] = member(str | None, value, "name")

    def _take_peer(self, value: dict[str, Any]) -> None:
        numbers = [member(int, value, name) for name in Device._fields[:-1]]
        device = Device._make([*numbers, member(bytes, value, "name")])
        self._add(device, value, _or_none(Peer, value, "peer"))

    _TAKERS: Final = {
        "netns": _take_netns,
        "rule": _take_rule,
        "sender": _take_sender,
        "socket": _take_socket,
        "reason": _take_reason,
        "peer": _take_peer,
    }


def _or_none(kind: type, value: dict[str, Any], name: str) -> Any:
    found = value.get(name)
    return None if found is None else from_object(kind, found)
