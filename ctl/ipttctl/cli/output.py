# SPDX-License-Identifier: GPL-2.0
"""Printing: data to standard output, everything else to standard error."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from ipttctl import render_json, render_text
from ipttctl.cli.options import Output
from ipttctl.losses import Losses
from ipttctl.netns import NamespaceNames
from ipttctl.objects import Link, LinkChange
from ipttctl.render_text import EventText, TimeFormat

if TYPE_CHECKING:
    from ipttctl.records import EventRecord


_TABLE_CODE: Final = {4: "ip_tables", 6: "ip6_tables"}


class ReaderGoneError(Exception):
    """Nobody reads standard output any more."""


def note(text: str) -> None:
    """Tell the person at the terminal something that is not data."""
    print(text, file=sys.stderr, flush=True)


def tell_waiting(link: Link) -> None:
    """Say which tables a link waits for, if for any: until then it sees none of their packets."""
    for version in sorted(link.waiting):
        note(f"no IPv{version} tables: {_TABLE_CODE[version]} is not loaded; waiting for it")


def lines(texts: Iterable[str]) -> None:
    """Print lines, and have them out before returning.

    Raises:
        ReaderGoneError: instead of BrokenPipeError, which typer would make an error of.
    """
    try:
        sys.stdout.writelines(f"{text}\n" for text in texts)
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderGoneError from None


def links(values: Sequence[Link], output: Output) -> None:
    """Print links, one a line."""
    if output is Output.JSON:
        lines(render_json.dumps(render_json.link(link)) for link in values)
    else:
        lines(render_text.link_line(link) for link in values)


def change(value: LinkChange, output: Output) -> None:
    """Print what happened to a link."""
    if output is Output.JSON:
        lines([render_json.dumps(render_json.change(value))])
    else:
        lines([render_text.change_line(value)])


def totals(events: int, packets: int | None, losses: Losses) -> None:
    """Tell at the end of a stream what it showed."""
    note(render_text.totals_line(events, packets, losses))


class EventPrinter:
    """Prints events as lines, in either form."""

    def __init__(
        self,
        output: Output,
        *,
        time_format: TimeFormat = TimeFormat.CLOCK,
        link_columns: bool = False,
    ) -> None:
        self._names = NamespaceNames()
        self._text: EventText | None = None
        if output is Output.TEXT:
            terminal = sys.stdout.isatty()
            columns = shutil.get_terminal_size().columns
            self._text = EventText(
                time_format=time_format,
                link_columns=link_columns,
                colour=terminal and "NO_COLOR" not in os.environ,
                align=not terminal or columns >= render_text.WIDE,
                names=self._names,
            )
            lines([self._text.header()])

    def print(self, records: Iterable[EventRecord]) -> None:
        """Print events, and have them out before returning."""
        if self._text:
            lines(map(self._text.line, records))
        else:
            names = self._names
            lines(render_json.dumps(render_json.event(record, names)) for record in records)
