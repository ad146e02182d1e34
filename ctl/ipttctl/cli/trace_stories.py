# SPDX-License-Identifier: GPL-2.0
"""The stories that ``trace`` tells of its links' events."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

from ipttctl.cli.output import totals
from ipttctl.cli.printing import note
from ipttctl.cli.story_forms import StoryForm
from ipttctl.cli.story_options import StoryOptions
from ipttctl.cli.view import LinkEvents
from ipttctl.events.records import EventRecord
from ipttctl.link.limits import LeftOut
from ipttctl.link.losses import Losses
from ipttctl.numbers import counted
from ipttctl.show.render_text import left_out_text
from ipttctl.show.story_totals import StoryTotals, story_totals_line
from ipttctl.show.story_words import StorySources
from ipttctl.stories.assemble import SETTLE, StoryAssembler
from ipttctl.stories.gaps import Gap
from ipttctl.stories.model import Story, has_ended, is_drop
from ipttproto import JoinedBatches

_TICK: Final = SETTLE / 1_000_000_000
"""Seconds between two looks for stories that are due."""


class NamesOfStories(Protocol):
    """The sources of names of stories, which look them up when events come."""

    @property
    def sources(self) -> StorySources:
        """The sources."""

    def learn(self, events: JoinedBatches) -> None:
        """Look up what events that have just come name."""


class StoryView(LinkEvents):
    """Joins events into stories, and shows those that are wanted as they end."""

    def __init__(
        self,
        form: StoryForm,
        options: StoryOptions,
        names: NamesOfStories,
        links: Collection[int],
        count: int | None,
        *,
        clear: Callable[[], None] = lambda: None,
        fits: Callable[[Story], bool | None] | None = None,
    ) -> None:
        """Show ``count`` stories at most, of the events of ``links``.

        ``clear`` is called before anything is printed. Only stories that fit are told, as if there
        were no others; of those for which it is None nobody knows.
        """
        super().__init__(links)
        self._form = form
        self._drops = options.drops
        self._names = names
        self._count = count
        self._clear = clear
        self._fits = fits
        self._assembler = StoryAssembler(options.patience_ns, await_drops=options.drops)
        self._open = 0
        self.told = 0
        """Stories that were shown, or are to be at the end."""
        self.passed_over = 0
        """Stories of packets that ended without a drop, which were not wanted."""
        self.untold = 0
        """Stories of which nobody knows whether they fit, and that were wanted otherwise."""

    @property
    def full(self) -> bool:
        """Whether ``count`` stories were shown."""
        return self._count is not None and self.told >= self._count

    @property
    def waiting(self) -> int:
        """Number of stories that have not ended."""
        return self._assembler.open_stories

    @property
    def timeout(self) -> float | None:
        """Seconds until stories may be due, or the form."""
        times = [self._form.timeout, _TICK if self.waiting else None]
        return min((one for one in times if one is not None), default=None)

    @property
    def progress(self) -> str | None:
        """A sentence on what is followed; None once something was shown."""
        if self.told and self._form.quiet:
            return f"watching, {counted(self.told, 'story', 'stories')} counted"
        if self.told:
            return None
        if self.passed_over:
            return f"watching, {counted(self.passed_over, 'packet')} ended without a drop"
        if not self.waiting:
            return "watching, no packet yet"
        return f"watching, {counted(self.waiting, 'packet')} followed, nothing ended yet"

    def idle(self) -> None:
        """Tell stories that are due: nothing has come of their packets, and all was read."""
        self.due(time.monotonic_ns())
        self._form.idle()

    def due(self, now: int) -> None:
        """Tell the stories that are due at a time (CLOCK_MONOTONIC, ns)."""
        self._tell(self._assembler.due(now))

    def end(self) -> None:
        """Tell all stories that are left."""
        if not self.full:
            # those that have ended; no event of theirs can come any more
            self.due(time.monotonic_ns() + SETTLE)
        self.end_without_clock()

    def end_without_clock(self) -> None:
        """Tell all stories that are left, without a look at the clock."""
        self._open = self.waiting
        self._tell(self._assembler.flush())
        self._clear()
        self._form.end()

    def totals(
        self, losses: Losses, left_out: LeftOut, *, unfollowed: int = 0, lost_sight: int = 0
    ) -> None:
        """Print numbers of stories, then events, packets and losses."""
        counts = StoryTotals(
            told=self.told,
            passed_over=self.passed_over,
            open=self._open,
            unfinished=self._assembler.unfinished,
            late=self._assembler.late,
            unfollowed=unfollowed,
            lost_sight=lost_sight,
        )
        note(story_totals_line(counts))
        totals(self.events, None, losses, left_out)

    def lose(self, gap: Gap) -> None:
        """Have the stories of packets that were on their way say that events were lost."""
        self._assembler.lose(gap)

    def suspect(self, gaps: Sequence[Gap]) -> None:
        """Have the stories of packets that end meanwhile say so, too."""
        self._assembler.suspect(gaps)

    def _take(self, events: JoinedBatches) -> None:
        if not events or self.full:
            return
        self.events += len(events)
        if not self.told:
            self._form.begin(min(events.values("time")))
        self._names.learn(events)
        self._tell(self._assembler.add_events(events))

    def _tell(self, stories: list[Story]) -> None:
        """Show the wanted ones of stories that were told."""
        wanted: list[Story] = []
        for story in stories:
            fits = True if self._fits is None else self._fits(story)
            if self._drops and not is_drop(story):
                # those of which that is not known are open, unfinished or lost sight of
                self.passed_over += bool(fits) and has_ended(story)
            elif self._count is None or self.told + len(wanted) < self._count:
                self.untold += fits is None
                if fits:
                    wanted.append(story)
        if wanted:
            self.told += len(wanted)
            self._clear()
            self._form.show(wanted)

    def _tell_left_out(self, record: EventRecord) -> None:
        self._clear()
        note(f"link {record.link}: {left_out_text(LeftOut.from_record(record))} so far")
