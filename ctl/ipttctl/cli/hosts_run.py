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
from ipttctl.fleet.tasks import end_tasks
from ipttctl.joins.chains import StoryChain
from ipttctl.numbers import counted, shortened
from ipttctl.show.chain_summary import ChainSummary
from ipttctl.show.chain_text import chain_json, chain_lines, is_dropped

_NARROWEST: Final = 80
_SHOWN_HOSTS: Final = 8
_STEP: Final = 0.2
_SETTLE: Final = 0.7
"""Times of what stories wait for each other for which those of packets that were on their way at
the end may come."""


async def run_on_hosts(asker: Asker, asked: HostsAsked, chosen: Selector) -> None:
    """Trace on the chosen hosts by a connection to the hub, and print what is told."""
    found = await asker.find(chosen)
    if not chosen.names:
        # whoever counts on one that is late can see that it is missing
        note(f"found {counted(len(found), 'host')}")
    trace = HostsTrace(asker)
    request: dict[str, Any] = {"filter": asked.expression, "both_ways": asked.both_ways}
    if asked.drops:
        # not "drops": the ways of packets over hosts that do not drop them are shown as well
        request["await_drops"] = True
    ending = _Ending()
    with on_ending(ending.tell):
        try:
            beginning = asyncio.create_task(trace.begin(found, request))
            await _first(beginning, ending.asked)
            if beginning.done() and not beginning.cancelled():
                beginning.result()
                await _run(trace, asked, ending)
        finally:
            # hosts that do not hear it end when their lease is over
            await _first(asyncio.create_task(trace.end()), ending.at_once)


class _Ending:
    """Whether the end was asked for, and whether that was done twice: then nothing is awaited."""

    def __init__(self) -> None:
        """Begin in the loop of this thread."""
        self._loop = asyncio.get_running_loop()
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()

    def tell(self) -> None:
        """Ask for the end; called by another thread."""
        self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if self.asked.is_set():
            self.at_once.set()
        self.asked.set()


async def _first(task: asyncio.Task[None], stopping: asyncio.Event) -> None:
    """Wait for a task, or to be told to stop; then the task is cancelled."""
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
    await end_tasks([stop, task])


async def _run(trace: HostsTrace, asked: HostsAsked, ending: _Ending) -> None:
    printer = _Printer(asked)
    reading = asyncio.create_task(trace.read())

    async def show(chains: list[StoryChain]) -> None:
        # whoever reads may pause, and hosts trace on meanwhile
        if chains:
            await asyncio.to_thread(printer.show, chains)

    try:
        for sentence in trace.refused:
            note(sentence)
        await trace.reading_begun(reading)
        note(f"tracing on {shortened([host.name for host in trace.hosts], _SHOWN_HOSTS)}")
        end = None if asked.stop_after is None else time.monotonic() + asked.stop_after
        while not ending.asked.is_set() and not printer.full:
            if end is not None and time.monotonic() >= end:
                break
            await show(trace.chains())
            if reading.done():
                reading.result()
            await asyncio.sleep(_STEP)
        # answers tell what there are no stories of
        await _first(asyncio.create_task(trace.end()), ending.at_once)
        until = time.monotonic() + _SETTLE * trace.joiner.hold / 1e9
        while time.monotonic() < until and not ending.at_once.is_set():
            await show(trace.chains())
            # what is on its way has not failed to come
            if printer.full and trace.complete:
                break
            await asyncio.sleep(_STEP)
        if not printer.full:
            await show(trace.rest())
        await asyncio.to_thread(printer.end)
    finally:
        await end_tasks([reading])
    printer.totals(trace)


class _Printer:
    """Prints chains, as many as are wanted; or equal ones once, at the end."""

    def __init__(self, asked: HostsAsked) -> None:
        self._asked = asked
        self._summary = ChainSummary() if asked.summary else None
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
            if self._summary:
                self._summary.add(chain)
            elif self._asked.output is Output.JSON:
                lines([chain_json(chain)])
            else:
                lines(chain_lines(chain, self._width))

    def end(self) -> None:
        """Print the summary, if there is one."""
        if self._summary and self._asked.output is Output.JSON:
            lines(self._summary.json_lines())
        elif self._summary:
            lines(self._summary.lines(self._width))

    def totals(self, trace: HostsTrace) -> None:
        """Print the totals, and the hosts that are late, lossy or silent."""
        counts = trace.joiner.counts
        stories = counted(sum(host.stories for host in trace.hosts), "story", "stories")
        note(f"{counted(self._shown, 'packet')} told, by {stories}")
        note(
            f"{counted(counts.joined, 'wire')} joined, {counted(counts.unseen, 'departure')} not "
            f"seen elsewhere, {counted(counts.ambiguous, 'end')} ambiguous"
        )
        if counts.cut:
            note(
                f"{counted(counts.cut, 'end')} of packets that GSO cuts or GRO merges on their way"
            )
        for sentence in trace.sentences():
            note(sentence)
