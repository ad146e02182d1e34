# SPDX-License-Identifier: GPL-2.0
"""A trace on many hosts at once: begun, renewed, read from the hub's stream, and ended."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from nats.aio.msg import Msg

from ipttctl.errors import IpttctlError
from ipttctl.fleet import subjects
from ipttctl.fleet.asker import AnswerError, Asker, BusyError
from ipttctl.fleet.feed import UNTOLD
from ipttctl.fleet.heartbeat import Heartbeat
from ipttctl.fleet.host import Untold
from ipttctl.fleet.publisher import TRACE
from ipttctl.fleet.spool import SPOOL
from ipttctl.fleet.story_reader import StoryReader
from ipttctl.fleet.tasks import end_tasks, run_together
from ipttctl.frames.bodies import json_lines
from ipttctl.frames.codec import decode, decode_head
from ipttctl.frames.head import STORIES, FrameError, FrameHead
from ipttctl.frames.seen import Seen
from ipttctl.joins.chains import StoryChain
from ipttctl.joins.clocks import Life
from ipttctl.joins.joiner import Joiner
from ipttctl.numbers import counted

START: Final = 600.0
"""Seconds for which a host may take to begin: it may have to verify walks and compile."""

LEASE: Final = 30.0
"""Seconds for which hosts trace on if this asker is gone."""

_LEAST_LEASE: Final = 1.0
"""The shortest that agents are configured with; at the end of a trace what is left is less."""

_KEY_SIZE: Final = 16
_STEP: Final = 0.2
_MOST_READERS: Final = 16
_STORIES_AT_ONCE: Final = 64
_MOST_COUNT: Final = 2**62
_LOSSES: Final = ("ring", "memory", "observer", SPOOL, UNTOLD)
"""The causes by which this trace lacks something. Others are of frames of before, which the
leaf's stream threw away; of those of this trace the numbers are missing."""


def _count(answer: Mapping[str, Any], name: str) -> int | None:
    """A number of an answer, if it is one that counts something."""
    value = answer.get(name)
    return value if isinstance(value, int) and 0 <= value < _MOST_COUNT else None


def _lease(answer: Mapping[str, Any]) -> float:
    """The seconds for which a host traces on, if it grants less than it was asked for."""
    value = answer.get("lease")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LEASE:
        return LEASE
    return max(_LEAST_LEASE, value)


@dataclass(eq=False)
class TracedHost:
    """A host that traces, and what is known of it."""

    name: str
    life: Life
    trace: str
    run: str = ""
    """The run of its agent, by its heartbeat and then by the first frame of the trace."""
    begun: bool = False
    """Whether a frame of the trace has come."""
    stories: int = 0
    lost: int = 0
    """Items of which the heads of its frames say that they were lost."""
    late: int = 0
    """Stories that came later than others wait for them."""
    damaged: int = 0
    """Messages that are no frames of this host, or damaged ones."""
    problem: str = ""
    """Why it does not trace any more."""
    answered: bool = False
    """Whether it has answered since it began."""
    seen: Seen = field(default_factory=Seen)
    first_loss: int | None = None
    last_loss: int = 0
    """Items that its agent has lost so far, by its first answer and its last."""
    untold: Untold = field(default_factory=Untold)
    """Packets of which it told nothing; known at the end."""
    lease: float = LEASE
    """Seconds for which it traces on, by its last answer that says so."""

    def begin(self, head: FrameHead) -> None:
        """Take the first frame of the trace.

        The agent may have been started again between its heartbeat and the beginning.
        """
        if self.run != head.run:
            self.run, self.seen = head.run, Seen()
        self.life = head.host, head.boot
        self.begun = True

    def take_answer(self, answer: Mapping[str, Any]) -> None:
        """Take note of what an answer tells of losses, and of its lease."""
        if "lease" in answer:
            self.lease = _lease(answer)
        if (lost := _count(answer, "lost")) is not None:
            self.last_loss = lost
            if self.first_loss is None:
                self.first_loss = lost
        untold = answer.get("untold")
        if isinstance(untold, Mapping):
            self.untold = Untold(_count(untold, "left_out") or 0, _count(untold, "unfollowed") or 0)

    def expect(self, answer: Mapping[str, Any]) -> None:
        """Take note of how many stories it has told, by what it answers while they are read."""
        if (number := _count(answer, "stories")) is not None:
            self.seen.expect(*self.life, self.run, STORIES, number)

    @property
    def missing(self) -> int:
        """Stories that it has told and that have not come."""
        return self.seen.missing(beginnings=False)

    def sentences(self) -> Iterator[str]:
        """A sentence on each way in which it is late, lossy or silent."""
        if self.problem:
            yield self.problem
        elif not self.stories and not self.answered:
            yield f"{self.name}: silent"
        # heads tell it in another way, as far as frames have come
        if lost := max(self.lost, self.last_loss - (self.first_loss or 0)):
            yield f"{self.name}: lost {counted(lost, 'item')}"
        if left_out := self.untold.left_out:
            yield f"{self.name}: {counted(left_out, 'packet')} left out by its governor"
        if unfollowed := self.untold.unfollowed:
            times = counted(unfollowed, "time")
            yield f"{self.name}: {times} there was no room to follow a packet"
        if self.late:
            yield f"{self.name}: {counted(self.late, 'story', 'stories')} came late"
        if missing := self.missing:
            yield f"{self.name}: {counted(missing, 'story', 'stories')} never came"
        if self.damaged:
            yield f"{self.name}: {counted(self.damaged, 'damaged frame')} passed over"


@dataclass
class HostsTrace:
    """The trace: ``chains`` gives what was joined since it was asked last."""

    asker: Asker
    hosts: list[TracedHost] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """A sentence on each host that does not trace."""
    joiner: Joiner = field(default_factory=Joiner)
    _readers: list[StoryReader] = field(default_factory=list)
    _renewing: list[asyncio.Task[None]] = field(default_factory=list)
    _reading: asyncio.Event = field(default_factory=asyncio.Event)
    _begun: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing that is told from now on is missed."""

    async def begin(self, found: Sequence[Heartbeat], request: dict[str, Any]) -> None:
        """Have hosts trace, at the same time, and go on with it until ``end``.

        Raises:
            IpttctlError: none does.
        """
        key = secrets.token_hex(_KEY_SIZE)
        asked = {**request, "lease": LEASE, "join": key}

        async def one(host: Heartbeat) -> None:
            answer = await self.asker.ask(host.host, "trace", asked, START)
            life = host.host, host.boot
            traced = TracedHost(host.host, life, str(answer.get("trace")), host.run)
            traced.take_answer(answer)
            self.hosts.append(traced)
            # others may take longer than the lease to begin
            self._renewing.append(asyncio.create_task(self._renew(traced)))

        results = await asyncio.gather(*map(one, found), return_exceptions=True)
        failures = [result for result in results if isinstance(result, IpttctlError)]
        self.hosts.sort(key=lambda host: host.name)
        self.refused = [str(one) for one in failures]
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, IpttctlError):
                raise result
        if not self.hosts:
            raise failures[0]

    async def end(self) -> None:
        """Have all hosts end it; those that do not hear it end when their lease is over."""

        async def one(host: TracedHost) -> None:
            begun = self._begun.is_set()
            try:
                answer = await self.asker.ask(host.name, "end", {"trace": host.trace})
            except IpttctlError as error:
                # it ended before, perhaps after its last answer, and says why
                if isinstance(error, AnswerError) and not isinstance(error, BusyError):
                    host.problem = str(error)
                return
            host.take_answer(answer)
            if begun:
                host.expect(answer)

        renewing, self._renewing = self._renewing, []
        await end_tasks(renewing)
        if renewing:
            await asyncio.gather(*map(one, self.hosts))

    async def _renew(self, host: TracedHost) -> None:
        """Let it go on, on a host, until cancelled. Answers tell how clocks differ."""
        request = {"trace": host.trace, "lease": LEASE}
        while True:
            pause = min(LEASE, host.lease) / 3
            begun, sent = self._begun.is_set(), time.monotonic_ns()
            try:
                answer = await self.asker.ask(host.name, "renew", request, LEASE / 6)
            except AnswerError as error:
                host.problem, pause = str(error), LEASE / 3
            # the hub is started again, perhaps, and there may be time left
            except IpttctlError as error:
                host.problem, pause = str(error), min(LEASE / 30, pause)
            else:
                host.problem, host.answered = "", True
                host.take_answer(answer)
                if begun:
                    host.expect(answer)
                pause = min(LEASE, host.lease) / 3
                if (clock := _count(answer, "clock")) is not None:
                    self.joiner.clocks.asked(host.life, sent, clock, time.monotonic_ns())
            if begun:
                await asyncio.sleep(pause)
                continue
            # the sooner it says how many it has told, the fewer can be missed unnoticed
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._begun.wait()

    async def read(self) -> None:
        """Take stories from now on, until cancelled.

        Those of a few hosts are read one by one: not everybody may read all.

        Raises:
            HubError: the hub has no stream, or does not let one read it.
        """
        tokens = [subjects.host_token(host.name) for host in self.hosts]
        if len(tokens) > _MOST_READERS:
            tokens = ["*"]
        self._readers = [
            StoryReader(self.asker, subjects.stories(token), self.take) for token in tokens
        ]
        self._reading.set()
        await run_together(*(reader.run() for reader in self._readers))

    async def reading_begun(self, reading: asyncio.Task[None]) -> None:
        """Wait until a task of ``read`` does not miss what comes.

        Raises:
            HubError: it cannot read.
        """

        async def all_begun() -> None:
            await self._reading.wait()
            for reader in self._readers:
                await reader.begun.wait()

        begun = asyncio.create_task(all_begun())
        await asyncio.wait([reading, begun], return_when=asyncio.FIRST_COMPLETED)
        await end_tasks([begun])
        if reading.done():
            reading.result()
        self._begun.set()

    @property
    def complete(self) -> bool:
        """Whether all has come that hosts say they have told."""
        return not any(host.missing for host in self.hosts)

    @property
    def problem(self) -> str:
        """Why the hub's stream cannot be read at the moment."""
        return next((reader.problem for reader in self._readers if reader.problem), "")

    def chains(self) -> list[StoryChain]:
        """Chains that were joined by now."""
        return self.joiner.due(time.monotonic_ns())

    def rest(self) -> list[StoryChain]:
        """All that is left."""
        return self.joiner.flush()

    def sentences(self) -> Iterator[str]:
        """A sentence on each host that is late, lossy or silent, and on what was left out."""
        yield from self.refused
        for host in self.hosts:
            yield from host.sentences()
        if self.problem:
            yield self.problem
        if damaged := sum(reader.damaged for reader in self._readers):
            yield f"{counted(damaged, 'damaged message')} passed over"
        if given_up := self.joiner.counts.given_up:
            yield f"{counted(given_up, 'story was', 'stories were')} told early, for lack of room"

    # --- reading ------------------------------------------------------------------------------

    async def take(self, message: Msg) -> None:
        """Take a message of the stream, whoever it is of."""
        traces = {subjects.stories(subjects.host_token(host.name)): host for host in self.hosts}
        host = traces.get(message.subject)
        if host is None:
            return
        trace = (message.headers or {}).get(TRACE, "")
        try:
            if trace != host.trace:
                self._take_other(host, decode_head(message.data))
                return
            head, body = decode(message.data)
            if (head.host, head.kind) != (host.name, STORIES):
                raise FrameError("the frame is of another host")
            begun = host.begun
            if not begun:
                host.begin(head)
            # a run has one boot: what is known of clocks has no more lives than there are hosts
            if (head.boot, head.run) != (host.life[1], host.run):
                raise FrameError("the frame is of another run")
            if not host.seen.first(head):
                return
            # the first one tells of what was before the trace, too; answers tell the rest
            if begun:
                host.lost += sum(head.lost.get(cause, 0) for cause in _LOSSES)
            stories = json_lines(head, body)
        except FrameError:
            host.damaged += 1
            return
        await self._add(host, head, stories)

    def _take_other(self, host: TracedHost, head: FrameHead) -> None:
        """Take note of a frame of somebody else's trace: their stories are numbered with ours."""
        ours = host.name, STORIES, host.life[1], host.run
        if (head.host, head.kind, head.boot, head.run) == ours:
            host.seen.first(head)

    async def _add(self, host: TracedHost, head: FrameHead, stories: Sequence[bytes]) -> None:
        now = time.monotonic_ns()
        made = self.joiner.clocks.on_asker(host.life, head.monotonic)
        late = made is not None and now - made > self.joiner.hold
        for place, line in enumerate(stories):
            if not place % _STORIES_AT_ONCE:
                # leases are renewed and signals heard meanwhile
                await asyncio.sleep(0)
            while self.joiner.full:
                await asyncio.sleep(_STEP)
            try:
                self.joiner.add(host.life, line, now)
            except FrameError:
                # the rest of the frame is not looked at
                host.damaged += 1
                return
            host.stories += 1
            host.late += late
