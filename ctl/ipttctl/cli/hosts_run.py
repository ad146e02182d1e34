# SPDX-License-Identifier: GPL-2.0
"""The course of a trace on many hosts, until the end that was asked for."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from typing import Any, Final

from ipttctl.cli.hosts_asked import HostsAsked
from ipttctl.cli.options import Output
from ipttctl.cli.printing import lines, note
from ipttctl.cli.signals import on_ending
from ipttctl.fleet.asker import Asker
from ipttctl.fleet.heartbeat import Selector
from ipttctl.fleet.hosts_trace import HostsTrace
from ipttctl.joins.chains import StoryChain
from ipttctl.numbers import counted
from ipttctl.show.chain_text import chain_json, chain_lines, is_dropped

_NARROWEST: Final = 80
_SHOWN_HOSTS: Final = 8
_STEP: Final = 0.2
_SETTLE: Final = 2.0
"""Seconds for which stories of packets that were on their way at the end may come."""


async def run_on_hosts(asker: Asker, asked: HostsAsked) -> None:
    """Trace on many hosts by a connection to the hub, and print what is told."""
    chosen = Selector.parse(asked.selector)
    found = await asker.find(chosen)
    if not chosen.names:
        # whoever counts on one that is late can see that it is missing
        note(f"found {counted(len(found), 'host')}")
    trace = HostsTrace(asker)
    request: dict[str, Any] = {"filter": asked.expression, "both_ways": asked.both_ways}
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    with on_ending(lambda: _set(loop, stopping)):
        try:
            beginning = asyncio.create_task(trace.begin(found, request))
            await _first(beginning, stopping)
            if beginning.done() and not beginning.cancelled():
                beginning.result()
                await _run(trace, asked, stopping)
        finally:
            await trace.end()


def _set(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)


async def _first(task: asyncio.Task[None], stopping: asyncio.Event) -> None:
    """Wait for a task, or to be told to stop; then the task is cancelled."""
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait([task])


async def _run(trace: HostsTrace, asked: HostsAsked, stopping: asyncio.Event) -> None:
    printer = _Printer(asked)
    reading = asyncio.create_task(trace.read())
    renewing = asyncio.create_task(trace.renew())
    try:
        for sentence in trace.refused:
            note(sentence)
        await trace.reading_begun(reading)
        names = [host.name for host in trace.hosts]
        more = f" and {len(names) - _SHOWN_HOSTS} more" if len(names) > _SHOWN_HOSTS else ""
        note(f"tracing on {', '.join(names[:_SHOWN_HOSTS])}{more}")
        end = None if asked.stop_after is None else time.monotonic() + asked.stop_after
        while not stopping.is_set() and not printer.full:
            if end is not None and time.monotonic() >= end:
                break
            printer.show(trace.chains())
            if reading.done():
                reading.result()
            await asyncio.sleep(_STEP)
        renewing.cancel()
        if not printer.full:
            await trace.end()
            until = time.monotonic() + _SETTLE
            while time.monotonic() < until and not printer.full:
                printer.show(trace.chains())
                await asyncio.sleep(_STEP)
            printer.show(trace.rest())
    finally:
        for task in (reading, renewing):
            task.cancel()
        await asyncio.gather(reading, renewing, return_exceptions=True)
    printer.totals(trace)


class _Printer:
    """Prints chains, as many as are wanted."""

    def __init__(self, asked: HostsAsked) -> None:
        self._asked = asked
        self._shown = 0
        columns = shutil.get_terminal_size((_NARROWEST, 24)).columns
        self._width = max(40, columns) if sys.stdout.isatty() else _NARROWEST

    @property
    def full(self) -> bool:
        """Whether all that is wanted was shown."""
        return self._asked.count is not None and self._shown >= self._asked.count

    def show(self, chains: list[StoryChain]) -> None:
        """Print some."""
        for chain in chains:
            if self.full:
                return
            if self._asked.drops and not is_dropped(chain):
                continue
            self._shown += 1
            if self._asked.output is Output.JSON:
                lines([chain_json(chain)])
            else:
                lines(chain_lines(chain, self._width))

    def totals(self, trace: HostsTrace) -> None:
        """Print the totals, and the hosts that are late, lossy or silent."""
        counts = trace.joiner.counts
        stories = counted(sum(host.stories for host in trace.hosts), "story", "stories")
        note(f"{counted(self._shown, 'packet')} told, by {stories}")
        note(
            f"{counted(counts.joined, 'wire')} joined, {counted(counts.unseen, 'departure')} not "
            f"seen elsewhere, {counted(counts.ambiguous, 'end')} ambiguous"
        )
        for sentence in trace.sentences():
            note(sentence)
