# SPDX-License-Identifier: GPL-2.0
"""Events as a table: a line for each, in columns that grow with their content.

A field of a table is the same for many events, and is made once for all of them: whatever a field
depends on is the key under which its text is kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, ClassVar, Final, NamedTuple

from ipttctl.errors import UsageError
from ipttctl.escape import Escaped, escape, word
from ipttctl.events import describe
from ipttctl.events.records import DECISIVE, EventRecord, decode_event
from ipttctl.show import packet_text
from ipttctl.show.event_text import (
    BOLD,
    PLAIN,
    Moments,
    SeveralLinks,
    TextOptions,
    colour,
    decision,
    mac,
    payload_word,
)
from ipttctl.show.momentary import namespaces_of
from ipttctl.show.rule import Rule
from ipttproto import EventFlag, JoinedBatches

_MOST_TEXTS: Final = 1 << 14
"""Most texts that a column keeps."""

WIDE: Final = 200
"""Minimum terminal width at which lines of the table fit, unless names are long."""


def parse_columns(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of columns, in upper or lower case.

    Raises:
        UsageError: there is no such column, or a column is named twice.
    """
    columns = tuple(name.strip().upper() for name in text.split(","))
    for name in columns:
        if name not in _COLUMNS:
            known = ", ".join(_COLUMNS).lower()
            raise UsageError(f"--columns: there is no column '{name.lower()}'", f"they are {known}")
        if columns.count(name) > 1:
            raise UsageError(f"--columns: '{name.lower()}' is given twice")
    return columns


class EventTable:
    """A line for each event."""

    def __init__(self, columns: Sequence[str] | None = None, **options: Any) -> None:
        """Show ``columns`` in their order; ``options`` are ``TextOptions``."""
        given = TextOptions(**options)
        self._colour = given.colour
        names = columns or [
            name for name in _COLUMNS if given.link_columns or name not in _LINK_COLUMNS
        ]
        links_elsewhere = bool(_LINK_COLUMNS & set(names))
        last = len(names) - 1
        self._columns = [
            _COLUMNS[name](given, padded=place < last, links_elsewhere=links_elsewhere)
            for place, name in enumerate(names)
        ]
        self._names = names

    def header(self) -> list[Escaped]:
        """The line above the first event."""
        line = " ".join(
            name.ljust(column.width)
            for name, column in zip(self._names, self._columns, strict=True)
        ).rstrip()
        return [Escaped(f"{BOLD}{line}{PLAIN}" if self._colour else line)]

    def lines(self, events: JoinedBatches) -> list[Escaped]:
        """The lines for events."""
        fields = []
        for column in self._columns:
            texts = column.texts(events)
            if texts is None:
                return [line for one in events.each() for line in self.lines(one)]
            fields.append(texts)
        return [Escaped(" ".join(line)) for line in zip(*fields, strict=True)]


class _Column(ABC):
    """A column, which is as wide as the widest field until now."""

    NAME: ClassVar[str]
    WIDTH: ClassVar[int]

    def __init__(self, options: TextOptions, *, padded: bool, links_elsewhere: bool) -> None:
        """Begin as wide as the heading, or more; the last column is not ``padded``."""
        del links_elsewhere
        self._options = options
        self._padded = padded
        self.width = max(len(self.NAME), self.WIDTH) if padded else 0

    @abstractmethod
    def texts(self, events: JoinedBatches) -> Sequence[str] | None:
        """The fields of some events, escaped and padded.

        None if the events are not alike, so that each has to be asked for by itself: one of them
        makes the column wider, or what it shows is known by another name since.
        """

    def _fits(self, length: int, events: JoinedBatches) -> bool:
        """Whether a field has room; for a single event, room is made."""
        if not self._padded or length <= self.width:
            return True
        if len(events) == 1:
            self.width = length
            return True
        return False

    def _pad(self, text: str) -> str:
        return escape(text.ljust(self.width))


class _Plain(_Column):
    """A column whose fields differ from event to event, and need no escapes."""

    @abstractmethod
    def _texts(self, events: JoinedBatches) -> list[str]:
        """The fields, not padded."""

    def texts(self, events: JoinedBatches) -> list[str] | None:
        texts = self._texts(events)
        if not self._fits(max(map(len, texts)), events):
            return None
        return [text.ljust(self.width) for text in texts] if self._padded else texts


class _Kept(_Column):
    """A column whose fields are kept, by what they are made of."""

    def __init__(self, options: TextOptions, **kwargs: bool) -> None:
        super().__init__(options, **kwargs)
        self._known: dict[Hashable, str] = {}

    @abstractmethod
    def _keys(self, events: JoinedBatches) -> Sequence[Hashable]:
        """All that the field of each event depends on."""

    @abstractmethod
    def _text(self, record: EventRecord) -> str:
        """The field of an event."""

    def texts(self, events: JoinedBatches) -> list[str] | None:
        known = self._known
        if len(known) > _MOST_TEXTS:
            known.clear()
        keys = self._keys(events)
        for place, key in enumerate(keys):
            if key not in known:
                text = self._text(decode_event(events, place))
                width = self.width
                if not self._fits(len(text), events):
                    return None
                if width != self.width:
                    known.clear()
                known[key] = self._pad(text)
        return [known[key] for key in keys]


class _Time(_Plain):
    NAME, WIDTH = "TIME", 15

    def __init__(self, options: TextOptions, **kwargs: bool) -> None:
        super().__init__(options, **kwargs)
        self._moments = Moments(options.time_format)

    def _texts(self, events: JoinedBatches) -> list[str]:
        return self._moments.texts(events.values("time"), events.clock_offsets)


class _Skb(_Plain):
    NAME, WIDTH = "SKB", 18

    def _texts(self, events: JoinedBatches) -> list[str]:
        return [f"0x{skb:x}" for skb in events.values("skb")]


class _Namespace(_Column):
    NAME, WIDTH = "NETWORK_NS", 10

    def texts(self, events: JoinedBatches) -> list[str] | None:
        found = namespaces_of(events, self._options.names)
        if found is None:
            return None
        texts = {key: describe.namespace(*known) for key, known in found.names.items()}
        if not self._fits(max(map(len, texts.values())), events):
            return None
        padded = {key: self._pad(text) for key, text in texts.items()}
        return [padded[key] for key in found.keys]


class _Pid(_Kept):
    NAME, WIDTH = "PID", 7

    def _keys(self, events: JoinedBatches) -> Sequence[Hashable]:
        return events.keys(("pid", "flags"))

    def _text(self, record: EventRecord) -> str:
        return str(record.pid) if record.flags & EventFlag.PID else "-"


class _Cpu(_Kept):
    NAME, WIDTH = "CPU", 3

    def _keys(self, events: JoinedBatches) -> Sequence[Hashable]:
        return events.cpus

    def _text(self, record: EventRecord) -> str:
        return str(record.cpu)


class _Link(_Kept):
    NAME, WIDTH = "LINK", 4

    def _keys(self, events: JoinedBatches) -> Sequence[Hashable]:
        return events.keys(("link",))

    def _text(self, record: EventRecord) -> str:
        return str(record.link)


class _Generation(_Kept):
    NAME, WIDTH = "GEN", 3

    def _keys(self, events: JoinedBatches) -> Sequence[Hashable]:
        return events.keys(("generation",))

    def _text(self, record: EventRecord) -> str:
        return str(record.generation)


class _Interface(_Kept):
    NAME, WIDTH = "INTERFACE", 12

    def _keys(self, events: JoinedBatches) -> Sequence[Hashable]:
        return events.keys(("pf", "hook", "in_name", "in_ifindex", "out_name", "out_ifindex"))

    def _text(self, record: EventRecord) -> str:
        name, index = describe.interface(record)
        return f"{word(name)}({index})" if name else "-"


class _DestMac(_Kept):
    NAME, WIDTH = "DEST_MAC", 17

    def _keys(self, events: JoinedBatches) -> Sequence[Hashable]:
        return events.keys(("dmac", "flags"))

    def _text(self, record: EventRecord) -> str:
        return mac(record) or "-"


class _IpLen(_Kept):
    NAME, WIDTH = "IP_LEN", 6

    def _keys(self, events: JoinedBatches) -> Sequence[Hashable]:
        return events.keys(("length",))

    def _text(self, record: EventRecord) -> str:
        return str(record.length)


class _PktInfo(_Kept):
    NAME, WIDTH = "PKT_INFO", 48

    def _keys(self, events: JoinedBatches) -> Sequence[Hashable]:
        return packet_text.text_keys(events)

    def _text(self, record: EventRecord) -> str:
        return packet_text.packet_text(record)


class _Words(NamedTuple):
    """A decision's field in parts: behind the first stands its cost, behind the next a payload.

    A part is None if nothing stands before it.
    """

    before: str
    behind_cost: str | None
    behind_payload: str | None

    def filled(self, cost: int, payload: Callable[[], str]) -> str:
        """The field of one event."""
        text = self.before
        if self.behind_cost is not None:
            text += describe.cost(cost) + self.behind_cost
        if self.behind_payload is not None:
            text += payload() + self.behind_payload
        return text


class _IptablesInfo(_Column):
    """Each event's decision, with the rule itself and the bytes that a program added."""

    NAME, WIDTH = "IPTABLES_INFO", 0

    def __init__(self, options: TextOptions, *, padded: bool, links_elsewhere: bool) -> None:
        super().__init__(options, padded=padded, links_elsewhere=links_elsewhere)
        self._links = None if links_elsewhere else SeveralLinks(options.links)
        # a padded field is escaped once its length is known
        self._escape: Callable[[str], str] = str if padded else escape
        self._known: dict[bytes, str | _Words] = {}
        self._colours: dict[bytes, str] = {}

    def texts(self, events: JoinedBatches) -> list[str] | None:
        if not self._count_links(events):
            return None
        # the text of a rule may be known later
        if self._options.rules or len(self._known) > _MOST_TEXTS:
            self._forget()
        keys = events.keys(DECISIVE)
        self._learn(events, keys)
        texts = self._filled(events, keys)
        if self._padded:
            if not self._fits(max(map(len, texts)), events):
                return None
            texts = [self._pad(text) for text in texts]
        if not self._options.colour:
            return texts
        colours = map(self._colours.__getitem__, keys)
        return [
            f"{paint}{text}{PLAIN}" if paint else text
            for paint, text in zip(colours, texts, strict=True)
        ]

    def _count_links(self, events: JoinedBatches) -> bool:
        """Count the links of events; False if only the later ones of them have to name theirs."""
        if self._links is None or self._links.several:
            return True
        links = events.values("link"), events.values("generation")
        pairs = list(dict.fromkeys(zip(*links, strict=True)))
        if len(events) > 1 and not self._links.stays_one(pairs):
            return False
        if any(self._links.add(*pair) for pair in pairs):
            self._forget()
        return True

    def _forget(self) -> None:
        self._known.clear()
        self._colours.clear()

    def _learn(self, events: JoinedBatches, keys: Sequence[bytes]) -> None:
        """Make the words of those events whose words are not known."""
        new: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            if key not in self._known:
                new.setdefault(key, place)
        records = [decode_event(events, place) for place in new.values()]
        rules = self._options.rules
        named = rules(records) if rules and records else [None] * len(records)
        for key, record, rule in zip(new, records, named, strict=True):
            words = self._words(record, rule)
            fixed = words.behind_cost is None and words.behind_payload is None
            self._known[key] = words.before if fixed else words
            self._colours[key] = colour(record)

    def _words(self, record: EventRecord, rule: Rule | None) -> _Words:
        text = decision(record)
        if rule is not None:
            text += f" {rule}"
        link = ""
        if self._links is not None and self._links.several:
            link = f" link={record.link} gen={record.generation}"
        behind_payload = None
        if record.flags & EventFlag.PAYLOAD:
            text, behind_payload = f"{text} ", self._escape(link)
        else:
            text += link
        before, cost, behind_cost = map(self._escape, text.partition(describe.COST))
        return _Words(before, behind_cost if cost else None, behind_payload)

    def _filled(self, events: JoinedBatches, keys: Sequence[bytes]) -> list[str]:
        known = self._known
        texts = []
        for place, (key, cost) in enumerate(zip(keys, events.values("cost"), strict=True)):
            words = known[key]
            if isinstance(words, _Words):
                words = words.filled(cost, partial(self._payload, events, place))
            texts.append(words)
        return texts

    def _payload(self, events: JoinedBatches, place: int) -> str:
        return self._escape(payload_word(decode_event(events, place), self._options.payload))


_COLUMNS: Final[dict[str, type[_Column]]] = {
    column.NAME: column
    for column in (
        _Time,
        _Skb,
        _Namespace,
        _Pid,
        _Cpu,
        _Link,
        _Generation,
        _Interface,
        _DestMac,
        _IpLen,
        _PktInfo,
        _IptablesInfo,
    )
}
_LINK_COLUMNS: Final = frozenset({"LINK", "GEN"})
