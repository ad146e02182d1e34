# SPDX-License-Identifier: GPL-2.0
"""The words that both forms of text have for an event: the table, and blocks of lines."""

from __future__ import annotations

import enum
import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from ipttctl import hooks
from ipttctl.escape import word
from ipttctl.events import describe
from ipttctl.events.records import EventRecord
from ipttctl.show.rule import PayloadOf, RulesOf
from ipttctl.system.namespace_names import NameAt
from ipttproto import EventFlag

_NANO: Final = 10**9
BOLD: Final = "\033[1m"
PLAIN: Final = "\033[0m"
_RED: Final = "\033[31m"
_GREEN: Final = "\033[32m"
_YELLOW: Final = "\033[33m"
_CYAN: Final = "\033[36m"


class TimeFormat(enum.Enum):
    """Formats of the column TIME."""

    CLOCK = "clock"
    """Local time to the microsecond."""
    NANOSECONDS = "nanoseconds"
    """Local time to the nanosecond."""
    RELATIVE = "relative"
    """Seconds since the first event, to the microsecond."""


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """Options of text: ``names`` of namespaces, ``payload`` and ``rules`` as for ``EventPrinter``.

    Without ``link_columns``, events name their link once there is more than one. A link after a
    swap counts as another one, ``links`` in their first generation as one.
    """

    time_format: TimeFormat = TimeFormat.CLOCK
    link_columns: bool = False
    colour: bool = False
    names: NameAt | None = None
    payload: PayloadOf | None = None
    links: Collection[int] = ()
    rules: RulesOf | None = None


class Moments:
    """The times of events as text."""

    def __init__(self, time_format: TimeFormat) -> None:
        self._format = time_format
        self._first: int | None = None
        self._begun = False
        self._second = -1
        self._clock = ""

    def begin(self, moment: int) -> None:
        """Count seconds from the earliest of some moments, or from the first time without any.

        It stays where it is once a time was told.
        """
        if not self._begun:
            self._first = moment if self._first is None else min(self._first, moment)

    def texts(self, times: Sequence[int], clock_offsets: Sequence[int]) -> list[str]:
        """Times of CLOCK_MONOTONIC in ns, with the offsets of CLOCK_REALTIME."""
        if self._format is TimeFormat.RELATIVE:
            if times:
                self.begin(times[0])
                self._begun = True
            first = self._first or 0
            return [f"{(moment - first) / _NANO:.6f}" for moment in times]
        texts = []
        precise = self._format is TimeFormat.NANOSECONDS
        for moment, offset in zip(times, clock_offsets, strict=True):
            second, rest = divmod(moment + offset, _NANO)
            if second != self._second:
                self._second = second
                self._clock = time.strftime("%H:%M:%S", time.localtime(second))
            texts.append(
                f"{self._clock}.{rest:09}" if precise else f"{self._clock}.{rest // 1000:06}"
            )
        return texts


class SeveralLinks:
    """Whether there is more than one link, so that events have to name theirs."""

    def __init__(self, links: Collection[int]) -> None:
        """Begin with none; ``links`` in their first generation count as one."""
        self._links = links
        self._first: tuple[int, int] | None = None
        self.several = False

    def add(self, link: int, generation: int) -> bool:
        """Count a generation of a link in; returns whether there are several now."""
        one = self._one(link, generation)
        self._first = self._first or one
        self.several |= one != self._first
        return self.several

    def stays_one(self, links: Sequence[tuple[int, int]]) -> bool:
        """Whether there would still be one, with these generations of links."""
        ones = {self._one(*link) for link in links}
        return len(ones | {self._first} - {None}) <= 1

    def _one(self, link: int, generation: int) -> tuple[int, int]:
        return 0 if link in self._links else link, generation


def decision(record: EventRecord) -> str:
    """The rule that matched, or the decision of the table or of the link at a hook.

    ``describe.COST`` stands where the cost is to be.
    """
    ports = {"physin": record.physin_name, "physout": record.physout_name}
    crossed = "".join(f" {name}={word(port)}" for name, port in ports.items() if port)
    return hooks.of_event(record.kind).decision(record, crossed)


def colour(record: EventRecord) -> str:
    """The colour of an event's decision, as a control sequence; empty for none."""
    kind = describe.kind(record)
    if kind in {"exit", "packet", "chain_exit"}:
        verdict = describe.verdict(record).partition("(")[0]
        return {"ACCEPT": _GREEN, "DROP": _RED}.get(verdict, _YELLOW)
    if kind == "disagree":
        return _YELLOW
    return _CYAN if kind in {"rule", "chain_rule"} else ""


def mac(record: EventRecord) -> str:
    """The packet's destination at its device; empty if it has none."""
    return describe.mac(record.dmac) if record.flags & EventFlag.DMAC else ""


def payload_word(record: EventRecord, payload: PayloadOf | None) -> str:
    """The bytes that a program added, as one field: decoded, or in hexadecimal digits."""
    value = payload(record) if payload else None
    if value is None:
        return f"payload={record.payload.hex()}"
    # without spaces, so that it stays one field
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return "payload=" + text.replace(" ", r"\u0020")
