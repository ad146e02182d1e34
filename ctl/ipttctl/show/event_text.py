# SPDX-License-Identifier: GPL-2.0
"""Events as text: a table with a line for each, or blocks of lines for narrow terminals."""

from __future__ import annotations

import enum
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from ipttctl import hooks
from ipttctl.errors import UsageError
from ipttctl.escape import Escaped, escape, word
from ipttctl.events import describe
from ipttctl.events.records import EventRecord
from ipttctl.show.packet_text import packet_text
from ipttctl.show.rule import RuleOf
from ipttctl.system.namespace_names import NamespaceNames
from ipttproto import EventFlag

_NANO: Final = 10**9
_BOLD: Final = "\033[1m"
_RED: Final = "\033[31m"
_GREEN: Final = "\033[32m"
_YELLOW: Final = "\033[33m"
_CYAN: Final = "\033[36m"
_PLAIN: Final = "\033[0m"

#: column -> its minimum width
_COLUMNS: Final = {
    "TIME": 15,
    "SKB": 18,
    "NETWORK_NS": 10,
    "PID": 7,
    "CPU": 3,
    "LINK": 4,
    "GEN": 3,
    "INTERFACE": 12,
    "DEST_MAC": 17,
    "IP_LEN": 6,
    "PKT_INFO": 48,
    "IPTABLES_INFO": 0,
}
_LINK_COLUMNS: Final = frozenset({"LINK", "GEN"})
#: indents in a block: of an event's line, and of the continuation of a broken line
_EVENT: Final = "  "
_BROKEN: Final = "    "

WIDE: Final = 200
"""Minimum terminal width at which lines of the table fit, unless names are long."""


class TimeFormat(enum.Enum):
    """Formats of the column TIME."""

    CLOCK = "clock"
    """Local time to the microsecond."""
    NANOSECONDS = "nanoseconds"
    """Local time to the nanosecond."""
    RELATIVE = "relative"
    """Seconds since the first event, to the microsecond."""


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


class _EventText:
    """The text that both forms share."""

    def __init__(
        self,
        *,
        time_format: TimeFormat = TimeFormat.CLOCK,
        link_columns: bool = False,
        colour: bool = False,
        names: NamespaceNames | None = None,
        payload: Callable[[EventRecord], Any] | None = None,
        links: Collection[int] = (),
        rule: RuleOf | None = None,
    ) -> None:
        """Without ``link_columns``, events name their link once there is more than one.

        A link after a swap counts as another one, ``links`` in their first generation as one.
        ``names`` gives the names of namespaces. ``payload`` decodes the bytes that a program added
        to an event. ``rule`` has the rule that it names.
        """
        self._time_format = time_format
        self._link_columns = link_columns
        self._colour = colour
        self._names = names
        self._payload = payload
        self._first_time: int | None = None
        self._first_link: tuple[int, int] | None = None
        self._several = False
        self._links = links
        self._rule = rule
        self._second = -1
        self._clock = ""

    def _time(self, record: EventRecord) -> str:
        if self._time_format is TimeFormat.RELATIVE:
            if self._first_time is None:
                self._first_time = record.time
            return f"{(record.time - self._first_time) / _NANO:.6f}"
        second, rest = divmod(record.time + record.clock_offset, _NANO)
        if second != self._second:
            self._second = second
            self._clock = time.strftime("%H:%M:%S", time.localtime(second))
        if self._time_format is TimeFormat.NANOSECONDS:
            return f"{self._clock}.{rest:09}"
        return f"{self._clock}.{rest // 1000:06}"

    def _namespace(self, record: EventRecord) -> str:
        return describe.namespace(record.netns, record.netns_cookie, self._names, record.time)

    def _added(self, record: EventRecord) -> Iterator[str]:
        """The fields after a decision: the rule itself, and the bytes that a program added."""
        if self._rule and (rule := self._rule(record)):
            yield str(rule)
        if record.flags & EventFlag.PAYLOAD:
            value = self._payload(record) if self._payload else None
            yield f"payload={record.payload.hex() if value is None else _compact(value)}"

    def _link(self, record: EventRecord) -> Iterator[str]:
        """The link as fields, once there is more than one."""
        link = 0 if record.link in self._links else record.link, record.generation
        if self._first_link is None:
            self._first_link = link
        self._several |= link != self._first_link
        if self._several:
            yield f"link={record.link}"
            yield f"gen={record.generation}"

    def _coloured(self, record: EventRecord, decision: str) -> str:
        text = escape(decision)
        kind = describe.kind(record)
        if kind in {"exit", "packet", "chain_exit"}:
            colour = {"ACCEPT": _GREEN, "DROP": _RED}.get(
                describe.verdict(record).partition("(")[0], _YELLOW
            )
        elif kind == "disagree":
            colour = _YELLOW
        else:
            colour = _CYAN if kind in {"rule", "chain_rule"} else ""
        return f"{colour}{text}{_PLAIN}" if colour and self._colour else text


class EventTable(_EventText):
    """A line for each event, in columns that grow with their content."""

    def __init__(self, columns: Sequence[str] | None = None, **options: Any) -> None:
        """Show ``columns`` in their order; ``options`` are as for ``EventBlocks``."""
        super().__init__(**options)
        self._columns = columns or [
            name for name in _COLUMNS if self._link_columns or name not in _LINK_COLUMNS
        ]
        self._link_columns = bool(_LINK_COLUMNS & set(self._columns))
        self._widths = [max(len(name), _COLUMNS[name]) for name in self._columns]
        self._widths[-1] = 0
        fields: dict[str, Callable[[EventRecord], str]] = {
            "TIME": self._time,
            "SKB": lambda record: f"0x{record.skb:x}",
            "NETWORK_NS": self._namespace,
            "PID": lambda record: str(record.pid) if record.flags & EventFlag.PID else "-",
            "CPU": lambda record: str(record.cpu),
            "LINK": lambda record: str(record.link),
            "GEN": lambda record: str(record.generation),
            "INTERFACE": _interface,
            "DEST_MAC": lambda record: _mac(record) or "-",
            "IP_LEN": lambda record: str(record.length),
            "PKT_INFO": packet_text,
            "IPTABLES_INFO": self._decision,
        }
        self._fields = [fields[name] for name in self._columns]

    def header(self) -> list[Escaped]:
        """The line above the first event."""
        line = " ".join(
            name.ljust(width) for name, width in zip(self._columns, self._widths, strict=True)
        ).rstrip()
        return [Escaped(f"{_BOLD}{line}{_PLAIN}" if self._colour else line)]

    def lines(self, record: EventRecord) -> list[Escaped]:
        """The line for an event."""
        widths = self._widths
        fields = [field(record) for field in self._fields]
        for i, field in enumerate(fields):
            if len(field) < widths[i]:
                fields[i] = field.ljust(widths[i])
            elif i < len(fields) - 1:
                widths[i] = len(field)
        if not self._colour:
            return [escape(" ".join(fields))]
        parts = [
            self._coloured(record, field) if name == "IPTABLES_INFO" else escape(field)
            for name, field in zip(self._columns, fields, strict=True)
        ]
        return [Escaped(" ".join(parts))]

    def _decision(self, record: EventRecord) -> str:
        words = [decision(record), *self._added(record)]
        if not self._link_columns:
            words += self._link(record)
        return " ".join(words)


class EventBlocks(_EventText):
    """A heading for each packet at each hook, with a line for each of its events below."""

    def __init__(self, width: int, **options: Any) -> None:
        """Break lines longer than ``width`` between words; ``options`` as above."""
        super().__init__(**options)
        self._width = width
        self._heading: list[str] = []

    def header(self) -> list[Escaped]:
        """No lines: there are no columns to name."""
        return []

    def lines(self, record: EventRecord) -> list[Escaped]:
        """The lines for an event, below its packet's heading unless that was printed last."""
        heading = list(self._packet(record))
        lines = []
        if heading != self._heading:
            self._heading = heading
            lines = [escape(line) for line in _broken(heading, self._width)]
            if self._colour:
                lines = [Escaped(f"{_BOLD}{line}{_PLAIN}") for line in lines]
        moment = self._time(record)
        words = [moment, *hooks.of_event(record.kind).outcome(record), *self._added(record)]
        if self._link_columns:
            words += [f"link={record.link}", f"gen={record.generation}"]
        else:
            words += self._link(record)
        first, *rest = _broken(words, self._width - len(_EVENT))
        outcome = self._coloured(record, first.removeprefix(moment))
        lines.append(Escaped(f"{_EVENT}{moment}{outcome}"))
        lines += [Escaped(f"{_EVENT}{self._coloured(record, line)}") for line in rest]
        return lines

    def _packet(self, record: EventRecord) -> Iterator[str]:
        yield hooks.of_event(record.kind).heading(record)
        yield packet_text(record)
        yield f"len={record.length}"
        for name, device, index in (
            ("in", record.in_name, record.in_ifindex),
            ("out", record.out_name, record.out_ifindex),
            ("physin", record.physin_name, record.physin_ifindex),
            ("physout", record.physout_name, record.physout_ifindex),
        ):
            if device:
                yield f"{name}={word(device)}({index})"
        if mac := _mac(record):
            yield f"mac={mac}"
        if record.flags & EventFlag.PID:
            yield f"pid={record.pid}"
        yield f"cpu={record.cpu}"
        yield f"netns={self._namespace(record)}"
        yield f"skb=0x{record.skb:x}"


def decision(record: EventRecord) -> str:
    """The rule that matched, or the decision of the table or of the link at a hook."""
    ports = {"physin": record.physin_name, "physout": record.physout_name}
    crossed = "".join(f" {name}={word(port)}" for name, port in ports.items() if port)
    return hooks.of_event(record.kind).decision(record, crossed)


def _interface(record: EventRecord) -> str:
    name, index = describe.interface(record)
    return f"{word(name)}({index})" if name else "-"


def _mac(record: EventRecord) -> str:
    return describe.mac(record.dmac) if record.flags & EventFlag.DMAC else ""


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


def _compact(value: Any) -> str:
    """A decoded value without spaces, so that it stays one field."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace(" ", r"\u0020")
