# SPDX-License-Identifier: GPL-2.0
"""Links and the module as lines of text."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from ipttctl.escape import quoted, word
from ipttctl.events import describe
from ipttctl.link.condition import Violation
from ipttctl.link.limits import LeftOut
from ipttctl.link.losses import Losses
from ipttctl.link.measurement import Measurement
from ipttctl.link.model import (
    CpuStatus,
    HistoryEntry,
    Link,
    LinkChange,
    ModuleStatus,
    ProgramInfo,
)
from ipttctl.numbers import counted
from ipttctl.system.namespace_names import NameAt
from ipttproto import Layout, Loss, Slot

_NANO: Final = 10**9
_MILLI: Final = 10**3


def link_line(link: Link, names: NameAt | None = None, measured: Measurement | None = None) -> str:
    """A link on one line of ``key=value`` fields, with the measurement of its programs, if any."""
    fields = [f"link={link.id}"]
    if link.name:
        fields.append(f"name={word(link.name)}")
    fields += [f"gen={link.generation}", f"hook={link.hook}"]
    fields += link.hook.fields(names)
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
    fields += [f"{name}={text}" for name, text in link.limits.given().items()]
    fields.append(f"owner={owner(link)}")
    if link.exclusive:
        fields.append("exclusive=yes")
    fields += [f"label.{word(key)}={quoted(value)}" for key, value in link.labels.items()]
    if link.reason:
        fields.append(f"reason-text={quoted(link.reason)}")
    if link.journey is not None:
        fields.append(f"journey={link.journey}")
    fields += link.hook.state_fields()
    if link.ended is not None and link.ended < link.generation - 1:
        fields.append(f"ended={link.ended}")
    fields += _last_swap(link)
    stats = link.stats
    fields += [f"packets={stats.packets}", f"selected={stats.selected}", f"events={stats.events}"]
    optional = {
        "drops": stats.drops,
        "lost": stats.lost,
        "nested": stats.nested,
        "left-out": stats.left_out.packets,
    }
    fields += [f"{name}={value}" for name, value in optional.items() if value]
    return " ".join([*fields, *_shadow(link)])


def owner(link: Link) -> str:
    """The owner of a link: ``1234(ipttctl)``, or ``persistent``."""
    return "persistent" if link.persistent else f"{link.owner_pid}({word(link.owner_comm)})"


def change_line(
    change: LinkChange, names: NameAt | None = None, made: HistoryEntry | None = None
) -> str:
    """A change of a link on one line; ``made`` is the origin of its new generation."""
    fields = [change.change.value]
    if change.reason is not None:
        fields.append(f"reason={describe.member(change.reason)}")
    if change.forced_pid:
        fields.append(f"forced-by={change.forced_pid}({word(change.forced_comm)})")
    if made is not None:
        fields += [f"action={describe.member(made.action)}", f"by={_who(made)}"]
    elif change.requester_pid:
        fields.append(f"by={change.requester_pid}({word(change.requester_comm)})")
    return " ".join([*fields, link_line(change.link, names)])


def listed_line(link: Link, names: NameAt | None = None) -> str:
    """A link in the list that a stream of changes begins with."""
    return f"listed {link_line(link, names)}"


def history_line(entry: HistoryEntry) -> str:
    """The origin of a link's generation, on one line."""
    second, rest = divmod(entry.time, _NANO)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(second))
    fields = [
        f"gen={entry.generation}",
        f"action={describe.member(entry.action)}",
        f"time={moment}.{rest // 1000:06}",
        f"by={_who(entry)}",
        *([f"transaction={entry.transaction}"] if entry.transaction else []),
        *_programs(entry.programs),
    ]
    if entry.reason:
        fields.append(f"reason-text={quoted(entry.reason)}")
    if entry.violation is not None:
        fields += _violation(entry.violation)
    return " ".join(fields)


def walk(status: ModuleStatus) -> str:
    """``walk verified``: what is known of the module's walks; empty if not even that.

    Kernels whose sources nobody compared with it are told, and those whose structures it does not
    fit.
    """
    if not status.walk:
        return ""
    if status.walk_layout == Layout.DIFFERS:
        return "walk refused"
    compared = "" if status.walk_compared else " (nobody compared it with this series of kernels)"
    spine = ""
    if status.spine_walk not in {0, status.walk}:
        spine = f", along the spine {describe.member(status.spine_walk)}"
    return f"walk {describe.member(status.walk)}{compared}{spine}"


def cpu_table(cpus: Iterable[CpuStatus]) -> Iterator[str]:
    """The event streams of the CPUs, with the losses of each since the module was loaded."""
    yield f"{'CPU':>4} {'EVENTS':>12} " + " ".join(f"{'LOST_' + c.name:>12}" for c in Loss)
    for cpu in cpus:
        lost = " ".join(f"{cpu.lost[cause]:>12}" for cause in Loss)
        yield f"{cpu.cpu:>4} {cpu.sequence:>12} {lost}"


def totals_line(
    events: int, packets: int | None, losses: Losses, left_out: LeftOut | None = None
) -> str:
    """``12 events, 3 packets, lost 0``, with the causes if anything was lost or left out."""
    seen = [counted(events, "event")]
    if packets is not None:
        seen.append(counted(packets, "packet"))
    causes = {
        "by this observer": losses.observer,
        "ring full": losses.ring,
        "no memory": losses.memory,
    }
    line = f"{', '.join(seen)}, lost {losses.events}{_causes(causes)}"
    if losses.nested:
        line += f", {counted(losses.nested, 'nested program run')} left out"
    if left_out and left_out.packets:
        line += f", {left_out_text(left_out)}"
    return line


def left_out_text(left_out: LeftOut) -> str:
    """``12 packets left out (10 over the rate, 2 by the governor)``."""
    causes = {
        "not of the sample": left_out.sample,
        "over the rate": left_out.rate,
        "by the governor": left_out.governor,
    }
    return f"{counted(left_out.packets, 'packet')} left out{_causes(causes)}"


def _causes(counts: Mapping[str, int]) -> str:
    """The numbers by cause in brackets, but for those that are 0; empty if all are."""
    words = [f"{count} {cause}" for cause, count in counts.items() if count]
    return f" ({', '.join(words)})" if words else ""


def _last_swap(link: Link) -> Iterator[str]:
    """The fate of the last swap."""
    if link.outcome is not None:
        yield f"last-swap={describe.member(link.outcome)}"
    if link.rollback_in is not None:
        yield f"rollback-in={link.rollback_in:.3f}s"
    for guard in link.guards:
        yield f"guard={guard.word()}"
    if link.violation is not None:
        yield from _violation(link.violation)


def _violation(violation: Violation) -> Iterator[str]:
    yield f"violation={violation.condition.word()}"
    yield f"violation.count={violation.count}"
    yield f"violation.packets={violation.packets}"
    yield f"violation.time={violation.time / _MILLI:.3f}s"
    yield f"violation.link={violation.link}"


def _programs(programs: Mapping[Slot, ProgramInfo]) -> Iterator[str]:
    for slot, program in sorted(programs.items()):
        name = _slot(slot)
        yield (
            f"{name}={program.id}({word(program.name)})" if program.name else f"{name}={program.id}"
        )
        if program.tag:
            yield f"{name}.tag={program.tag}"


def _shadow(link: Link) -> Iterator[str]:
    """A link's shadow, and the counters of the current or the last one."""
    stats = link.stats
    if link.shadow is not None:
        for field in _programs(link.shadow.programs):
            yield f"shadow.{field}"
        yield f"shadow.number={link.shadow.number}"
        for condition in link.shadow.promote_if:
            yield f"shadow.promote-if={condition.word()}"
    if link.shadow is not None or stats.agreed or stats.disagreed:
        yield f"agreed={stats.agreed}"
        yield f"disagreed={stats.disagreed}"
    if stats.shadow_run_time:
        yield f"shadow.ns={stats.shadow_run_time}"


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
