# SPDX-License-Identifier: GPL-2.0
"""Stories and events that the hub of a fleet keeps, printed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipttctl.cli.hub_options import asking
from ipttctl.cli.kept_options import KeptOptions
from ipttctl.cli.looks import Look
from ipttctl.cli.options import Output
from ipttctl.cli.printing import lines, note
from ipttctl.errors import IpttctlError, UsageError
from ipttctl.escape import Escaped, escape
from ipttctl.fleet.needs import require
from ipttctl.numbers import counted
from ipttctl.show.event_json import EventJson
from ipttctl.show.event_table import EventTable
from ipttctl.show.event_text import Moments
from ipttctl.show.render_json import dumps
from ipttctl.show.told_drops import has_drop
from ipttctl.show.told_story import ToldForm, told_lines, without_rules
from ipttctl.show.told_summary import ToldSummary
from ipttproto import EventBatch, JoinedBatches, Kind

if TYPE_CHECKING:
    from ipttctl.fleet.asker import Asker
    from ipttctl.frames.head import FrameHead

_NO_RULES = "the hub keeps events without the rules that they name"


@dataclass(frozen=True)
class KeptLook:
    """The options on how things look that the hub has what they take for.

    ``lines``: events instead of stories, with ``columns``.
    """

    look: Look
    lines: bool
    drops: bool
    summary: bool
    rules: bool | None
    columns: tuple[str, ...] | None

    def check(self) -> None:
        """Check that they go together.

        Raises:
            UsageError: they do not.
        """
        if self.lines and self.rules:
            raise UsageError(f"--rules: {_NO_RULES}", "leave out --lines")


def show_kept(kept: KeptOptions, file: Path | None, since: str | None, shown: KeptLook) -> None:
    """Print the stories that the hub keeps, of all hosts or of some; or the events."""
    shown.check()
    require("msgspec", "nats", "nkeys")
    from ipttctl.fleet.kept_items import KeptItems  # noqa: PLC0415  # 90 ms; nats may be missing

    settings = kept.settings([str(file)] if file else [])
    chosen, bounds = kept.chosen(), kept.bounds(since)
    stories, events = _Stories(shown), _Events(shown)

    async def read(asker: Asker) -> None:
        items = KeptItems(asker, chosen, bounds, note)
        if shown.lines:
            await items.events(events.take)
        else:
            await items.stories(stories.read, stories.take)

    try:
        asking(settings, read, wait=kept.wait)
    except (IpttctlError, KeyboardInterrupt):
        # what was counted is not lost
        if shown.summary and stories.told:
            stories.end()
        raise
    if shown.lines:
        note(counted(events.told, "event"))
    else:
        stories.end()


class _Stories:
    """Prints stories: each as it is read, or equal ones together at the end."""

    def __init__(self, shown: KeptLook) -> None:
        self._shown = shown
        look = shown.look
        self._form = ToldForm(verbose=look.verbose, moments=Moments(look.time_format))
        self._summary = ToldSummary(self._form) if shown.summary else None
        self._json = look.output is Output.JSON
        self.told = 0

    def read(self, head: FrameHead, story: dict[str, Any]) -> list[Escaped] | None:
        """The lines of a story, none yet for the summary; None if it is not wanted.

        Raises:
            KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError, RecursionError:
                it is none.
        """
        if self._shown.drops and not has_drop(story):
            return None
        if self._shown.rules is False:
            story = without_rules(story)
        where = {"host": head.host, "boot_id": head.boot, "run": head.run}
        if self._summary is not None:
            self._summary.add(story, where)
            return []
        if self._json:
            # a story may have such members of its own, which would be another host's
            return [escape(dumps({**where, **story, **where}))]
        return list(map(escape, told_lines(story, head.host, form=self._form)))

    def take(self, found: list[Escaped] | None) -> bool:
        """Print the lines of a story; whether another one is wanted."""
        if found is None:
            return True
        if self._summary is None:
            lines(found)
        self.told += 1
        return self.told != self._shown.look.count

    def end(self) -> None:
        """Print the summary, if that was asked for, and the number of stories."""
        if self._summary is not None:
            lines(map(dumps, self._summary.objects()) if self._json else self._summary.lines())
        note(f"{counted(self.told, 'story', 'stories')} told")


class _Events:
    """Prints events, each behind the name of its host."""

    def __init__(self, shown: KeptLook) -> None:
        self._shown = shown
        #: each host has clocks and links of its own
        self._forms: dict[str, EventTable | EventJson] = {}
        self.told = 0

    def take(self, head: FrameHead, batches: list[EventBatch]) -> bool:
        """Take events; whether more are wanted."""
        count = self._shown.look.count
        events = JoinedBatches.of(batches)
        # those of no packet are about links
        events = events.select([kind != Kind.LEFT_OUT for kind in events.values("kind")])
        if count is not None:
            events = events.first(count - self.told)
        if events:
            lines(self._lines(head, events))
        self.told += len(events)
        return self.told != count

    def _lines(self, head: FrameHead, events: JoinedBatches) -> list[Escaped]:
        form = self._forms.get(head.run)
        if form is None:
            form = self._forms[head.run] = self._made()
        found = form.lines(events)
        if isinstance(form, EventJson):
            where = dumps({"host": head.host, "boot_id": head.boot, "run": head.run})
            return [Escaped(f"{where[:-1]},{line[1:]}") for line in found]
        return [Escaped(f"{escape(head.host)}  {line}") for line in found]

    def _made(self) -> EventTable | EventJson:
        look = self._shown.look
        if look.output is Output.JSON:
            return EventJson()
        options = {"time_format": look.time_format, "link_columns": look.verbose}
        return EventTable(self._shown.columns, **options)
