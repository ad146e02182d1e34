#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""An observer on asyncio: events with what programs added to them, and changes of links.

    observer.py [LINK...]

Prints an object of JSON a line, as `ipttctl events -o json` and `ipttctl events --links -o json`
do; docs/json.md describes them. A task follows the links and another the events, of all links or of
those given by id or name. What was lost is told on standard error as soon as it is known, and in
exact numbers at the end: after Ctrl-C, or SIGTERM. Ends as ipttctl would.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ipttctl import (
    AsyncController,
    EventBatch,
    EventFilter,
    EventStream,
    IpttctlError,
    LinkGoneError,
    LinkList,
    LinkWatch,
    Losses,
    NamespaceNames,
    PayloadTypes,
    change_object,
    decode_events,
    event_object,
    link_list_object,
)


class Observer:
    """A printer of links, events and losses."""

    def __init__(self, controller: AsyncController) -> None:
        self._controller = controller
        self._names = NamespaceNames()
        # the types of payloads by link and generation, as far as they are known
        self._types = PayloadTypes()
        self._known: set[tuple[int, int]] = set()
        self._told = Losses()

    async def follow_links(self, watch: LinkWatch) -> None:
        """Print all links, and then their changes."""
        async for item in watch:
            if isinstance(item, LinkList):
                show(link_list_object(item, self._names))
            else:
                show(change_object(item, self._names))

    async def follow_events(self, events: EventStream) -> None:
        """Print events until the stream is stopped, and then those that are still to come."""
        async for batch in events:
            await self._show(batch)
            self._tell(events.losses)
        async for batch in events.async_drain():
            await self._show(batch)
        self._tell(events.losses)
        print(f"lost {events.losses.events}", file=sys.stderr, flush=True)

    async def _show(self, batch: EventBatch) -> None:
        for record in decode_events(batch):
            generation = record.link, record.generation
            if record.payload and generation not in self._known:
                self._known.add(generation)
                # one that has gone is shown in hex
                with suppress(LinkGoneError):
                    self._types.learn(await self._controller.link(record.link))
            show(event_object(record, self._names, self._types.value))

    def _tell(self, losses: Losses) -> None:
        """Tell new losses; which of the missing events the kernel dropped is known later."""
        if losses.events > self._told.events:
            print(f"lost so far: {losses}", file=sys.stderr, flush=True)
            self._told = losses


def show(value: dict[str, Any]) -> None:
    """Print an object on a line of its own."""
    print(json.dumps(value), flush=True)


async def observe(wanted: Sequence[str]) -> None:
    """Follow links and events until a signal comes."""
    async with AsyncController() as controller:
        ids = [(await controller.link(int(one) if one.isdecimal() else one)).id for one in wanted]
        chosen = EventFilter(links=ids) if ids else None
        observer = Observer(controller)
        with await controller.events(chosen) as events, await controller.watch_links() as watch:

            def stop() -> None:
                events.stop()
                watch.stop()

            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop)
            async with asyncio.TaskGroup() as group:
                group.create_task(observer.follow_links(watch))
                group.create_task(observer.follow_events(events))


def main() -> int:
    """Observe; the exit status."""
    status = 0
    try:
        asyncio.run(observe(sys.argv[1:]))
    except* IpttctlError as errors:
        for error in errors.exceptions:
            print(f"observer.py: {error}", file=sys.stderr)
            status = error.exit_code if isinstance(error, IpttctlError) else 1
    return status


if __name__ == "__main__":
    sys.exit(main())
