# SPDX-License-Identifier: GPL-2.0
"""Events of a recording, given to a view as the trace gave them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ipttctl.cli.printing import note
from ipttctl.cli.record_view import tell_thrown_away
from ipttctl.cli.trace_stories import StoryView
from ipttctl.cli.view import LinkEvents
from ipttctl.link.limits import LeftOut
from ipttctl.link.losses import Losses
from ipttctl.recordings.excerpt import Excerpt
from ipttctl.recordings.reader import Due, Events, Recording
from ipttctl.stories.assemble import SETTLE
from ipttctl.stories.gaps import Gap
from ipttproto import EventBatch


def play(
    excerpt: Excerpt,
    view: LinkEvents,
    choose: Callable[[list[EventBatch]], list[EventBatch]] = lambda batches: batches,
) -> None:
    """Give a view all that happened, in the order and at the times at which it did.

    ``choose`` leaves out some of the events that were read together.
    """
    until = excerpt.until
    for item in excerpt.items():
        if view.full:
            break
        match item:
            case Events(batches, due, head):
                if isinstance(view, StoryView) and due:
                    view.due(due if until is None else min(due, until))
                view.show(choose(batches))
                if isinstance(view, StoryView) and until is not None and head.monotonic > until:
                    # as a trace does that ends then
                    view.due(until + SETTLE)
            case Gap():
                view.lose(item)
            case Due(moment) if isinstance(view, StoryView):
                view.due(moment)
    if isinstance(view, StoryView):
        view.end_without_clock()
    else:
        view.end()


def recorded_end(recording: Recording, view: LinkEvents) -> None:
    """Print the totals of a recording."""
    end = recording.end
    if not end:
        losses = Losses(
            **{cause: recording.lost[cause] for cause in ("observer", "ring", "memory")}
        )
        view.totals(losses, LeftOut(), unfollowed=0, lost_sight=0)
        return
    view.totals(
        Losses(**_numbers(end, "losses", Losses)),
        LeftOut(**_numbers(end, "left_out", LeftOut)),
        unfollowed=_number(end.get("unfollowed")),
        lost_sight=_number(end.get("lost_sight")),
    )
    tell_thrown_away(end.get("thrown_away"), end.get("too_long"))
    for link in _list(end.get("taken")):
        note(f"link {_number(link)} was detached by somebody else")


def _numbers(end: dict[str, Any], name: str, kind: type) -> dict[str, int]:
    found = end.get(name)
    known = kind.__dataclass_fields__  # type: ignore[attr-defined]  # it is a dataclass
    values = found if isinstance(found, dict) else {}
    return {one: _number(values.get(one)) for one in known}


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
