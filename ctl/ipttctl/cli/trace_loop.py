# SPDX-License-Identifier: GPL-2.0
"""The course of a trace: events are shown until it ends, then what is left and the totals."""

from __future__ import annotations

from dataclasses import dataclass

from ipttctl.cli.printing import note
from ipttctl.cli.progress import ProgressLine
from ipttctl.cli.subjects import Subjects
from ipttctl.cli.trace_links import TraceLinks
from ipttctl.cli.traced_command import TraceEnd
from ipttctl.cli.view import LinkEvents
from ipttctl.link.streams import EventStream, LinkChangeStream
from ipttctl.link.wire import wait_readable


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
                if cpus := events.missing():
                    view.overrun(cpus)
                view.show(batches)
            else:
                view.idle()
            if ends and wait_readable(ends, 0):
                line.clear()
            if view.full or self.subjects.ended() or end.reached(view.waiting):
                break
        line.clear()

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
