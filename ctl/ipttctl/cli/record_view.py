# SPDX-License-Identifier: GPL-2.0
"""The views of ``record``: events and stories go to a file, and their names with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ipttctl.cli.output import totals
from ipttctl.cli.printing import note
from ipttctl.cli.record_rulesets import RecordedRulesets
from ipttctl.cli.story_options import StoryOptions
from ipttctl.cli.story_sources import StoryNames
from ipttctl.cli.trace_links import TraceLinks
from ipttctl.cli.trace_stories import StoryView
from ipttctl.cli.view import LinkEvents
from ipttctl.events.packets import PacketCounter
from ipttctl.events.records import EventRecord, decode_event
from ipttctl.link.limits import LeftOut
from ipttctl.link.losses import Losses
from ipttctl.numbers import counted
from ipttctl.recordings.answers import Recorder
from ipttctl.recordings.writer import RecordingWriter
from ipttctl.show.render_json import link_object
from ipttctl.show.story_json import StoryJson
from ipttctl.show.story_words import StorySources
from ipttctl.stories.gaps import Gap
from ipttctl.stories.model import Story
from ipttctl.stories.steps import OF_RULES
from ipttctl.system.namespace_names import NameAt
from ipttproto import EventBatch, JoinedBatches

_CAUSES = ("observer", "ring", "memory")


@dataclass
class Recorded:
    """A recording, and what its events are taken from."""

    writer: RecordingWriter
    losses: Callable[[], Losses]
    links: TraceLinks
    names: NameAt
    rulesets: RecordedRulesets | None = None
    _told: Losses = field(default_factory=Losses)
    _noted: set[int] = field(default_factory=set)

    def begin(self, value: dict[str, Any]) -> None:
        """Write the beginning, with the links."""
        self.writer.note({**value, **self._new_links()})
        self.writer.flush()
        if self.rulesets:
            self.rulesets.start()

    def write_events(self, batches: list[EventBatch], links: Collection[int]) -> None:
        """Write the events of links among some that were read together."""
        chosen = [one for batch in batches if len(one := _of_links(batch, links))]
        if chosen:
            # one that follows its namespace takes the place of another
            if self.links.ids > self._noted:
                self.writer.note({"about": "links", **self._new_links()})
                self.writer.flush_names()
            self._tell_losses()
            self.writer.write_events(chosen)
            self._look_at_rules(chosen)

    def end(self, losses: Losses, left_out: LeftOut, **counts: int) -> None:
        """Write the end."""
        if self.rulesets:
            self.rulesets.end()
            self._look_at_rules(())
        self._tell_losses(losses)
        self.writer.end(
            {
                "about": "end",
                "losses": asdict(losses),
                "left_out": asdict(left_out),
                "links": sorted(self.links.ids),
                "taken": list(self.links.taken),
                **counts,
            }
        )

    @property
    def progress(self) -> str:
        """A sentence on what was written."""
        size = f"{self.writer.size / 1_000_000:.1f} MB"
        return f"recording, {size}{', full' if self.writer.full else ''}"

    def tell_thrown_away(self) -> None:
        """Say what the bound threw away, and what was too long."""
        tell_thrown_away(self.writer.thrown_away, self.writer.too_long)

    def _look_at_rules(self, batches: Iterable[EventBatch]) -> None:
        """Have the rules listed that events tell of, and write what was listed."""
        if self.rulesets is None:
            return
        for batch in batches:
            found: Any = batch.events
            names = ("netns_cookie", "netns", "ruleset")
            for one in set(zip(*(found[name].tolist() for name in names), strict=True)):
                self.rulesets.want(*one)
        for value in self.rulesets.take():
            self.writer.note_rule(value)

    def _new_links(self) -> dict[str, Any]:
        """The links that were not written yet."""
        new = self.links.ids - self._noted
        self._noted |= new
        there = [link for number, link in self.links.there.items() if number in new]
        return {
            "links": sorted(new),
            "link_objects": [link_object(link, self.names) for link in there],
        }

    def _tell_losses(self, now: Losses | None = None) -> None:
        now = now or self.losses()
        before, self._told = self._told, now
        self.writer.lose(
            {cause: max(0, getattr(now, cause) - getattr(before, cause)) for cause in _CAUSES}
        )


def tell_thrown_away(thrown_away: object, too_long: object) -> None:
    """Say what is not in a recording, of numbers by kind; what is none is passed over."""
    for why, found in (("the file was full", thrown_away), ("too long for a file", too_long)):
        if isinstance(found, dict) and found:
            parts = [
                f"{count if type(count) is int else 0} {kind}" for kind, count in found.items()
            ]
            note(f"{why}: {', '.join(parts)} left out")


class _StoryFile:
    """The form of stories that writes them to a recording."""

    quiet = True
    timeout: float | None = None

    def __init__(self, writer: RecordingWriter, sources: StorySources) -> None:
        self._writer = writer
        self._json = StoryJson(sources)

    def begin(self, moment: int) -> None:
        """Do nothing: stories have the times of day."""

    def show(self, stories: Sequence[Story]) -> None:
        """Write stories."""
        for line in self._json.lines(stories):
            self._writer.story(line)

    def idle(self) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing: the end comes with the totals."""


class _RecordedNames:
    """The sources of names of a recording, which write their answers."""

    def __init__(self, names: StoryNames, writer: RecordingWriter) -> None:
        self._names = names
        self._rules = Recorder(names.sources, writer.note, writer.note_rule)
        self.sources = self._rules.sources

    def learn(self, events: JoinedBatches) -> None:
        """Look up what events that have just come name."""
        self._names.learn(events)


class RecordView(StoryView):
    """Joins events into stories, and writes both."""

    def __init__(
        self,
        recorded: Recorded,
        options: StoryOptions,
        names: StoryNames,
        links: Collection[int],
        count: int | None,
        *,
        clear: Callable[[], None],
    ) -> None:
        """Write the events of ``links``, until ``count`` stories are told."""
        self._recorded = recorded
        self._of_links = links
        writer = recorded.writer
        known = _RecordedNames(names, writer)
        form = _StoryFile(writer, known.sources)
        super().__init__(form, options, known, links, count, clear=clear)

    @property
    def progress(self) -> str | None:
        """A sentence on what was recorded so far."""
        return f"{self._recorded.progress}, {counted(self.told, 'story', 'stories')}"

    def lose(self, gap: Gap) -> None:
        """Write when events were lost, before the events that came next."""
        self._recorded.writer.lost_within(gap)
        super().lose(gap)

    def _show(self, batches: Sequence[EventBatch]) -> None:
        if not self.full:
            self._recorded.write_events(list(batches), self._of_links)
        super()._show(batches)
        self._recorded.writer.flush_names()

    def due(self, now: int) -> None:
        """Tell stories that are due, and note when that was."""
        before = self.told
        super().due(now)
        if self.told != before:
            self._recorded.writer.due(now)
        else:
            self._recorded.writer.seen_until(now)

    def end(self) -> None:
        """Tell all stories that are left, and write them: there may be no totals."""
        super().end()
        self._recorded.writer.flush()

    def totals(
        self, losses: Losses, left_out: LeftOut, *, unfollowed: int = 0, lost_sight: int = 0
    ) -> None:
        """Write the end, and print the totals."""
        self._recorded.end(losses, left_out, unfollowed=unfollowed, lost_sight=lost_sight)
        super().totals(losses, left_out, unfollowed=unfollowed, lost_sight=lost_sight)
        self._recorded.tell_thrown_away()


class LinesRecordView(LinkEvents):
    """Writes events that make no stories, with the rules and names that their lines show."""

    def __init__(
        self,
        recorded: Recorded,
        names: StoryNames,
        namespaces: NameAt,
        links: Collection[int],
        count: int | None,
    ) -> None:
        """Write ``count`` events of ``links`` at most, a few more if they come together."""
        super().__init__(links)
        self._recorded = recorded
        self._of_links = links
        self._count = count
        self._names = names
        writer = recorded.writer
        self._known = Recorder(names.sources, writer.note, writer.note_rule)
        self._namespaces = namespaces
        self._packets = PacketCounter()

    @property
    def full(self) -> bool:
        """Whether ``count`` events were written."""
        return self._count is not None and self.events >= self._count

    @property
    def progress(self) -> str | None:
        """A sentence on what was recorded so far."""
        return f"{self._recorded.progress}, {self.events} events"

    def show(self, batches: Iterable[EventBatch]) -> None:
        """Write events before they are taken."""
        read = list(batches)
        if not self.full:
            self._recorded.write_events(read, self._of_links)
        super().show(read)
        self._recorded.writer.flush()

    def totals(
        self, losses: Losses, left_out: LeftOut, *, unfollowed: int = 0, lost_sight: int = 0
    ) -> None:
        """Write the end, and print the totals."""
        self._recorded.end(losses, left_out, unfollowed=unfollowed, lost_sight=lost_sight)
        totals(self.events, self._packets.count, losses, left_out)
        self._recorded.tell_thrown_away()

    def _take(self, events: JoinedBatches) -> None:
        if not events or self.full:
            return
        if self._count is not None:
            events = events.first(self._count - self.events)
        self.events += len(events)
        self._packets.add(events)
        self._names.learn(events)
        sources = self._known.sources
        kinds = events.values("kind")
        records = [
            decode_event(events, place) for place, kind in enumerate(kinds) if kind in OF_RULES
        ]
        if records and sources.rules:
            sources.rules(records)
        if sources.names:
            for cookie, moment in dict(
                zip(events.values("netns_cookie"), events.values("time"), strict=True)
            ).items():
                sources.names.name(cookie, moment)

    def _tell_left_out(self, record: EventRecord) -> None:
        """Nothing: those who show the recording are told."""


def _of_links(batch: EventBatch, links: Collection[int]) -> EventBatch:
    """The events of links in a batch."""
    chosen: Any = batch.events["link"]
    wanted = chosen == -1
    for link in links:
        wanted |= chosen == link
    return batch if wanted.all() else batch.select(wanted)
