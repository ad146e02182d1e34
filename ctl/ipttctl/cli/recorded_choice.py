# SPDX-License-Identifier: GPL-2.0
"""The events and stories of a recording that a command line chooses."""

from __future__ import annotations

from dataclasses import dataclass

from ipttctl.bpf.filter_run import FilterRun
from ipttctl.bpf.filters import compile_filter
from ipttctl.cli.event_options import EventOptions
from ipttctl.cli.recorded_namespaces import cookies
from ipttctl.cli.trace_options import PacketChoice
from ipttctl.errors import UsageError
from ipttctl.events.filter import EventFilter
from ipttctl.numbers import U32_MAX, decimal
from ipttctl.programs.trace import TraceOptions
from ipttctl.recordings.chosen import ChosenPackets
from ipttctl.recordings.excerpt import Excerpt
from ipttctl.recordings.packet_pattern import PacketPattern
from ipttctl.recordings.reader import Events, Recording
from ipttproto import EventBatch, JoinedBatches, Kind
from ipttproto.batches import joined_wire, select


@dataclass(frozen=True)
class RecordedChoice:
    """The options that choose: by events, by packets, and both ways of connections."""

    events: EventOptions
    packets: PacketChoice
    both_ways: bool = False

    @property
    def _takes_all(self) -> bool:
        return not (self._of_events or self._of_packets)

    @property
    def _of_events(self) -> bool:
        return bool(self.events.link or self.events.of_packets)

    @property
    def _of_packets(self) -> bool:
        return self.packets.wanted != TraceOptions() or bool(self.packets.expression.strip())

    def stories(self, excerpt: Excerpt) -> ChosenPackets | None:
        """The packets whose stories are chosen; None: all are."""
        if self._takes_all:
            return None
        events, pattern = self._made(excerpt.recording)
        chosen = ChosenPackets(pattern, events, both_ways=self.both_ways)
        for item in excerpt.items():
            if isinstance(item, Events):
                chosen.learn(item.batches)
        chosen.finish()
        return chosen

    def lines(self, recording: Recording, count: int | None) -> ChosenLines:
        """The lines that are chosen, of which ``count`` are asked for."""
        return ChosenLines(*self._made(recording), count)

    def _made(self, recording: Recording) -> tuple[EventFilter | None, PacketPattern | None]:
        wanted = self.events
        namespaces = cookies(recording, wanted.namespace)
        events = None
        if self._of_events:
            events = wanted.filter(list(map(_link_id, wanted.link)), namespaces)
        if not self._of_packets:
            return events, None
        expression = self.packets.expression
        given = bool(expression.strip())
        run = FilterRun(compile_filter(expression), expression) if given else None
        of_packets = namespaces if wanted.namespace else None
        kept = bool(recording.snaplen)
        return events, PacketPattern(self.packets.wanted, run, of_packets, snaplen=kept)


def _link_id(text: str) -> int:
    """The id that ``--link`` gives: a recording has no names to ask for.

    Raises:
        UsageError: it is none.
    """
    found = decimal(text, U32_MAX) if text.isascii() else None
    if not found:
        raise UsageError(
            f"--link: '{text}' is no id of a link",
            "a recording knows links by ids: see its -o json",
        )
    return found


class ChosenLines:
    """The events that pass a filter and whose packets fit a pattern there, each by itself."""

    def __init__(
        self, events: EventFilter | None, pattern: PacketPattern | None, count: int | None
    ) -> None:
        """Choose by either or both; ``count`` events are asked for."""
        self._filter = events
        self._pattern = pattern
        self._left = count
        self.untold = 0
        """Events that were asked for of whose packets the recording does not tell if they fit."""

    def choose(self, batches: list[EventBatch]) -> list[EventBatch]:
        """Those of some events."""
        if self._filter is not None:
            batches = self._filter.choose(batches)
        if self._pattern is None or not batches:
            return batches
        events = JoinedBatches.of(batches)
        from ipttproto.arrays import np  # noqa: PLC0415  # numpy: 60 ms

        answers = self._pattern.answers(events)
        self._count(answers)
        # those of no packet are about the link
        wanted = np.array(
            [
                bool(answer) or kind == Kind.LEFT_OUT
                for answer, kind in zip(answers, events.values("kind"), strict=True)
            ]
        )
        return [one for one in select(batches, wanted, joined_wire(batches)) if len(one)]

    def _count(self, answers: list[bool | None]) -> None:
        """Count what is not told, up to the last event that is asked for."""
        for answer in answers:
            if self._left == 0:
                break
            self.untold += answer is None
            if answer and self._left is not None:
                self._left -= 1
