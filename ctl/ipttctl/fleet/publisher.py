# SPDX-License-Identifier: GPL-2.0
"""The way of frames from the spool to the stream: each is sent until the stream has it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Final

from nats.aio.client import Client
from nats.js.api import PubAck, StreamConfig, StreamInfo

from ipttctl.fleet import subjects
from ipttctl.fleet.connection import sentence
from ipttctl.fleet.ledger import MOST_NUMBER, STREAM, Losses, to_say
from ipttctl.fleet.ledger_keeper import LedgerKeeper
from ipttctl.fleet.spool import Spool, Waiting
from ipttctl.fleet.stream import LONGEST, NoRoomError, ensure, no_room
from ipttctl.fleet.tasks import run_together
from ipttctl.frames.codec import encode
from ipttctl.frames.head import EVENTS, STORIES, FrameError, FrameHead

AT_ONCE: Final = 8
"""Frames that are sent and not stored yet."""

TRACE: Final = "Ipttctl-Trace"
"""The header with the id of the trace that stories are of."""

_HEADERS: Final = 1024
"""Most bytes of headers."""

_ANSWER: Final = 5.0
"""Seconds after which a frame that was not answered is sent again."""

_PAUSE: Final = 0.5
_LOOK: Final = 2.0
"""Seconds between two looks at the bounds of the stream."""


class Publisher:
    """Publishes what comes into a spool, as long as it runs."""

    def __init__(
        self,
        spool: Spool,
        host: str,
        stream: StreamConfig,
        keeper: LedgerKeeper,
        connection: Callable[[], Awaitable[Client]],
    ) -> None:
        """Publish on the subjects of ``host``; ``connection`` waits for one."""
        self._spool = spool
        self._subjects = {EVENTS: subjects.events(host), STORIES: subjects.stories(host)}
        self._stream = stream
        self._keeper = keeper
        self._ledger = keeper.ledger
        self._connection = connection
        #: what is lost, and the next frames do not say yet
        self._lost: Losses = Counter()
        self._there = asyncio.Event()
        #: whether there is a new connection, by which the stream was not looked at
        self._anew = asyncio.Event()
        self._ready = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            # the loop may be over before the thread is
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._there.set)

        spool.on_put(wake)
        self.busy = 0
        """Frames on their way."""
        self.frames = 0
        """Frames that were stored."""
        self.items = 0
        """Items in them."""
        self.bytes = 0
        """Bytes of them."""
        self.again = 0
        """How often a frame had to be sent again."""
        self.known = 0
        """Frames that the stream had already."""
        self.problem = ""
        """The last reason why a frame was not stored; empty once one is."""

    @property
    def idle(self) -> bool:
        """Whether all that came is stored."""
        return not self.busy and not len(self._spool)

    @property
    def ready(self) -> bool:
        """Whether the stream is there, with its bounds, and it is known what it has."""
        return self._ready.is_set()

    def connected(self) -> None:
        """Look at the stream anew: there is another connection. Frames wait until it is there.

        By then it may have to be read for a while, or there is no room for it; commands are heard
        all the same.
        """
        self._ready.clear()
        self._anew.set()

    async def run(self) -> None:
        """Publish until cancelled; frames on their way may then have been stored or not."""
        await run_together(self._watch_bounds(), *(self._send_all() for _ in range(AT_ONCE)))

    async def say_losses(self) -> None:
        """Have the next frames say all that is lost: they are the last ones."""
        if self._lost:
            await self._say(at_once=True)

    async def close(self) -> None:
        """Note what is stored, for the agent that comes next."""
        await self._keeper.note(at_once=True)

    async def _ensure(self, client: Client) -> None:
        """Make sure that the stream is there, with its bounds, and count what it has lost."""
        js = client.jetstream(timeout=_ANSWER)

        async def begin(there: StreamInfo | None) -> None:
            assert self._stream.name
            self._lost += await self._keeper.begin(js, self._stream.name, there)

        newest = self._ledger.newest
        await self._look(await ensure(js, self._stream, begin), newest)

    async def _send_all(self) -> None:
        while True:
            frame = self._spool.take()
            if frame is None:
                self._there.clear()
                if not len(self._spool):
                    await self._there.wait()
                continue
            self.busy += 1
            try:
                await self._send(frame)
            finally:
                self.busy -= 1

    async def _send(self, frame: Waiting) -> None:
        """Send a frame until the stream has it."""
        head = frame.head
        # compressing does not hold the interpreter's lock: the loop goes on meanwhile
        try:
            data = await asyncio.to_thread(encode, head, frame.body)
        except FrameError:
            # its body is longer than any may be
            self._throw_away(head)
            return
        headers = {"Nats-Msg-Id": head.message_id}
        if frame.trace:
            headers[TRACE] = frame.trace
        sent = 0.0
        while True:
            client = await self._connection()
            if not self._ready.is_set():
                await self._ready.wait()
                continue
            sent = sent or monotonic()
            if len(data) + _HEADERS > min(client.max_payload, LONGEST):
                self._throw_away(head)
                return
            try:
                stored = await client.jetstream().publish(
                    self._subjects[head.kind],
                    data,
                    timeout=_ANSWER,
                    stream=self._stream.name,
                    headers=dict(headers),
                )
                _check(stored, self._stream)
            # whoever hears a frame can answer it, with anything: the hub does
            except Exception as error:
                self.problem = sentence(no_room(error, self._stream) or error)
                self.again += 1
                await asyncio.sleep(_PAUSE)
                continue
            self.problem = ""
            self.known += bool(stored.duplicate)
            self.frames += 1
            self.items += head.count
            self.bytes += len(data)
            self._ledger.stored(stored.seq, head, sent)
            return

    def _throw_away(self, head: FrameHead) -> None:
        """Count the items of a frame that nothing can hold: one story may be as long as that."""
        self._ledger.count(Counter({head.kind: head.count}))
        self._spool.lose(head.kind, {STREAM: head.count})
        for cause, number in head.lost.items():
            self._spool.lose(head.kind, {cause: number})

    async def _watch_bounds(self) -> None:
        """Count what the bounds of the stream throw away; the next frames say it."""
        while True:
            self._anew.clear()
            client = await self._connection()
            try:
                # somebody may have removed it, or changed its bounds
                await self._ensure(client)
            except NoRoomError as error:
                self._ready.clear()
                self.problem = str(error)
            # an answer may be anybody's, and so anything
            except Exception as error:
                if not self.ready:
                    self.problem = sentence(error)
            else:
                # it was looked at by a connection that is gone, otherwise
                if not self.ready and not self._anew.is_set():
                    self.problem = ""
                    self._ready.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._anew.wait()

    async def _look(self, info: StreamInfo, newest: int) -> None:
        """Count what the stream has no more: it is noted first, and then said by the next frames.

        An agent that is killed in between leaves it to the next one. Where something is lost all
        the time, what comes soon after a note waits for the next.
        """
        state = info.state
        self._lost += to_say(self._ledger.take(state.first_seq, state.last_seq, newest))
        if self._lost:
            await self._say(info)
        else:
            await self._keeper.note(info)

    async def _say(self, info: StreamInfo | None = None, *, at_once: bool = False) -> None:
        lost, self._lost = self._lost, Counter()
        if not await self._keeper.note(info, at_once=at_once, lost=True):
            self._lost += lost
            return
        for (kind, cause), number in lost.items():
            self._spool.lose(kind, {cause: number})


def _check(stored: PubAck, stream: StreamConfig) -> None:
    """Check that an answer is one of the stream.

    Raises:
        ValueError: it is not.
    """
    number: object = stored.seq
    if stored.stream != stream.name or type(number) is not int or not 0 < number <= MOST_NUMBER:
        raise ValueError("something answers a frame that is not the stream")
