# SPDX-License-Identifier: GPL-2.0
"""Events of a recording, given to a view as the trace gave them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ipttctl.cli.event_options import EventOptions
from ipttctl.cli.printing import note
from ipttctl.cli.record_view import tell_thrown_away
from ipttctl.cli.trace_stories import StoryView
from ipttctl.cli.view import LinkEvents
from ipttctl.errors import UsageError
from ipttctl.events.filter import EventFilter
from ipttctl.link.limits import LeftOut
from ipttctl.link.losses import Losses
from ipttctl.numbers import U32_MAX
from ipttctl.recordings.reader import Due, Events, Recording
from ipttproto import EventBatch


def play(recording: Recording, view: LinkEvents, wanted: EventOptions | None) -> None:
    """Give a view all that happened, in the order and at the times at which it did."""
    chosen = _filter(recording, wanted) if wanted else None
    for item in recording.items():
        if view.full:
            break
        match item:
            case Events(batches, due, _):
                if isinstance(view, StoryView) and due:
                    view.due(due)
                view.show(chosen.choose(batches) if chosen else batches)
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


def _filter(recording: Recording, wanted: EventOptions) -> EventFilter:
    """The filter for options, with the namespaces that the recording knows."""
    ids = [one for one in wanted.links if isinstance(one, int)]
    if len(ids) < len(wanted.links):
        raise UsageError("--link: a recording knows links by their ids", "see its -o json")
    cookies: set[int] = set()
    for text in wanted.namespace:
        found = set(_cookies(recording, text))
        if not found:
            raise UsageError(f"--netns: the recording has no namespace '{text}'")
        cookies |= found
    return wanted.filter(ids, cookies)


def _cookies(recording: Recording, text: str) -> Iterator[int]:
    """The cookies of the namespaces with a name or an inode number."""
    yield from recording.answers.named(text)
    # Python reads no more than some thousand digits
    if text.isdecimal() and len(text) <= len(str(U32_MAX)):
        for item in recording.items():
            if isinstance(item, Events):
                yield from _with_inode(item.batches, int(text))


def _with_inode(batches: list[EventBatch], inode: int) -> Iterator[int]:
    for batch in batches:
        here = batch.events["netns"] == inode
        yield from set(batch.events["netns_cookie"][here].tolist())


def _numbers(end: dict[str, Any], name: str, kind: type) -> dict[str, int]:
    found = end.get(name)
    known = kind.__dataclass_fields__  # type: ignore[attr-defined]  # it is a dataclass
    values = found if isinstance(found, dict) else {}
    return {one: _number(values.get(one)) for one in known}


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
