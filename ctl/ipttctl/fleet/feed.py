# SPDX-License-Identifier: GPL-2.0
"""The way of the host's events into frames, and into stories of the traces that run.

Traces are those of others, whose events may be wanted too, and watches, of which stories are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Final, Literal

from ipttctl.events import one_namespace
from ipttctl.fleet.host import Reached, Running, Teller, Told
from ipttctl.fleet.spool import Spool
from ipttctl.frames.bodies import JSON_FORMAT, events_body, json_body
from ipttctl.frames.head import EVENTS, STORIES
from ipttctl.link.losses import Losses
from ipttctl.link.model import CpuStatus
from ipttproto import EventBatch
from ipttproto.batches import as_array, joined_wire, select
from ipttproto.family import Event

Chosen = Literal["traces", "all", "none"]

_SIZE: Final = Event.sizeof()
_MOST_IN_FRAME: Final = 512
UNTOLD: Final = "untold"
"""The cause of losses of stories that could not be told, by a fault of the agent's own."""

_LATE: Final = 0.3
"""Seconds for which the module may still send events of links that were detached."""

_LONGEST: Final = 60.0
"""Seconds after which they are not waited for, whatever was read."""


@dataclass(frozen=True)
class _Trace:
    """A trace, by the name that its frames have; ``watch`` is empty if it is for others."""

    name: str
    running: Running
    watch: str = ""
    until: float = 0.0
    """When the module has sent all of its events, once it has ended: s of their clock."""

    def is_over(self, now: float, read: float) -> bool:
        """Whether no more of its events can come.

        All was read that the module had sent by the time ``read``.
        """
        return read >= self.until or now >= self.until + _LONGEST


class Feed:
    """Puts what is read into the spool. Traces begin and end meanwhile, by another thread."""

    def __init__(
        self,
        spool: Spool,
        *,
        events: Chosen,
        stories: bool,
        frame: int,
        linger: float,
        told: Callable[[Sequence[Told], str], None] = lambda *_: None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Fill frames up to ``frame`` bytes, or for ``linger`` seconds.

        ``told`` is called with all stories, by the thread that reads, and with the name of the
        watch that they are of; it is empty if they are for others. ``tell`` is called with a
        sentence for the log.
        """
        self._spool = spool
        self._events = events
        self._stories = stories
        self._kinds = [*([EVENTS] if events != "none" else []), *([STORIES] if stories else [])]
        self._frame = frame
        self._linger = linger
        self._told = told
        self._say = tell
        self._said = ""
        self._lock = threading.Lock()
        self._traces: dict[str, _Trace] = {}
        self._ending: list[_Trace] = []
        self._waiting: list[EventBatch] = []
        self._bytes = 0
        self._since = 0.0
        self._before: dict[str, int] = {}
        self._reached: dict[int, Reached] = {}
        self._expecting: list[tuple[Teller, int]] = []
        self.read = 0
        """Events that were read."""
        self.lost: dict[str, int] = {}
        """Events that were lost before they were read, by cause."""
        self.within: int | None = None
        """The cookie of the only namespace whose events are published; 0 while it is not there."""
        self.untold = 0
        """Times that stories could not be told, one or more of them."""

    def begin(self, trace: str, running: Running, watch: str = "") -> None:
        """Tell the stories of a trace from now on; ``watch`` is the name of one that is for nobody.

        The events of a watch are published only where those of all links are: nobody asked for
        them, and they are of many more packets than are told of.
        """
        with self._lock:
            self._traces[trace] = _Trace(trace, running, watch)
            self._expecting.append((running.teller, time.monotonic_ns()))
        if running.within is not None:
            self.within = running.within

    def end(self, trace: str) -> None:
        """Tell the rest of a trace whose links were detached, and then no more of it."""
        with self._lock:
            if found := self._traces.pop(trace, None):
                self._ending.append(replace(found, until=time.monotonic() + _LATE))

    def new_source(self) -> None:
        """Begin with another source, whose losses begin with 0."""
        self._before, self._reached = {}, {}

    def take(
        self, batches: Sequence[EventBatch], losses: Losses, missing: Sequence[CpuStatus] = ()
    ) -> None:
        """Take what was read together, and the losses so far; nothing, if nothing came in time.

        ``missing`` tells how far the CPUs' events have come if some of them may be missed.
        """
        now = time.monotonic()
        # the reader may lag; it reads in the order in which the module sends
        read = max((_last(one) for one in batches if len(one)), default=0.0) if batches else now
        with self._lock:
            expecting, self._expecting = self._expecting, []
            traces = [*self._ending, *self._traces.values()]
            over = [one for one in self._ending if one.is_over(now, read)]
            self._ending = [one for one in self._ending if not one.is_over(now, read)]
        for expectant, begun in expecting:
            # what is lost from there on may be its own
            expectant.expect([*self._reached.values()], begun)
        for batch in (one for one in batches if one.lost):
            end = batch.sequence + len(batch)
            self._reached[batch.cpu] = Reached(batch.cpu, end, batch.lost)
        self._count(losses)
        if batches:
            self.read += sum(map(len, batches))
        self._take_events(batches, traces)
        for trace in traces:
            teller = trace.running.teller
            if missing:
                teller.overrun(missing)
            self._tell(trace, partial(teller.take, batches) if batches else teller.idle)
        for trace in over:
            self._tell(trace, trace.running.teller.end)

    def flush(self) -> None:
        """Put the frame that is not full."""
        if not self._waiting:
            return
        form, body = events_body(self._waiting)
        self._spool.put(EVENTS, sum(map(len, self._waiting)), form, body)
        self._waiting, self._bytes = [], 0

    def finish(self) -> None:
        """Tell what is left of everything; no events come any more."""
        with self._lock:
            left = [*self._ending, *self._traces.values()]
            self._ending, self._traces = [], {}
        for trace in left:
            self._tell(trace, trace.running.teller.end)
        self.flush()
        # no frame comes that could say it; of a kind that is not published any more, some items of
        # earlier runs may have been lost
        if self._spool.unsaid(EVENTS):
            self._spool.put(EVENTS, 0, *events_body([]))
        if self._spool.unsaid(STORIES):
            self._spool.put(STORIES, 0, JSON_FORMAT, json_body([]))

    def _count(self, losses: Losses) -> None:
        """Have the next frame of each kind say what was lost since the last time.

        Stories lack something because of it too, and are all that some may read.
        """
        new = {}
        for cause, total in asdict(losses).items():
            # what was missing may turn out to be another cause's
            if (more := total - self._before.get(cause, 0)) > 0:
                new[cause] = more
                self._before[cause] = total
                self.lost[cause] = self.lost.get(cause, 0) + more
        if new:
            # it is behind what waits, and before what comes now
            self.flush()
            for kind in self._kinds:
                self._spool.lose(kind, new)

    def _take_events(self, batches: Sequence[EventBatch], traces: Sequence[_Trace]) -> None:
        if batches and self._events != "none":
            # those of all links are of watches too
            wanted = [one for one in traces if self._events == "all" or not one.watch]
            links = frozenset[int]().union(*(one.running.links for one in wanted))
            chosen = self._chosen(batches, links)
            if chosen and self.within is not None:
                chosen = one_namespace.batches_within(chosen, self.within, links)
            for batch in chosen:
                if not self._waiting:
                    self._since = time.monotonic()
                self._waiting.append(batch)
                self._bytes += len(batch) * _SIZE
                if self._bytes >= self._frame or len(self._waiting) >= _MOST_IN_FRAME:
                    self.flush()
        if self._waiting and time.monotonic() - self._since >= self._linger:
            self.flush()

    def _chosen(self, batches: Sequence[EventBatch], links: frozenset[int]) -> list[EventBatch]:
        if self._events == "all":
            return list(batches)
        if not links:
            return []
        from ipttproto.arrays import np  # noqa: PLC0415  # 60 ms; a trace runs

        wire = joined_wire(batches)
        wanted = np.isin(as_array(wire)["link"], list(links))
        if wanted.all():
            return list(batches)
        return [batch for batch in select(batches, wanted, wire) if len(batch)]

    def _tell(self, trace: _Trace, stories: Callable[[], list[Told]]) -> None:
        try:
            if found := stories():
                self._put(trace, found)
        # what packets anybody may send, events and other stories are read and told
        except Exception as error:
            self.untold += 1
            if self._stories:
                self._spool.lose(STORIES, {UNTOLD: 1})
            fault = f"{type(error).__name__}: {error}"
            if fault != self._said:
                self._say(f"stories of trace {trace.name} could not be told by {fault}")
            self._said = fault

    def _put(self, trace: _Trace, found: list[Told]) -> None:
        if self._stories:
            lines = [one.line for one in found]
            for part in _parts(lines, self._frame):
                self._spool.put(STORIES, len(part), JSON_FORMAT, json_body(part), trace.name)
        self._told(found, trace.watch)


def _last(batch: EventBatch) -> float:
    """The time of the last event of a batch, in seconds."""
    return int(batch.events["time"][-1]) / 1e9


def _parts(lines: list[str], most: int) -> list[list[str]]:
    """Lines in parts of about so many bytes."""
    parts: list[list[str]] = [[]]
    size = 0
    for line in lines:
        if size and size + len(line) > most:
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += len(line)
    return parts
