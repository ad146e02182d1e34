# SPDX-License-Identifier: GPL-2.0
"""Marks of the packets of open stories, kept until their story is told."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from ipttctl.events import describe
from ipttctl.joins.marks import Mark, Way, decode_mark
from ipttctl.stories.model import Passage, Story, TunnelStep
from ipttproto import JoinedBatches

_MEMBERS: Final = ("time", "packet", "in_name", "out_name")
"""In the order of the record."""

_MOST_PACKETS: Final = 1 << 16
_MOST_OF_PACKET: Final = 16


class _Note(NamedTuple):
    time: int
    device: str
    mark: Mark


class JoinNotes:
    """Marks of packets at wires, as the programs of a trace told them."""

    def __init__(self) -> None:
        self._notes: OrderedDict[int, list[_Note]] = OrderedDict()
        self.forgotten = 0
        """Packets whose marks were thrown away for lack of room."""

    def take(self, events: JoinedBatches) -> None:
        """Take the marks of events."""
        found = [
            (place, mark)
            for place, payload in events.payloads.items()
            if (mark := decode_mark(payload)) is not None
        ]
        rows = events.rows(_MEMBERS, [place for place, _ in found])
        for (_, mark), (time, packet, in_name, out_name) in zip(found, rows, strict=True):
            if not packet:
                continue
            notes = self._notes.setdefault(packet, [])
            device = in_name if mark.way is Way.ARRIVAL else out_name
            if len(notes) < _MOST_OF_PACKET:
                notes.append(_Note(time, describe.text(device.rstrip(b"\0")), mark))
            if len(self._notes) > _MOST_PACKETS:
                self._notes.popitem(last=False)
                self.forgotten += 1

    def told(self, story: Story) -> list[dict[str, Any]]:
        """The marks of a story and its branches, in order, which are not kept any longer.

        Of arrivals there is the first one, if the story begins with it, and the first one behind
        each header that was taken off. Others are of packets that this host has changed already.
        """
        found = sorted(self._of(story), key=lambda one: one[0].time)
        return [
            {
                **note.mark.values(),
                "packet": packet,
                "after_ns": note.time - story.began,
                "device": note.device,
            }
            for note, packet in found
        ]

    def _of(self, story: Story) -> Iterator[tuple[_Note, int]]:
        notes = self._notes.pop(story.number, [])
        came: list[_Note] = []
        for note in sorted(notes, key=lambda one: one.time):
            if note.mark.way is Way.DEPARTURE:
                yield note, story.number
            else:
                came.append(note)
        for begin, end in _beginnings(story):
            first = next((one for one in came if begin <= one.time <= end), None)
            if first is not None:
                yield first, story.number
        for branch in story.branches:
            yield from self._of(branch)


def _beginnings(story: Story) -> Iterator[tuple[int, int]]:
    """The times of the first hook of a packet that is no copy, and from each header taken off on.

    The rules of the first function come before what is told of it.
    """
    times = story.times
    hooks = [step for step in story.steps if isinstance(step, Passage)]
    if hooks and not story.copy_of:
        yield story.began, times[hooks[0].last]
    taken = [step for step in story.steps if isinstance(step, TunnelStep) and step.removed]
    for step in taken:
        later = [times[one.after] for one in taken if times[one.after] > times[step.after]]
        yield times[step.after], min(later, default=times[-1])
