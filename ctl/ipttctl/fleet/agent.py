# SPDX-License-Identifier: GPL-2.0
"""The agent: its parts put together, from its start until it has drained."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from ipttctl.errors import IpttctlError, os_reason
from ipttctl.fleet import heartbeat, stream, subjects
from ipttctl.fleet.commands import Commands
from ipttctl.fleet.config import AgentConfig
from ipttctl.fleet.config_file import seconds
from ipttctl.fleet.connection import LeafConnection, options_of
from ipttctl.fleet.feed import Feed
from ipttctl.fleet.heartbeat import Heartbeat
from ipttctl.fleet.host import AgentHost, Facts, Told
from ipttctl.fleet.host_thread import HostThread
from ipttctl.fleet.ledger import StreamLedger
from ipttctl.fleet.ledger_keeper import LedgerKeeper
from ipttctl.fleet.publisher import Publisher
from ipttctl.fleet.reader import Reader
from ipttctl.fleet.spool import Spool
from ipttctl.fleet.tasks import end_tasks
from ipttctl.fleet.watches import Watches
from ipttctl.frames.head import STORIES
from ipttctl.frames.writer import FrameNumbers
from ipttctl.system.service_manager import ServiceManager
from ipttproto import ProtocolError

if TYPE_CHECKING:
    from ipttctl.fleet.metrics import AgentMetrics
    from ipttctl.fleet.otlp import OtlpDrops

_WHO_AT_MOST: Final = 1.0
"""Seconds between two heartbeats that others ask for."""

_STEP: Final = 0.05

_METRICS_AGAIN: Final = 30.0
"""Seconds until somebody who has the port of metrics is looked for again."""

_FLUSH: Final = 10
"""Seconds that a server has to take what a new connection listens to."""


class Agent:
    """An agent of a host, for one ``run``."""

    def __init__(
        self,
        config: AgentConfig,
        host: AgentHost,
        manager: ServiceManager,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``tell`` is called with a sentence for the log."""
        self.config = config
        self._host = host
        self._manager = manager
        self._tell = tell
        self._facts = host.facts()
        self.numbers = FrameNumbers(config.host, self._facts.boot)
        self.spool = Spool(self.numbers, config.spool.bytes)
        publish = config.publish
        self.feed = Feed(
            self.spool,
            events=publish.events,
            stories=publish.stories,
            frame=publish.frame,
            linger=seconds(publish.linger),
            told=self._told,
            tell=tell,
        )
        self.feed.within = self._facts.within
        self.reader = Reader(host, self.feed)
        self.ledger = StreamLedger(seconds(config.stream.age))
        self._worker = HostThread()
        self._stopping = asyncio.Event()
        self._asked = asyncio.Event()
        self.connection = LeafConnection(
            *(lambda: options_of(config.leaf), self._connected),
            overrun=self._overrun,
            tell=tell,
        )
        keeper = LedgerKeeper(
            self.ledger,
            Path(config.own_objects.directory) / f"stream-{config.stream_name}.json",
            config.host,
            self.numbers.run,
            tell,
        )
        self.publisher = Publisher(
            self.spool, config.token, stream.wanted(config), keeper, self.connection.wait
        )
        self.commands = Commands(
            *(config, host, self._on_host, self.feed.begin, self.feed.end),
            tell=tell,
            lost=self._lost,
            stories=lambda: self.numbers.next(STORIES),
        )
        self.watches = Watches(config, host, self._on_host, self.feed, tell)
        self.otlp = self._otlp()
        self.metrics = self._metrics()
        self.drained = False
        """Whether all that was known at the end was published."""

    def stop(self) -> None:
        """Have ``run`` end, once what is known is published. Called by the loop's thread."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until ``stop``.

        Raises:
            Exception: a part failed that never does.
        """
        self.reader.start()
        if self.otlp:
            self.otlp.start()
        parts = [
            asyncio.create_task(part)
            for part in (
                self.connection.run(),
                self.publisher.run(),
                self.commands.run(),
                self.watches.run(),
                self._beat(),
                self._report(),
                self._serve(),
            )
        ]
        stopping = asyncio.create_task(self._stopping.wait())
        self._manager.tell("READY=1", status=self.status)
        try:
            done, _ = await asyncio.wait([stopping, *parts], return_when=asyncio.FIRST_COMPLETED)
            self._manager.tell("STOPPING=1", status="publishing what is left")
            await self._drain()
            for part in done - {stopping}:
                part.result()
        finally:
            await end_tasks([stopping, *parts])
            await self.publisher.close()
            self._worker.end()
            if self.otlp:
                await asyncio.to_thread(self.otlp.stop, seconds(self.config.drain) / 2)
            if self.metrics:
                await asyncio.to_thread(self.metrics.stop)

    @property
    def status(self) -> str:
        """The agent's work at the moment, in a sentence."""
        leaf = self.connection.problem or self.publisher.problem or "connected"
        module = "" if self.reader.reading else f"; no events: {self.reader.problem or 'not yet'}"
        watches = f"; {self.watches.status}".removesuffix("; ")
        lost = sum(self.spool.lost.values()) + sum(self.ledger.lost.values())
        return (
            f"leaf: {leaf}; {len(self.spool)} frames wait, {self.publisher.frames} published, "
            f"{lost} items thrown away; {len(self.commands.leases)} traces{watches}{module}"
        )

    def _lost(self) -> int:
        """Events that were lost before they were read, and stories that were lost here."""
        lost = sum(self.feed.lost.copy().values())
        return lost + self.feed.untold + self.spool.lost[STORIES]

    async def _drain(self) -> None:
        """Detach the traces' links, read and publish the rest; for no longer than is configured."""
        limit = seconds(self.config.drain)
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self.commands.leases.end_all()
                await self.watches.end_all()
                await self.publisher.say_losses()
                await asyncio.to_thread(self.reader.stop, limit / 2)
                while not self.publisher.idle:
                    await asyncio.sleep(_STEP)
                self.drained = True
        if not self.drained:
            frames = len(self.spool) + self.publisher.busy
            self._tell(f"{frames} frames were not published before the end")
            await asyncio.to_thread(self.reader.stop, 0)

    async def _connected(self, client: Client) -> None:
        """Set a new connection up."""
        await self.commands.listen(client)

        async def who(_: Msg) -> None:
            self._asked.set()

        with suppress(nats.errors.Error):
            await client.subscribe(subjects.WHO, cb=who, pending_msgs_limit=16)
        # whoever hears a heartbeat may ask at once, and there has to be someone who listens
        await client.flush(_FLUSH)
        self._asked.set()
        self.publisher.connected()
        self._tell(f"connected to {self.config.leaf.url}")

    async def _beat(self) -> None:
        """Send heartbeats, at their interval and when they are asked for."""
        interval = seconds(self.config.heartbeat)
        subject = subjects.heartbeat(self.config.token)
        looking: asyncio.Task[None] | None = None
        while True:
            client = await self.connection.wait()
            with suppress(nats.errors.Error, OSError):
                await client.publish(subject, heartbeat.encode(self._heartbeat(interval)))
            self._asked.clear()
            await asyncio.sleep(min(_WHO_AT_MOST, interval))
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, interval - _WHO_AT_MOST)):
                    await self._asked.wait()
            # what the host does for others may take minutes, and the agent lives meanwhile
            if looking is None or looking.done():
                looking = asyncio.create_task(self._look())
            await asyncio.wait([looking], timeout=min(_WHO_AT_MOST, interval))

    async def _look(self) -> None:
        """Look at the host as it is now."""
        with suppress(IpttctlError, ProtocolError, OSError):
            self._facts = await self._on_host(self._host.facts)
            self.feed.within = self._facts.within

    def _heartbeat(self, interval: float) -> Heartbeat:
        facts: Facts = self._facts
        return Heartbeat(
            host=self.config.host,
            labels=dict(self.config.labels),
            kernel=facts.kernel,
            boot=facts.boot,
            run=self.numbers.run,
            version=facts.version,
            module=facts.module,
            features=list(facts.features),
            allow=list(self.config.allow),
            interval_ms=int(interval * 1000),
            traces=len(self.commands.leases),
            watches=self.watches.names,
            time_ms=int(time.time() * 1000),
        )

    async def _report(self) -> None:
        """Tell the service manager that all is well, as long as it is; and the log of changes."""
        pause = min(5.0, (self._manager.interval or 10.0) / 3)
        before = ""
        while True:
            if self.reader.failure:
                raise self.reader.failure
            if self.reader.alive:
                self._manager.tell("WATCHDOG=1", status=self.status)
            now = self.connection.problem or self.publisher.problem
            if now and now != before:
                self._tell(f"leaf: {now}")
            before = now
            await asyncio.sleep(pause)

    async def _serve(self) -> None:
        """Serve metrics, as soon as nobody else has the port."""
        if self.metrics and (options := self.config.metrics):
            told = ""
            # the library looks the address's name up
            while error := await asyncio.to_thread(self._metrics_problem):
                if error != told:
                    self._tell(f"no metrics on {options.address}, port {options.port}: {error}")
                told = error
                await asyncio.sleep(_METRICS_AGAIN)
            address, port = self.metrics.address
            self._tell(f"metrics are on {address}, port {port}")
        await asyncio.Event().wait()

    def _metrics_problem(self) -> str:
        """Begin to serve metrics; the reason if that is not possible."""
        assert self.metrics is not None
        try:
            self.metrics.start()
        except OSError as error:
            return os_reason(error)
        return ""

    async def _on_host(self, work: Callable[[], Any]) -> Any:
        """Have the host's own thread do something; it is not interrupted."""
        return await self._worker.run(work)

    def _overrun(self, subject: str) -> None:
        # wishes to hear heartbeats are answered together anyway
        if subject != subjects.WHO:
            self.commands.overrun()

    def _told(self, found: Sequence[Told], watch: str) -> None:
        if self.metrics:
            self.metrics.told(found, watch)
        if self.otlp:
            self.otlp.told(found, watch)

    def _otlp(self) -> OtlpDrops | None:
        if self.config.otlp is None:
            return None
        from ipttctl.fleet.otlp import OtlpDrops  # noqa: PLC0415  # 300 ms; off by default

        return OtlpDrops(self.config.otlp, self.config.host, self.numbers.run, self._tell)

    def _metrics(self) -> AgentMetrics | None:
        if self.config.metrics is None:
            return None
        from ipttctl.fleet.counts import AgentCounts  # noqa: PLC0415  # 70 ms; off by default
        from ipttctl.fleet.metrics import AgentMetrics  # noqa: PLC0415  # see above

        counts = AgentCounts(
            self.config.host,
            feed=self.feed,
            reader=self.reader,
            spool=self.spool,
            ledger=self.ledger,
            publisher=self.publisher,
            connection=self.connection,
            commands=self.commands,
            watches=self.watches,
            otlp=self.otlp,
        )
        return AgentMetrics(self.config.metrics, self.config.host, counts)
