# SPDX-License-Identifier: GPL-2.0
"""The course of a trace: events are shown until it ends, then what is left and the totals."""

from __future__ import annotations

from dataclasses import dataclass, field

from ipttctl.cli.printing import note
from ipttctl.cli.progress import ProgressLine
from ipttctl.cli.subjects import Subjects
from ipttctl.cli.trace_links import TraceLinks
from ipttctl.cli.traced_command import TraceEnd
from ipttctl.cli.view import LinkEvents
from ipttctl.link.streams import EventStream, LinkChangeStream
from ipttctl.link.wire import wait_readable


@dataclass
class _Missing:
    """Overruns of the stream of events that are known of, and whether it still misses some."""

    overruns: int = 0
    still: bool = False


@dataclass(frozen=True)
class TraceLoop:
    """All that a trace waits for, and what it does then.

    ``line`` says meanwhile what is awaited.
    """

    events: EventStream
    changes: LinkChangeStream
    links: TraceLinks
    view: LinkEvents
    subjects: Subjects
    line: ProgressLine
    _missing: _Missing = field(default_factory=_Missing, init=False)

    def follow(self, end: TraceEnd) -> None:
        """Show events until stopped or nothing can come."""
        events, view, line = self.events, self.view, self.line
        view.expect(events.first, events.began)
        while self.links.seeing and not events.stopped:
            commands = end.descriptors()
            # while a command runs, the terminal's last line is where it writes
            line.show(None if commands else view.progress)
            ends = [*self.subjects.descriptors(), *commands]
            if events.wait(self.changes.fileno(), *ends, timeout=_least(view.timeout, end.timeout)):
                for change in self.changes.read(0):
                    line.clear()
                    self.links.take(change)
                batches = events.read(0)
                self._tell_overruns()
                view.show(batches)
            else:
                view.idle()
            if ends and wait_readable(ends, 0):
                line.clear()
            if view.full or self.subjects.ended() or end.reached(view.waiting):
                break
        line.clear()

    def _tell_overruns(self) -> None:
        """Have the view know how far events have come while some are missed.

        The kernel says so once, and drops all that comes until the socket is empty.
        """
        events, missing = self.events, self._missing
        if events.overruns != missing.overruns:
            missing.overruns, missing.still = events.overruns, True
        if missing.still:
            # asked before the status: what comes behind it is not dropped any more
            missing.still = events.wait(timeout=0)
            self.view.overrun(events.emitted())

    def finish(self) -> None:
        """Detach the links, and show what they have reported until then, and the totals."""
        links, view = self.links, self.view
        links.detach()
        for batch in self.events.drain():
            view.show([batch])
        view.miss(self.events.last)
        view.end()
        view.totals(
            self.events.losses,
            links.left_out,
            unfollowed=links.unfollowed,
            lost_sight=links.lost_sight,
        )
        for link_id in links.taken:
            note(f"link {link_id} was detached by somebody else")


def _least(*seconds: float | None) -> float | None:
    return min((one for one in seconds if one is not None), default=None)
