# SPDX-License-Identifier: GPL-2.0
"""Printing of stories: each as it is told, or equal ones together."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Final, Protocol

from ipttctl.cli.options import Output
from ipttctl.cli.printing import lines
from ipttctl.escape import Escaped
from ipttctl.show.event_text import TimeFormat
from ipttctl.show.render_json import dumps
from ipttctl.show.story_json import StoryJson
from ipttctl.show.story_summary import StorySummary
from ipttctl.show.story_text import StoryText
from ipttctl.show.story_words import StorySources
from ipttctl.stories.model import Story

_UNBROKEN: Final = 1 << 20
"""The width where nobody breaks lines: programs that search for a rule find it on one."""

_REDRAW: Final = 1.0
"""Seconds between two pictures of a summary at least."""

_SHARE: Final = 10
"""A picture takes this part of the time at most."""

_HOME: Final = "\033[H\033[J"


class StoryForm(Protocol):
    """A form of output of stories.

    ``quiet``: it shows nothing before the end.
    """

    quiet: bool

    @property
    def timeout(self) -> float | None:
        """Seconds after which ``idle`` has something to do; None for never."""

    def begin(self, moment: int) -> None:
        """Take in the time of an event (CLOCK_MONOTONIC, ns), while nothing was shown."""

    def show(self, stories: Sequence[Story]) -> None:
        """Show stories that were told."""

    def idle(self) -> None:
        """Do what is due."""

    def end(self) -> None:
        """Show what is left at the end."""


class EachStory:
    """Blocks of text, or JSON objects, one for each story."""

    quiet = False
    timeout: float | None = None

    def __init__(self, form: StoryText | StoryJson) -> None:
        """Print stories in a form."""
        self._form = form

    def begin(self, moment: int) -> None:
        """Count relative times from the earliest event."""
        if isinstance(self._form, StoryText):
            self._form.begin(moment)

    def show(self, stories: Sequence[Story]) -> None:
        """Print stories."""
        lines(self._form.lines(stories))

    def idle(self) -> None:
        """Do nothing: all is printed."""

    def end(self) -> None:
        """Do nothing: all is printed."""


class SummaryText:
    """Equal stories together: all the time on a terminal, and at the end."""

    def __init__(self, summary: StorySummary) -> None:
        """Print a summary."""
        self._summary = summary
        self._live = sys.stdout.isatty()
        self.quiet = not self._live
        self._due = 0.0
        self._changed = False

    @property
    def timeout(self) -> float | None:
        """Seconds until the next picture, if it will be another one."""
        if not self._live or not self._changed:
            return None
        return max(0.0, self._due - time.monotonic())

    def begin(self, moment: int) -> None:
        """Count relative times from the earliest event."""
        self._summary.begin(moment)

    def show(self, stories: Sequence[Story]) -> None:
        """Count stories."""
        self._summary.add(stories)
        self._changed = True
        self.idle()

    def idle(self) -> None:
        """Draw the summary again if it is time for that."""
        begin = time.monotonic()
        if not self._live or not self._changed or begin < self._due:
            return
        self._changed = False
        lines(_at_home(self._top()))
        now = time.monotonic()
        self._due = now + max(_REDRAW, _SHARE * (now - begin))

    def end(self) -> None:
        """Print all of it."""
        found = self._summary.lines()
        lines(_at_home(found) if self._live else found)

    def _top(self) -> list[Escaped]:
        """As many lines as the terminal has room for, the last one that of totals."""
        size = shutil.get_terminal_size()
        found = self._summary.lines()
        # the line behind the last one is the cursor's
        room = max(1, size.lines - 2)
        shown: list[Escaped] = []
        for line in found[:-1]:
            room -= max(1, -(-len(line) // size.columns))
            if room < 0:
                break
            shown.append(line)
        return [*shown, found[-1]]


def _at_home(found: list[Escaped]) -> list[Escaped]:
    """Lines that take the place of all that the terminal shows."""
    return [Escaped(f"{_HOME}{found[0]}"), *found[1:]]


class SummaryJson:
    """An object for each group of equal stories, at the end."""

    quiet = True
    timeout: float | None = None

    def __init__(self, summary: StorySummary) -> None:
        """Print a summary."""
        self._summary = summary

    def begin(self, moment: int) -> None:
        """Do nothing: objects have the times of day."""

    def show(self, stories: Sequence[Story]) -> None:
        """Count stories."""
        self._summary.add(stories)

    def idle(self) -> None:
        """Do nothing: it is printed at the end."""

    def end(self) -> None:
        """Print all of it."""
        lines(dumps(group) for group in self._summary.objects())


def story_form(
    output: Output,
    sources: StorySources,
    *,
    summary: bool = False,
    verbose: bool = False,
    time_format: TimeFormat = TimeFormat.CLOCK,
) -> StoryForm:
    """The form for options of a command line."""
    if output is Output.JSON:
        return SummaryJson(StorySummary(sources)) if summary else EachStory(StoryJson(sources))
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else _UNBROKEN
    colour = terminal and "NO_COLOR" not in os.environ
    if summary:
        # its blocks are indented by two
        options = {"verbose": verbose, "colour": colour, "time_format": time_format}
        return SummaryText(StorySummary(sources, width=width - 2, **options))
    return EachStory(
        StoryText(width, verbose=verbose, colour=colour, time_format=time_format, sources=sources)
    )
