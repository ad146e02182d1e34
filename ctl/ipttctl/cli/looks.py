# SPDX-License-Identifier: GPL-2.0
"""The views of events and stories that are printed, live or from a recording."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from ipttctl.cli.options import Output
from ipttctl.cli.output import EventPrinter
from ipttctl.cli.story_forms import story_form
from ipttctl.cli.story_options import StoryOptions
from ipttctl.cli.trace_stories import NamesOfStories, StoryView
from ipttctl.cli.view import EventView
from ipttctl.show.event_text import TimeFormat
from ipttctl.show.rule import RulesOf
from ipttctl.stories.model import Story
from ipttctl.system.namespace_names import NameAt


@dataclass(frozen=True)
class Look:
    """The options on how things are shown, and how many."""

    output: Output
    time_format: TimeFormat
    verbose: bool
    count: int | None


def story_view(
    look: Look,
    options: StoryOptions,
    names: NamesOfStories,
    links: Collection[int],
    clear: Callable[[], None],
    *,
    fits: Callable[[Story], bool | None] | None = None,
) -> StoryView:
    """A view that prints stories of the events of ``links``; only those that fit."""
    form = story_form(
        look.output,
        names.sources,
        summary=options.summary,
        verbose=look.verbose,
        time_format=look.time_format,
    )
    return StoryView(form, options, names, links, look.count, clear=clear, fits=fits)


def event_view(
    look: Look,
    columns: tuple[str, ...] | None,
    names: NameAt,
    links: Collection[int],
    rules: RulesOf | None,
) -> EventView:
    """A view that prints the events of ``links``."""
    printer = EventPrinter(
        look.output,
        time_format=look.time_format,
        link_columns=look.verbose,
        columns=columns,
        names=names,
        links=links,
        rules=rules,
    )
    return EventView(printer, links, look.count)
