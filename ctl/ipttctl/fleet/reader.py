# SPDX-License-Identifier: GPL-2.0
"""The thread that reads events. It waits for the kernel and for nobody else."""

from __future__ import annotations

import threading
import time
from typing import Final

from ipttctl.errors import IpttctlError, os_reason
from ipttctl.fleet.feed import Feed
from ipttctl.fleet.host import AgentHost, Source
from ipttctl.link.losses import Losses
from ipttproto import ProtocolError

_TICK: Final = 0.1
"""Seconds after which there may be something to do although nothing came."""

_AGAIN: Final = 2.0
"""Seconds until the module is looked for again."""

_SETTLE: Final = 0.2


class Reader:
    """Reads a host's events into a feed, from ``start`` to ``stop``, whether there are any or not.

    While the module is not loaded it looks for it.
    """

    def __init__(self, host: AgentHost, feed: Feed) -> None:
        """Read from ``host``."""
        self._host = host
        self._feed = feed
        self._stop = threading.Event()
        self._limit = 0.0
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self.alive_at = time.monotonic()
        """The last time at which the thread was not waiting for the module."""
        self.reading = False
        """Whether there is a module to read from."""
        self.problem = ""
        """The reason why there is none."""
        self.lag_ns = 0
        """Time from an event to its reading, of the last one that was read."""
        self.failure: BaseException | None = None
        """The error that ended the thread, which is a fault of ours."""

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self, limit: float) -> None:
        """Read what was emitted until now, for at most ``limit`` seconds; waits for that."""
        self._limit = limit
        self._stop.set()
        self._thread.join(limit + 5)

    @property
    def alive(self) -> bool:
        """Whether the thread runs, and did something in the last seconds."""
        return self._thread.is_alive() and time.monotonic() - self.alive_at < 30

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._read_until_it_goes()
        except BaseException as failure:
            self.failure = failure
            raise
        finally:
            self._feed.finish()

    def _read_until_it_goes(self) -> None:
        """Read from one life of the module."""
        source: Source | None = None
        try:
            source = self._host.source()
            self._feed.new_source()
            self.reading, self.problem = True, ""
            self._read(source)
            for batch in source.drain(_SETTLE, self._limit):
                self._feed.take([batch], source.losses)
            self._feed.take([], source.losses, source.last)
        except (IpttctlError, ProtocolError) as error:
            self._wait_for_module(str(error))
        except OSError as error:
            self._wait_for_module(os_reason(error))
        finally:
            self.reading = False
            if source is not None:
                source.close()

    def _wait_for_module(self, problem: str) -> None:
        self.problem = problem
        self.reading = False
        self.alive_at = time.monotonic()
        # traces end meanwhile
        self._feed.take([], Losses())
        self._stop.wait(_AGAIN)

    def _read(self, source: Source) -> None:
        while not self._stop.is_set():
            batches = source.read(_TICK)
            if batches:
                last = int(batches[-1].events["time"][-1])
                self.lag_ns = max(0, time.monotonic_ns() - last)
            self._feed.take(batches, source.losses, source.missing())
            self.alive_at = time.monotonic()
