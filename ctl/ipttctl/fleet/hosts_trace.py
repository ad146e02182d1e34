# SPDX-License-Identifier: GPL-2.0
"""A trace on many hosts at once: begun, renewed, read from the hub's stream, and ended."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from ipttctl.errors import IpttctlError
from ipttctl.fleet import subjects
from ipttctl.fleet.asker import FAILURES, Asker, HubError
from ipttctl.fleet.connection import sentence
from ipttctl.fleet.heartbeat import Heartbeat
from ipttctl.fleet.publisher import TRACE
from ipttctl.frames.bodies import json_of
from ipttctl.frames.codec import decode
from ipttctl.frames.head import STORIES, FrameError, FrameHead
from ipttctl.frames.seen import Seen
from ipttctl.joins.chains import StoryChain
from ipttctl.joins.clocks import Life
from ipttctl.joins.joiner import HOLD, Joiner

START: Final = 600.0
"""Seconds for which a host may take to begin: it may have to verify walks and compile."""

LEASE: Final = 30.0
"""Seconds for which hosts trace on if this asker is gone."""

_KEY_SIZE: Final = 16
_STEP: Final = 0.2
_AT_ONCE: Final = 64
_PAUSE: Final = 1.0
_NANO: Final = 1_000_000_000


@dataclass
class TracedHost:
    """A host that traces, and what is known of it."""

    name: str
    life: Life
    trace: str
    stories: int = 0
    lost: int = 0
    """Items of which the host says that it lost them."""
    late: int = 0
    """Stories that came later than others wait for them."""
    problem: str = ""
    """Why it does not trace any more."""
    answered: bool = False
    """Whether it has answered since it began."""


@dataclass
class HostsTrace:
    """The trace: ``chains`` gives what was joined since it was asked last."""

    asker: Asker
    hosts: list[TracedHost] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """A sentence on each host that does not trace."""
    joiner: Joiner = field(default_factory=Joiner)
    damaged: int = 0
    """Messages that are no frames of their host, or damaged ones."""
    _seen: Seen = field(default_factory=Seen)
    _last: int = 0
    _running: list[TracedHost] = field(default_factory=list)
    _reading: asyncio.Event = field(default_factory=asyncio.Event)

    async def begin(self, found: Sequence[Heartbeat], request: dict[str, Any]) -> None:
        """Have hosts trace, at the same time.

        Raises:
            IpttctlError: none does.
        """
        key = secrets.token_hex(_KEY_SIZE)
        asked = {**request, "lease": LEASE, "join": key}

        async def one(host: Heartbeat) -> TracedHost:
            answer = await self.asker.ask(host.host, "trace", asked, START)
            return TracedHost(host.host, (host.host, host.boot), str(answer.get("trace")))

        results = await asyncio.gather(*map(one, found), return_exceptions=True)
        failures = [result for result in results if isinstance(result, IpttctlError)]
        self.hosts = [result for result in results if isinstance(result, TracedHost)]
        self._running = list(self.hosts)
        self.refused = [str(one) for one in failures]
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, IpttctlError):
                raise result
        if not self.hosts:
            raise failures[0]

    async def end(self) -> None:
        """Have all hosts end it; those that do not hear it end when their lease is over."""

        async def one(host: TracedHost) -> None:
            with suppress(IpttctlError):
                await self.asker.ask(host.name, "end", {"trace": host.trace})

        ending, self._running = self._running, []
        await asyncio.gather(*map(one, ending))

    async def renew(self) -> None:
        """Let it go on, on all hosts, until cancelled. Answers tell how clocks differ."""

        async def one(host: TracedHost) -> None:
            request = {"trace": host.trace, "lease": LEASE}
            sent = time.monotonic_ns()
            try:
                answer = await self.asker.ask(host.name, "renew", request, LEASE / 3)
            except IpttctlError as error:
                host.problem = str(error)
                return
            host.problem, host.answered = "", True
            clock = answer.get("clock")
            if isinstance(clock, int):
                self.joiner.clocks.asked(host.life, sent, clock, time.monotonic_ns())

        while True:
            await asyncio.gather(*map(one, self.hosts))
            await asyncio.sleep(LEASE / 3)

    async def read(self) -> None:
        """Take stories from now on, until cancelled.

        Raises:
            HubError: the hub has no stream, or does not let one read it.
        """
        first = True
        while True:
            try:
                async with self._consumer() as pulled:
                    first = False
                    self._reading.set()
                    while True:
                        await self._fetch(pulled)
            except nats.js.errors.NotFoundError:
                if first:
                    raise HubError(
                        f"the hub has no stream {self.asker.hub.stream}", "see docs/fleet.md"
                    ) from None
            except FAILURES as error:
                if first:
                    raise HubError(f"cannot read the hub's stream: {sentence(error)}") from None
            # the hub was started again: its stream goes on where it was
            await asyncio.sleep(_PAUSE)

    async def reading_begun(self, reading: asyncio.Task[None]) -> None:
        """Wait until a task of ``read`` does not miss what comes.

        Raises:
            HubError: it cannot read.
        """
        begun = asyncio.create_task(self._reading.wait())
        await asyncio.wait([reading, begun], return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        if reading.done():
            reading.result()

    def chains(self) -> list[StoryChain]:
        """Chains that were joined by now."""
        return self.joiner.due(time.monotonic_ns())

    def rest(self) -> list[StoryChain]:
        """All that is left."""
        return self.joiner.flush()

    def sentences(self) -> Iterator[str]:
        """A sentence on each host that is late, lossy or silent, and on what was left out."""
        yield from self.refused
        missing = self._seen.missing(beginnings=False)
        for host in self.hosts:
            if host.problem:
                yield host.problem
            elif not host.stories and not host.answered:
                yield f"{host.name}: silent"
            if host.lost:
                yield f"{host.name}: lost {host.lost} items"
            if host.late:
                yield f"{host.name}: {host.late} stories came late"
        if missing:
            yield f"{missing} stories never came"
        if self.damaged:
            yield f"{self.damaged} damaged frames passed over"
        if given_up := self.joiner.counts.given_up:
            yield f"{given_up} stories were told early, for lack of room"

    # --- reading ------------------------------------------------------------------------------

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[JetStreamContext.PullSubscription]:
        js = self.asker.client.jetstream(timeout=5)
        name, stream = f"ipttctl-{secrets.token_hex(8)}", self.asker.hub.stream
        hosts = {host.name for host in self.hosts}
        token = subjects.host_token(hosts.pop()) if len(hosts) == 1 else "*"
        config = ConsumerConfig(
            name=name,
            filter_subject=subjects.stories(token),
            deliver_policy=(DeliverPolicy.BY_START_SEQUENCE if self._last else DeliverPolicy.NEW),
            opt_start_seq=self._last + 1 if self._last else None,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=60,
            mem_storage=True,
        )
        await js.add_consumer(stream, config)
        pulled = await js.pull_subscribe_bind(name, stream)
        try:
            yield pulled
        finally:
            with suppress(*FAILURES):
                async with asyncio.timeout(1):
                    await pulled.unsubscribe()
                    await js.delete_consumer(stream, name)

    async def _fetch(self, pulled: JetStreamContext.PullSubscription) -> None:
        try:
            messages = await pulled.fetch(_AT_ONCE, timeout=_STEP)
        except (TimeoutError, nats.errors.TimeoutError):
            return
        for message in messages:
            self._last = max(self._last, message.metadata.sequence.stream)
            self._take(message)

    def _take(self, message: Msg) -> None:
        traces = {host.trace: host for host in self.hosts}
        host = traces.get((message.headers or {}).get(TRACE, ""))
        if host is None:
            return
        try:
            head, body = decode(message.data)
            own = message.subject == subjects.stories(subjects.host_token(host.name))
            if not own or (head.host, head.kind) != (host.name, STORIES):
                raise FrameError("the frame is of another host")
            if not self._seen.first(head):
                return
            stories = json_of(head, body)
        except FrameError:
            self.damaged += 1
            return
        self._add(host, head, stories)

    def _add(self, host: TracedHost, head: FrameHead, stories: list[dict[str, Any]]) -> None:
        now = time.monotonic_ns()
        life = head.host, head.boot
        host.lost += sum(head.lost.values())
        host.stories += len(stories)
        made = self.joiner.clocks.on_asker(life, head.monotonic)
        if made is not None and now - made > HOLD:
            host.late += len(stories)
        for story in stories:
            self.joiner.add(life, story, now)
