# SPDX-License-Identifier: GPL-2.0
"""Watches: traces that the agent begins itself, and begins again when their links went."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from ipttctl.fleet.config import AgentConfig
from ipttctl.fleet.feed import Feed
from ipttctl.fleet.host import AgentHost, Running, TraceOrder, Untold
from ipttctl.fleet.reasons import reason

_LOOK: Final = 2.0
"""Seconds between two looks at the links."""

_FIRST_PAUSE: Final = 2.0
"""Seconds until a watch is begun again; each time twice as many, ..."""

_LONGEST_PAUSE: Final = 30.0
"""... and so many at most."""

_STEADY: Final = 60.0
"""Seconds for which a watch has to run so that the next pause is the first one again."""

_NO_PAUSE: Final = 0.0


@dataclass
class Watch:
    """A watch; it runs while ``running`` is there, and ``problem`` says why it does not."""

    name: str
    order: TraceOrder
    running: Running | None = None
    problem: str = "not begun yet"
    began: float = 0.0
    pause: float = _NO_PAUSE
    again: float = 0.0
    """When it is to be begun."""
    before: Untold = field(default_factory=Untold)
    """Packets that are in no story, until it was begun for the last time."""
    untold: Untold = field(default_factory=Untold)
    """Packets that are in no story, since the agent began; the thread of metrics reads it."""

    @property
    def trace(self) -> str:
        """The name in frames, which no trace for others can have."""
        return f"watch/{self.name}"


class Watches:
    """Begins all watches of a configuration, looks after them, and ends them."""

    def __init__(
        self,
        config: AgentConfig,
        host: AgentHost,
        on_host: Callable[[Callable[[], Any]], Awaitable[Any]],
        feed: Feed,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Have ``on_host`` call the host; ``tell`` is called with a sentence for the log."""
        self._host = host
        self._on_host = on_host
        self._feed = feed
        self._tell = tell
        self._over = False
        governor = config.traces.governor
        self._watches = [
            Watch(
                one.name,
                TraceOrder(
                    *(one.filter, one.both_ways, one.drops, one.governor or governor),
                    sample=one.sample,
                    rate=one.limit_rate,
                ),
            )
            for one in config.watch
        ]

    def __iter__(self) -> Iterator[Watch]:
        return iter(self._watches)

    @property
    def names(self) -> list[str]:
        """The names of those that run."""
        return [one.name for one in self._watches if one.running]

    @property
    def status(self) -> str:
        """The watches in words, empty if there are none."""
        if not self._watches:
            return ""
        said = f"{len(self.names)} of {len(self._watches)} watches"
        idle = [f"{one.name}: {one.problem}" for one in self._watches if not one.running]
        return ", ".join([said, *idle])

    async def run(self) -> None:
        """Look after them until cancelled."""
        while True:
            for one in self._watches:
                if self._over:
                    break
                if one.running:
                    await self._look(one, one.running)
                elif time.monotonic() >= one.again:
                    await self._begin(one)
            await asyncio.sleep(_LOOK)

    async def end_all(self) -> None:
        """End those that run, and begin no more."""
        self._over = True
        for one in self._watches:
            await self._end(one)

    async def _begin(self, one: Watch) -> None:
        try:
            running: Running | None = await self._on_host(partial(self._started, one.order))
        except Exception as error:
            self._later(one, reason(error))
            return
        if running is None:
            return
        one.running, one.problem, one.began = running, "", time.monotonic()
        if self._over:
            # all were ended after the thread had looked, and it was not among them yet
            await self._end(one)
            return
        self._feed.begin(one.trace, running, one.name)
        links = ", ".join(map(str, sorted(running.links)))
        self._tell(f"watch {one.name}: tracing by links {links}")

    def _started(self, order: TraceOrder) -> Running | None:
        """The links of a watch, unless the agent has ended meanwhile; in the host's thread."""
        running = self._host.trace(order)
        if self._over:
            # nobody waits for it, or would end it
            running.detach()
            return None
        return running

    async def _look(self, one: Watch, running: Running) -> None:
        try:
            found: Untold = await self._on_host(running.look)
        except Exception as error:
            if one.running is running:
                # the others of its links tell nothing that is whole
                await self._end(one)
                if time.monotonic() - one.began >= _STEADY:
                    one.pause = _NO_PAUSE
                self._later(one, reason(error))
        else:
            if one.running is running:
                one.untold = (one.before + found).at_least(one.untold)

    def _later(self, one: Watch, problem: str) -> None:
        """Have a watch begun after a pause, and tell why unless that was told."""
        one.pause = min(max(2 * one.pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        one.again = time.monotonic() + one.pause
        if problem != one.problem:
            self._tell(f"watch {one.name}: {problem}; begun again later")
        one.problem = problem

    async def _end(self, one: Watch) -> None:
        running, one.running = one.running, None
        if running is None:
            return
        last = Untold()
        try:
            last = await self._on_host(running.detach)
        # the module went, and the links with it, or else it is a fault: the others have to end
        except Exception as error:
            self._tell(f"watch {one.name} did not end as it should: {reason(error)}")
        finally:
            self._feed.end(one.trace)
            one.untold = (one.before + last).at_least(one.untold)
            one.before = one.untold
