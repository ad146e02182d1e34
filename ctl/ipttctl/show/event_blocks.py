# SPDX-License-Identifier: GPL-2.0
"""Events as blocks of lines, for narrow terminals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from ipttctl import hooks
from ipttctl.escape import Escaped, escape, word
from ipttctl.events import describe
from ipttctl.events.records import EventRecord, decode_event
from ipttctl.show.event_text import (
    BOLD,
    PLAIN,
    Moments,
    SeveralLinks,
    TextOptions,
    colour,
    mac,
    payload_word,
)
from ipttctl.show.packet_text import packet_text
from ipttctl.show.rule import Rule
from ipttproto import EventFlag, JoinedBatches

#: indents in a block: of an event's line, and of the continuation of a broken line
_EVENT: Final = "  "
_BROKEN: Final = "    "


class EventBlocks:
    """A heading for each packet at each hook, with a line for each of its events below."""

    def __init__(self, width: int, **options: Any) -> None:
        """Break lines longer than ``width`` between words; ``options`` are ``TextOptions``."""
        self._options = TextOptions(**options)
        self._moments = Moments(self._options.time_format)
        self._links = SeveralLinks(self._options.links)
        self._width = width
        self._heading: list[str] = []

    def header(self) -> list[Escaped]:
        """No lines: there are no columns to name."""
        return []

    def lines(self, events: JoinedBatches) -> list[Escaped]:
        """The lines for events, each below its packet's heading unless that was printed last."""
        records = [decode_event(events, place) for place in range(len(events))]
        rules = self._options.rules
        named = rules(records) if rules else [None] * len(records)
        lines = []
        for record, rule in zip(records, named, strict=True):
            lines += self._lines(record, rule)
        return lines

    def _lines(self, record: EventRecord, rule: Rule | None) -> list[Escaped]:
        heading = list(self._packet(record))
        lines = []
        if heading != self._heading:
            self._heading = heading
            lines = [escape(line) for line in _broken(heading, self._width)]
            if self._options.colour:
                lines = [Escaped(f"{BOLD}{line}{PLAIN}") for line in lines]
        [moment] = self._moments.texts([record.time], [record.clock_offset])
        words = [moment, *hooks.of_event(record.kind).outcome(record), *self._added(record, rule)]
        first, *rest = _broken(words, self._width - len(_EVENT))
        outcome = self._coloured(record, first.removeprefix(moment))
        lines.append(Escaped(f"{_EVENT}{moment}{outcome}"))
        lines += [Escaped(f"{_EVENT}{self._coloured(record, line)}") for line in rest]
        return lines

    def _packet(self, record: EventRecord) -> Iterator[str]:
        yield hooks.of_event(record.kind).heading(record)
        yield packet_text(record)
        yield f"len={record.length}"
        for direction, device, index in (
            ("in", record.in_name, record.in_ifindex),
            ("out", record.out_name, record.out_ifindex),
            ("physin", record.physin_name, record.physin_ifindex),
            ("physout", record.physout_name, record.physout_ifindex),
        ):
            if device:
                yield f"{direction}={word(device)}({index})"
        if address := mac(record):
            yield f"mac={address}"
        if record.flags & EventFlag.PID:
            yield f"pid={record.pid}"
        yield f"cpu={record.cpu}"
        names = self._options.names
        name = names.name(record.netns_cookie, record.time) if names else None
        yield f"netns={describe.namespace(record.netns, name)}"
        yield f"skb=0x{record.skb:x}"

    def _added(self, record: EventRecord, rule: Rule | None) -> Iterator[str]:
        """The fields after an outcome: the rule itself, a program's bytes, and the link."""
        if rule:
            yield str(rule)
        if record.flags & EventFlag.PAYLOAD:
            yield payload_word(record, self._options.payload)
        if self._options.link_columns or self._links.add(record.link, record.generation):
            yield f"link={record.link}"
            yield f"gen={record.generation}"

    def _coloured(self, record: EventRecord, text: str) -> str:
        paint = colour(record) if self._options.colour else ""
        return f"{paint}{escape(text)}{PLAIN}" if paint else escape(text)


def _broken(words: Iterable[str], width: int) -> list[str]:
    """Words in lines of at most ``width``, or one longer word; all but the first are indented."""
    lines: list[str] = []
    line = ""
    for text in " ".join(words).split(" "):
        if line and len(line) + 1 + len(text) > width:
            lines.append(line)
            line = _BROKEN + text
        else:
            line = f"{line} {text}" if line else text
    return [*lines, line]
