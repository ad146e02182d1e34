# SPDX-License-Identifier: GPL-2.0
"""Printing of links, events and the like, as text or as JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TextIO

from ipttctl.cli.options import Output
from ipttctl.cli.printing import lines, note
from ipttctl.errors import UsageError
from ipttctl.escape import word
from ipttctl.events.records import EventRecord
from ipttctl.link.limits import LeftOut
from ipttctl.link.losses import Losses
from ipttctl.link.measurement import Measurement
from ipttctl.link.model import HistoryEntry, Link, LinkChange, LinkList
from ipttctl.show import render_json, render_text
from ipttctl.show.event_blocks import EventBlocks
from ipttctl.show.event_json import EventJson
from ipttctl.show.event_table import WIDE, EventTable, parse_columns
from ipttctl.show.event_text import TimeFormat
from ipttctl.show.rule import RulesOf
from ipttctl.system.namespace_names import NameAt, NamespaceNames
from ipttproto import JoinedBatches


def tell_state(link: Link) -> None:
    """Report whether a link lacks something: tables that it waits for, or its hook."""
    for sentence in link.hook.misses(link.id):
        note(sentence)


def tell_force(change: LinkChange) -> None:
    """Report a change that somebody made by force."""
    if change.forced_pid:
        who = f"process {change.forced_pid} ({change.forced_comm})"
        note(f"link {change.link.id} was {change.change} by force, by {who}")


def links(
    values: Sequence[Link],
    output: Output,
    measured: Mapping[int, Measurement] = MappingProxyType({}),
    *,
    to: TextIO | None = None,
) -> None:
    """Print links, one a line, with their measurements, if any, by link id."""
    names = NamespaceNames()
    texts = (
        render_json.dumps(render_json.link_object(link, names, measured.get(link.id)))
        if output is Output.JSON
        else render_text.link_line(link, names, measured.get(link.id))
        for link in values
    )
    lines(texts, to)


def history(
    entries: Sequence[HistoryEntry],
    output: Output,
    constants: Mapping[int, Mapping[str, Any]],
) -> None:
    """Print the history of a link's generations, one a line.

    ``constants`` are those of the programs that are still loaded, by the programs' ids.
    """
    for entry in entries:
        known = {
            slot.name.lower(): constants[program.id]
            for slot, program in entry.programs.items()
            if constants.get(program.id)
        }
        if output is Output.JSON:
            lines([render_json.dumps({**render_json.history_object(entry), "constants": known})])
        else:
            words = [
                f"{slot}.set.{name}={word(_constant(value))}"
                for slot, values in known.items()
                for name, value in values.items()
            ]
            lines([" ".join([render_text.history_line(entry), *words])])


def _constant(value: Any) -> str:
    """A constant in the form that --set takes."""
    return value if isinstance(value, str) else json.dumps(value)


def change(
    value: LinkChange,
    output: Output,
    names: NamespaceNames | None = None,
    made: HistoryEntry | None = None,
) -> None:
    """Print a change of a link, and the origin of its new generation."""
    if output is Output.JSON:
        lines([render_json.dumps(render_json.change_object(value, names, made))])
    else:
        lines([render_text.change_line(value, names, made)])


def link_list(value: LinkList, output: Output, names: NamespaceNames | None = None) -> None:
    """Print a list of links: as one JSON object, or one link a line."""
    if output is Output.JSON:
        lines([render_json.dumps(render_json.link_list_object(value, names))])
    else:
        lines(render_text.listed_line(link, names) for link in value.links)


def totals(
    events: int, packets: int | None, losses: Losses, left_out: LeftOut | None = None
) -> None:
    """Print the totals at the end of a stream."""
    note(render_text.totals_line(events, packets, losses, left_out))


@contextmanager
def walk_progress() -> Iterator[Callable[[int, int], None]]:
    """Report the progress of a verification, on one line of a terminal, else at its beginning."""
    terminal = sys.stderr.isatty()
    what = "verifying that the module walks through nftables' chains as this kernel does"
    if not terminal:
        note(f"{what} (once; takes some seconds)...")

    def show(done: int, count: int) -> None:
        if terminal:
            print(f"\r{what}: {done}/{count}", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if terminal:
            print(file=sys.stderr, flush=True)


class EventPrinter:
    """A printer of events, as JSON or as text: a table, or blocks if the terminal is narrow."""

    def __init__(
        self,
        output: Output,
        *,
        time_format: TimeFormat = TimeFormat.CLOCK,
        link_columns: bool = False,
        columns: Sequence[str] | None = None,
        names: NameAt | None = None,
        payload: Callable[[EventRecord], Any] | None = None,
        links: Collection[int] = (),
        rules: RulesOf | None = None,
    ) -> None:
        """Make a printer.

        Events of ``links`` need not be told apart. ``rules`` gives the texts of their rules.

        ``columns`` are the table's columns, shown whatever the terminal's width is. ``names``
        gives the names of namespaces. ``payload`` decodes the bytes that a program added to an
        event.
        """
        self._form: EventTable | EventBlocks | EventJson
        if output is not Output.TEXT:
            self._form = EventJson(names, payload, rules)
            return
        options: dict[str, Any] = {
            "time_format": time_format,
            "link_columns": link_columns,
            "colour": sys.stdout.isatty() and "NO_COLOR" not in os.environ,
            "names": names,
            "payload": payload,
            "links": links,
            "rules": rules,
        }
        if self.has_room(output, columns):
            self._form = EventTable(columns, **options)
        else:
            self._form = EventBlocks(shutil.get_terminal_size().columns, **options)
        lines(self._form.header())

    @staticmethod
    def has_room(output: Output, columns: Sequence[str] | None) -> bool:
        """Whether the output has lines of any length: not on a narrow terminal."""
        if output is not Output.TEXT or columns is not None or not sys.stdout.isatty():
            return True
        return shutil.get_terminal_size().columns >= WIDE

    @classmethod
    def shows_rules(
        cls, wanted: bool | None, output: Output, columns: Sequence[str] | None
    ) -> bool:
        """Whether rules are shown; if that is not said, they are where there is room for them."""
        return cls.has_room(output, columns) if wanted is None else wanted

    def print(self, events: JoinedBatches) -> None:
        """Print events and flush them."""
        lines(self._form.lines(events))

    def tell_left_out(self, record: EventRecord) -> None:
        """Report packets that a link leaves out; in JSON it is an event as others are."""
        if isinstance(self._form, EventJson):
            lines([render_json.dumps(render_json.event_object(record))])
        else:
            left_out = render_text.left_out_text(LeftOut.from_record(record))
            note(f"link {record.link}: {left_out} so far")


def event_columns(text: str | None, output: Output) -> tuple[str, ...] | None:
    """The columns that --columns names; None if it is not given.

    Raises:
        UsageError: there is no such column, or the output format has no columns.
    """
    if text is None:
        return None
    if output is not Output.TEXT:
        raise UsageError(f"--columns: -o {output} has no columns", "choose keys of its objects")
    return parse_columns(text)
