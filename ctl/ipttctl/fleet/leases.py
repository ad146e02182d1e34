# SPDX-License-Identifier: GPL-2.0
"""Traces that run as long as their askers renew them, and their links are there."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from ipttctl.fleet.grants import RefusedError
from ipttctl.fleet.host import Running, Untold
from ipttctl.fleet.tasks import run_together

_LOOK: Final = 2.0
"""Seconds between two looks at the links of traces."""

_MOST_BROKEN: Final = 64
"""Traces of which it is remembered why they ended."""


@dataclass
class Lease:
    """A trace, the time until which it runs unless it is renewed, and the time of its end."""

    trace: str
    running: Running
    until: float
    longest: float


class Leases:
    """The traces that run. Each has a name that nobody can guess, by which it is renewed."""

    def __init__(
        self,
        most: int,
        lease: float,
        longest: float,
        end: Callable[[str, Running], Awaitable[Untold | None]],
        look: Callable[[Running], Awaitable[str]],
    ) -> None:
        """Run ``most`` traces; ``end`` ends one.

        ``look`` tells why one does not see any more what it should, in an empty text if it does.
        """
        self._most = most
        self._lease = lease
        self._longest = longest
        self._end = end
        self._look = look
        self._leases: dict[str, Lease] = {}
        self._broken: dict[str, str] = {}
        self._starting = 0
        self._changed = asyncio.Event()
        self.expired = 0
        """Traces that ended because nobody renewed them."""

    def __len__(self) -> int:
        return len(self._leases)

    async def begin(
        self, seconds: float, start: Callable[[str], Awaitable[Running]]
    ) -> tuple[Lease, float]:
        """Begin a trace; returns its lease, and for how long it runs.

        Raises:
            RefusedError: as many run as may.
        """
        if len(self._leases) + self._starting >= self._most:
            raise RefusedError(f"{self._most} traces of others run here, which is the most")
        trace = secrets.token_hex(16)
        self._starting += 1
        try:
            running = await start(trace)
        finally:
            self._starting -= 1
        now = time.monotonic()
        lease = self._leases[trace] = Lease(trace, running, now, now + self._longest)
        return lease, self._renew(lease, seconds)

    def renew(self, trace: str, seconds: float) -> float:
        """Let a trace go on; returns for how long it runs.

        Raises:
            RefusedError: there is no such trace, or no more.
        """
        return self._renew(self._lease_of(trace), seconds)

    async def end(self, trace: str) -> Untold | None:
        """End a trace; returns the packets of which it told nothing, if that is known.

        Raises:
            RefusedError: there is no such trace, or no more.
        """
        lease = self._lease_of(trace)
        del self._leases[trace]
        return await self._end(lease.trace, lease.running)

    async def end_all(self) -> None:
        """End all traces."""
        while self._leases:
            _, lease = self._leases.popitem()
            await self._end(lease.trace, lease.running)

    async def run(self) -> None:
        """End traces whose time is over, or whose links are gone, until cancelled."""
        await run_together(self._run_out(), self._look_after())

    async def _run_out(self) -> None:
        """End traces whose time is over."""
        while True:
            due = min((lease.until for lease in self._leases.values()), default=None)
            self._changed.clear()
            timeout = None if due is None else max(0.0, due - time.monotonic())
            try:
                async with asyncio.timeout(timeout):
                    await self._changed.wait()
            except TimeoutError:
                pass
            await self._end_due()

    async def _look_after(self) -> None:
        """End traces that do not see any more what they should: what they tell is not whole."""
        while True:
            await asyncio.sleep(_LOOK)
            for trace in list(self._leases):
                if lease := self._leases.get(trace):
                    why = await self._look(lease.running)
                    # it may have been ended meanwhile
                    if why and trace in self._leases:
                        del self._leases[trace]
                        self._remember(trace, why)
                        await self._end(trace, lease.running)

    async def _end_due(self) -> None:
        """End the traces whose time is over."""
        for trace in list(self._leases):
            # ending the one before took a while: it may have been ended, or renewed, meanwhile
            lease = self._leases.get(trace)
            if lease and lease.until <= time.monotonic():
                del self._leases[trace]
                self.expired += 1
                await self._end(trace, lease.running)

    def _lease_of(self, trace: str) -> Lease:
        """The lease of a trace that runs.

        Raises:
            RefusedError: there is none.
        """
        if lease := self._leases.get(trace):
            return lease
        why = self._broken.get(trace, "there is no such trace, or it has ended")
        raise RefusedError(why)

    def _remember(self, trace: str, why: str) -> None:
        self._broken[trace] = why
        if len(self._broken) > _MOST_BROKEN:
            del self._broken[next(iter(self._broken))]

    def _renew(self, lease: Lease, seconds: float) -> float:
        now = time.monotonic()
        lease.until = min(now + min(seconds, self._lease), lease.longest)
        self._changed.set()
        return max(0.0, lease.until - now)
