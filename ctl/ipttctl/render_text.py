# SPDX-License-Identifier: GPL-2.0
"""Events, links and the module for people: lines of text."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from ipttctl import describe
from ipttctl.losses import Losses
from ipttctl.netns import NamespaceNames
from ipttctl.objects import CpuStatus, Link, LinkChange, ProgramInfo
from ipttproto import DetachReason, EventFlag, Hook, Loss

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
#: protocol -> how its packets begin
_LETTERS: Final = {6: "T", 17: "U", 1: "I", 58: "I"}
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
    ) -> None:
        """Without ``link_columns`` a line names its link once there is more than one.

        One link after a swap counts as more than one. ``names`` tells names of namespaces.
        """
        self._time_format = time_format
        self._link_columns = link_columns
        self._colour = colour
        self._align = align
        self._names = names
        self._columns = [c for c in _COLUMNS if link_columns or c not in _LINK_COLUMNS]
        self._widths = [max(len(c), _COLUMNS[c] if align else 0) for c in self._columns]
        self._widths[-1] = 0
        self._first_time: int | None = None
        self._first_link: tuple[int, int] | None = None
        self._several = False
        self._second = -1
        self._clock = ""

    def header(self) -> str:
        """The line above the first event."""
        line = " ".join(
            name.ljust(width) for name, width in zip(self._columns, self._widths, strict=True)
        ).rstrip()
        return f"{_BOLD}{line}{_PLAIN}" if self._colour else line

    def line(self, record: EventRecord) -> str:
        """The line for an event."""
        name, index = describe.interface(record)
        flags = record.flags
        fields = [
            self._time(record),
            f"0x{record.skb:x}",
            self._namespace(record.netns),
            str(record.pid) if flags & EventFlag.PID else "-",
            str(record.cpu),
            f"{name}({index})" if name else "-",
            describe.mac(record.dmac) if flags & EventFlag.DMAC else "-",
            str(record.length),
            self.packet(record),
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
        if self._colour:
            fields[-1] = self._coloured(record, fields[-1])
        return " ".join(fields)

    def packet(self, record: EventRecord) -> str:
        """Protocol and ends: ``T_ACK,PSH:192.168.1.138:22->192.168.1.12:53030``."""
        source = describe.address(record.saddr, record.pf)
        destination = describe.address(record.daddr, record.pf)
        if record.pf == 10:
            source, destination = f"[{source}]", f"[{destination}]"
        protocol = record.protocol
        whole = describe.has_ports(record)
        if protocol in {describe.TCP, describe.UDP} and whole:
            source, destination = f"{source}:{record.sport}", f"{destination}:{record.dport}"
        if not whole:
            kind = "fragment" if record.flags & EventFlag.FRAGMENT else "truncated"
            what = f"{_LETTERS.get(protocol, f'P_{protocol}')}_{kind}"
        elif protocol == describe.TCP:
            what = f"T_{describe.tcp_flags(record.tcp_flags)}"
        elif protocol == describe.UDP:
            what = "U"
        elif protocol in {describe.ICMP, describe.ICMPV6}:
            kind = describe.echo(record) or f"{record.icmp_type}/{record.icmp_code}"
            what = f"I_{kind}"
        else:
            what = f"P_{protocol}"
        return f"{what}:{source}->{destination}"

    def tables(self, record: EventRecord) -> str:
        """The rule that matched, or what the table decided."""
        family = describe.protocol_family(record.pf)
        table = describe.text(record.table)
        kind = describe.kind(record)
        if kind == "exit":
            return (
                f"iptables=[pf={family} table={table} hook={describe.hook(record.hook)} "
                f"verdict={describe.verdict(record)} cost={record.cost / 1000:.3f}µs "
                f"rules={record.rules}]"
            )
        suffix = "" if kind == "rule" else f" kind={kind}"
        return (
            f"ipttrace=[pf={family} in={describe.text(record.in_name)} "
            f"out={describe.text(record.out_name)} table={table} "
            f"chain={describe.text(record.chain)} hook={record.hook} "
            f"rulenum={record.rulenum}{suffix}]"
        )

    def _decision(self, record: EventRecord) -> str:
        tables = self.tables(record)
        if self._link_columns:
            return tables
        link = record.link, record.generation
        if self._first_link is None:
            self._first_link = link
        self._several |= link != self._first_link
        return f"{tables} link={link[0]} gen={link[1]}" if self._several else tables

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

    def _namespace(self, inode: int) -> str:
        name = self._names.name(inode) if self._names else None
        return f"{inode}({name})" if name else str(inode)

    def _coloured(self, record: EventRecord, decision: str) -> str:
        kind = describe.kind(record)
        if kind == "exit":
            colour = {"ACCEPT": _GREEN, "DROP": _RED}.get(
                describe.verdict(record).partition("(")[0], _YELLOW
            )
        else:
            colour = _CYAN if kind == "rule" else ""
        return f"{colour}{decision}{_PLAIN}" if colour else decision


def link_line(link: Link) -> str:
    """A link on one line, as ``key=value`` fields."""
    fields = [
        f"link={link.id}",
        f"gen={link.generation}",
        f"hook={link.hook.name.lower() if isinstance(link.hook, Hook) else link.hook}",
        f"family={link.family or 'any'}",
        *(f"{slot.name.lower()}={_program(p)}" for slot, p in sorted(link.programs.items())),
    ]
    if link.filter_length:
        fields.append(f"filter={link.filter_length}")
    if link.cookie:
        fields.append(f"cookie=0x{link.cookie:x}")
    owner = "persistent" if link.persistent else f"{link.owner_pid}({link.owner_comm})"
    fields.append(f"owner={owner}")
    fields.append(f"armed={','.join(map(str, sorted(link.armed))) or 'none'}")
    stats = link.stats
    fields += [f"packets={stats.packets}", f"selected={stats.selected}", f"events={stats.events}"]
    if stats.nested:
        fields.append(f"nested={stats.nested}")
    return " ".join(fields)


def change_line(change: LinkChange) -> str:
    """What happened to a link, on one line."""
    reason = ""
    if change.reason is not None:
        why = change.reason
        reason = f" reason={why.name.lower() if isinstance(why, DetachReason) else why}"
    return f"{change.change.value}{reason} {link_line(change.link)}"


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


def _program(program: ProgramInfo) -> str:
    return f"{program.id}({program.name})" if program.name else str(program.id)
