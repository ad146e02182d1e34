# SPDX-License-Identifier: GPL-2.0
"""Links as a table, for terminals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ipttctl.escape import escape, word
from ipttctl.link.measurement import Measurement
from ipttctl.link.model import Link, SlotStats
from ipttctl.show import render_text
from ipttctl.system.namespace_names import NamespaceNames
from ipttproto import Slot

_NUMBERS = frozenset({"PACKETS", "SELECTED", "EVENTS", "LOST", "DROPS", "RUNS", "NS/RUN"})
_UNBOUNDED = 1 << 16
_OF_LINK = ("LINK", "GEN", "HOOK", "OWNER", "PACKETS", "SELECTED", "EVENTS", "LOST", "DROPS")
_OF_SLOT = ("SLOT", "PROGRAM", "TAG", "RUNS", "NS/RUN")


def print_links(
    links: Sequence[Link],
    measured: Mapping[int, Measurement],
    console: Console | None = None,
    names: NamespaceNames | None = None,
) -> None:
    """Print links as a table with a row for each slot, or as lines if that is too wide."""
    console = console or Console(highlight=False)
    names = names or NamespaceNames()
    if not links:
        console.print("no links")
        return
    table = _table(links, measured, names)
    unbounded = console.options.update_width(_UNBOUNDED)
    if console.measure(table, options=unbounded).maximum <= console.width:
        console.print(table)
        return
    for link in links:
        # nothing is cut off: the terminal wraps long lines
        line = render_text.link_line(link, names, measured.get(link.id))
        console.print(Text(escape(line)), soft_wrap=True)


def _table(
    links: Iterable[Link], measured: Mapping[int, Measurement], names: NamespaceNames
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in (*_OF_LINK, *_OF_SLOT):
        number = name in _NUMBERS
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for link in links:
        slots = list(_slots(link, measured.get(link.id))) or [("",) * len(_OF_SLOT)]
        table.add_row(*map(_cell, (*_link(link, names), *slots[0])))
        for slot in slots[1:]:
            table.add_row(*map(_cell, (*("",) * len(_OF_LINK), *slot)))
    return table


def _cell(text: str) -> Text:
    """The text of a cell, one line or several, taken literally, without rich's markup."""
    return Text("\n".join(map(escape, text.split("\n"))))


def _link(link: Link, names: NamespaceNames) -> tuple[str, ...]:
    stats = link.stats
    return (
        f"{link.id} {word(link.name)}".rstrip(),
        str(link.generation),
        "\n".join(_where(link, names)),
        f"{render_text.owner(link)}{' exclusive' if link.exclusive else ''}",
        str(stats.packets),
        str(stats.selected),
        str(stats.events),
        str(stats.lost),
        str(stats.drops) if link.hook.CAN_DROP else "",
    )


def _where(link: Link, names: NamespaceNames) -> Iterator[str]:
    """A link's hook and its state there, line by line."""
    yield str(link.hook)
    yield from link.hook.rows(names)
    if link.rollback_in is not None:
        yield f"back in {link.rollback_in:.1f}s"
    elif link.waits:
        yield "waits to be confirmed"
    for guard in link.guards:
        yield f"guard {guard}"
    if link.violation is not None:
        yield f"rolled back: {link.violation}"
    for name, text in link.limits.given().items():
        yield f"{name} {text}"
    if link.stats.left_out.packets:
        yield render_text.left_out_text(link.stats.left_out)
    if link.shadow is not None:
        for program in link.shadow.programs.values():
            yield f"shadow {program.id} {word(program.name)}".rstrip()
        yield f"{link.stats.disagreed} of {link.stats.agreed + link.stats.disagreed} disagree"
        for condition in link.shadow.promote_if:
            yield f"promote if {condition}"


def _slots(link: Link, measured: Measurement | None) -> Iterator[tuple[str, ...]]:
    for slot in sorted(link.programs.keys() | link.stats.slots.keys()):
        program = link.programs.get(slot)
        stats = link.stats.slots.get(slot, SlotStats())
        if measured is not None:
            stats = measured.slots.get(slot, SlotStats())
        yield (
            _name(slot),
            "-" if program is None else f"{program.id} {word(program.name)}".rstrip(),
            "" if program is None else program.tag,
            str(stats.runs),
            f"{stats.run_time / stats.runs:.0f}" if measured and stats.runs else "",
        )


def _name(slot: Slot) -> str:
    return slot.name.lower()
