# SPDX-License-Identifier: GPL-2.0
"""Events, links and the module for people: lines of text."""

from __future__ import annotations

import enum
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from ipttctl import describe, hooks
from ipttctl.escape import Escaped, escape, word
from ipttctl.losses import Losses
from ipttctl.measurement import Measurement
from ipttctl.netns import NamespaceNames
from ipttctl.objects import (
    CpuStatus,
    HistoryEntry,
    Link,
    LinkChange,
    ProgramInfo,
)
from ipttctl.packet_text import packet_text
from ipttproto import EventFlag, Hook, Kind, Loss, Slot

if TYPE_CHECKING:
    from ipttctl.records import EventRecord

_NANO: Final = 10**9
_BOLD: Final = "\033[1m"
_RED: Final = "\033[31m"
_GREEN: Final = "\033[32m"
_YELLOW: Final = "\033[33m"
_CYAN: Final = "\033[36m"
_PLAIN: Final = "\033[0m"

#: column -> the width that it has at least
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
_LINK_COLUMNS: Final = ("LINK", "GEN")
#: terminals that are narrower get columns without padding where the content varies
WIDE: Final = 160


class TimeFormat(enum.Enum):
    """What the column TIME shows."""

    CLOCK = "clock"
    """Local time to the microsecond."""
    NANOSECONDS = "nanoseconds"
    """Local time to the nanosecond."""
    RELATIVE = "relative"
    """Seconds since the first event, to the microsecond."""


class EventText:
    """Renders events as lines of a table whose columns grow with their content."""

    def __init__(
        self,
        *,
        time_format: TimeFormat = TimeFormat.CLOCK,
        link_columns: bool = False,
        colour: bool = False,
        align: bool = True,
        names: NamespaceNames | None = None,
        payload: Callable[[EventRecord], Any] | None = None,
    ) -> None:
        """Without ``link_columns`` a line names its link once there is more than one.

        One link after a swap counts as more than one. ``names`` tells names of namespaces,
        ``payload`` what the bytes mean that a program added to an event, if that is known.
        """
        self._time_format = time_format
        self._link_columns = link_columns
        self._colour = colour
        self._align = align
        self._names = names
        self._payload = payload
        self._columns = [c for c in _COLUMNS if link_columns or c not in _LINK_COLUMNS]
        self._widths = [max(len(c), _COLUMNS[c] if align else 0) for c in self._columns]
        self._widths[-1] = 0
        self._first_time: int | None = None
        self._first_link: tuple[int, int] | None = None
        self._several = False
        self._second = -1
        self._clock = ""

    def header(self) -> Escaped:
        """The line above the first event."""
        line = " ".join(
            name.ljust(width) for name, width in zip(self._columns, self._widths, strict=True)
        ).rstrip()
        return Escaped(f"{_BOLD}{line}{_PLAIN}" if self._colour else line)

    def line(self, record: EventRecord) -> Escaped:
        """The line for an event."""
        name, index = describe.interface(record)
        flags = record.flags
        fields = [
            self._time(record),
            f"0x{record.skb:x}",
            namespace(record.netns, self._names),
            str(record.pid) if flags & EventFlag.PID else "-",
            str(record.cpu),
            f"{word(name)}({index})" if name else "-",
            describe.mac(record.dmac) if flags & EventFlag.DMAC else "-",
            str(record.length),
            packet_text(record),
            self._decision(record),
        ]
        if self._link_columns:
            fields[5:5] = [str(record.link), str(record.generation)]
        widths = self._widths
        for i, field in enumerate(fields):
            if len(field) < widths[i]:
                fields[i] = field.ljust(widths[i])
            elif self._align and i < len(fields) - 1:
                widths[i] = len(field)
        if not self._colour:
            return escape(" ".join(fields))
        return Escaped(f"{escape(' '.join(fields[:-1]))} {self._coloured(record, fields[-1])}")

    def tables(self, record: EventRecord) -> str:
        """The rule that matched, or what the table, or the link at a hook, decided."""
        if record.kind == Kind.PACKET:
            where = hooks.hook_text(record.pf, record.hook, record.priority)
            return (
                f"nf=[hook={where} in={word(record.in_name)} "
                f"out={word(record.out_name)}{_ports(record)} "
                f"verdict={describe.verdict(record)}]"
            )
        family = describe.protocol_family(record.pf)
        table = word(record.table)
        kind = describe.kind(record)
        if kind == "exit":
            rules = f" rules={record.rules}" if record.flags & EventFlag.COUNTED else ""
            return (
                f"iptables=[pf={family} table={table} hook={describe.hook(record)}"
                f"{_ports(record)} verdict={describe.verdict(record)} "
                f"cost={record.cost / 1000:.3f}µs{rules}]"
            )
        suffix = "" if kind == "rule" else f" kind={kind}"
        return (
            f"ipttrace=[pf={family} in={word(record.in_name)} "
            f"out={word(record.out_name)}{_ports(record)} table={table} "
            f"chain={word(record.chain)} hook={record.hook} "
            f"rulenum={record.rulenum}{suffix}]"
        )

    def _decision(self, record: EventRecord) -> str:
        tables = self.tables(record)
        if record.flags & EventFlag.PAYLOAD:
            tables += f" payload={self._payload_text(record)}"
        if self._link_columns:
            return tables
        link = record.link, record.generation
        if self._first_link is None:
            self._first_link = link
        self._several |= link != self._first_link
        return f"{tables} link={link[0]} gen={link[1]}" if self._several else tables

    def _payload_text(self, record: EventRecord) -> str:
        value = self._payload(record) if self._payload else None
        return record.payload.hex() if value is None else _compact(value)

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

    def _coloured(self, record: EventRecord, decision: str) -> str:
        text = escape(decision)
        kind = describe.kind(record)
        if kind in {"exit", "packet"}:
            colour = {"ACCEPT": _GREEN, "DROP": _RED}.get(
                describe.verdict(record).partition("(")[0], _YELLOW
            )
        else:
            colour = _CYAN if kind == "rule" else ""
        return f"{colour}{text}{_PLAIN}" if colour else text


def link_line(
    link: Link, names: NamespaceNames | None = None, measured: Measurement | None = None
) -> str:
    """A link on one line, as ``key=value`` fields; with what its programs did in an interval."""
    fields = [f"link={link.id}", f"gen={link.generation}", f"hook={describe.place(link)}"]
    if link.hook == Hook.NF:
        fields += _place(link, names)
    else:
        fields.append(f"family={link.family or 'any'}")
    fields += _programs(link.programs)
    for slot, done in sorted(link.stats.slots.items()):
        name = _slot(slot)
        fields.append(f"{name}.runs={done.runs}")
        if done.run_time:
            fields.append(f"{name}.ns={done.run_time}")
        if measured is not None:
            fields += _measured(name, measured, slot)
    if link.filter_length:
        fields.append(f"filter={link.filter_length}")
    if link.cookie:
        fields.append(f"cookie=0x{link.cookie:x}")
    if link.payload_size:
        fields.append(f"payload={link.payload_map}({link.payload_size})")
    fields.append(f"owner={owner(link)}")
    if link.hook == Hook.TABLE:
        fields.append(f"armed={','.join(map(str, sorted(link.armed))) or 'none'}")
        if link.count_rules:
            fields.append("count-rules")
    if link.rollback_in is not None:
        fields.append(f"rollback-in={link.rollback_in:.3f}s")
    stats = link.stats
    fields += [f"packets={stats.packets}", f"selected={stats.selected}", f"events={stats.events}"]
    optional = {"drops": stats.drops, "lost": stats.lost, "nested": stats.nested}
    fields += [f"{name}={value}" for name, value in optional.items() if value]
    return " ".join(fields)


def namespace(inode: int, names: NamespaceNames | None) -> str:
    """A network namespace: ``4026532355(blue)``, or the number alone."""
    name = names.name(inode) if names else None
    return f"{inode}({word(name)})" if name else str(inode)


def owner(link: Link) -> str:
    """Who holds a link: ``1234(ipttctl)``, or ``persistent``."""
    return "persistent" if link.persistent else f"{link.owner_pid}({word(link.owner_comm)})"


def change_line(
    change: LinkChange, names: NamespaceNames | None = None, made: HistoryEntry | None = None
) -> str:
    """What happened to a link, on one line; ``made`` tells how its new generation came about."""
    fields = [change.change.value]
    if change.reason is not None:
        fields.append(f"reason={describe.member(change.reason)}")
    if made is not None:
        fields += [f"action={describe.member(made.action)}", f"by={_who(made)}"]
    return " ".join([*fields, link_line(change.link, names)])


def history_line(entry: HistoryEntry) -> str:
    """How a generation of a link came about, on one line."""
    second, rest = divmod(entry.time, _NANO)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(second))
    fields = [
        f"gen={entry.generation}",
        f"action={describe.member(entry.action)}",
        f"time={moment}.{rest // 1000:06}",
        f"by={_who(entry)}",
        *_programs(entry.programs),
    ]
    return " ".join(fields)


def cpu_table(cpus: Iterable[CpuStatus]) -> Iterator[str]:
    """The event streams of the CPUs, with what each has lost since the module was loaded."""
    yield f"{'CPU':>4} {'EVENTS':>12} " + " ".join(f"{'LOST_' + c.name:>12}" for c in Loss)
    for cpu in cpus:
        lost = " ".join(f"{cpu.lost[cause]:>12}" for cause in Loss)
        yield f"{cpu.cpu:>4} {cpu.sequence:>12} {lost}"


def totals_line(events: int, packets: int | None, losses: Losses) -> str:
    """``12 events, 3 packets, lost 0``, with the causes if anything was lost."""
    seen = [_count(events, "event")]
    if packets is not None:
        seen.append(_count(packets, "packet"))
    causes = [
        f"{count} {cause}"
        for count, cause in (
            (losses.observer, "by this observer"),
            (losses.ring, "ring full"),
            (losses.memory, "no memory"),
        )
        if count
    ]
    line = f"{', '.join(seen)}, lost {losses.events}"
    if causes:
        line += f" ({', '.join(causes)})"
    if losses.nested:
        line += f", {_count(losses.nested, 'nested program run')} left out"
    return line


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _place(link: Link, names: NamespaceNames | None) -> Iterator[str]:
    yield f"netns={namespace(link.netns or 0, names)}"
    if link.ifindex:
        yield f"device={word(link.ifname or '')}({link.ifindex})"
    if link.mode is not None:
        yield f"mode={describe.member(link.mode)}"
    if link.report_drops:
        yield "report-drops"
    if link.gone is not None:
        yield f"gone={describe.member(link.gone)}"


def _programs(programs: Mapping[Slot, ProgramInfo]) -> Iterator[str]:
    for slot, program in sorted(programs.items()):
        name = _slot(slot)
        yield (
            f"{name}={program.id}({word(program.name)})" if program.name else f"{name}={program.id}"
        )
        if program.tag:
            yield f"{name}.tag={program.tag}"


def _measured(name: str, measured: Measurement, slot: Slot) -> Iterator[str]:
    stats = measured.slots.get(slot)
    if stats is not None:
        yield f"{name}.measured-runs={stats.runs}"
        if stats.runs:
            yield f"{name}.ns-per-run={stats.run_time / stats.runs:.0f}"


def _who(entry: HistoryEntry) -> str:
    return f"{entry.pid}({word(entry.comm)}) uid={entry.uid}" if entry.pid else "module"


def _slot(slot: Slot) -> str:
    return slot.name.lower()


def _ports(record: EventRecord) -> str:
    """The ports of a bridge that the packet crosses, as fields; nothing for others."""
    ports = {"physin": record.physin_name, "physout": record.physout_name}
    return "".join(f" {name}={word(port)}" for name, port in ports.items() if port)


def _compact(value: Any) -> str:
    """A decoded value without spaces, so that it stays one field."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace(" ", r"\u0020")
