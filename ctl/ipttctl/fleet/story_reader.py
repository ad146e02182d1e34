# SPDX-License-Identifier: GPL-2.0
"""A reader of stories of the hub's stream as they come: those of a host, or of all."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from ipttctl.fleet.asker import FAILURES, Asker, HubError
from ipttctl.fleet.connection import sentence

_STEP: Final = 0.2
_AT_ONCE: Final = 64
_PAUSE: Final = 1.0


class StoryReader:
    """Reads the messages of a subject from now on, each once, also when the hub comes back."""

    def __init__(self, asker: Asker, subject: str, take: Callable[[Msg], Awaitable[None]]) -> None:
        """Have ``take`` be called for each message."""
        self._asker = asker
        self._subject = subject
        self._take = take
        self._last: int | None = None
        self.begun = asyncio.Event()
        """Nothing is missed from now on."""
        self.problem = ""
        """Why the stream cannot be read at the moment."""
        self.damaged = 0
        """Messages that the hub made no sense of."""

    async def run(self) -> None:
        """Read until cancelled.

        Raises:
            HubError: the hub has no stream, or does not let one read it.
        """
        while True:
            try:
                async with self._consumer() as pulled:
                    self.problem = ""
                    self.begun.set()
                    while True:
                        await self.fetch(pulled)
            except nats.js.errors.NotFoundError:
                self.problem = f"the hub has no stream {self._asker.hub.stream}"
                if not self.begun.is_set():
                    raise HubError(self.problem, "see docs/fleet.md") from None
                self.problem += " any more"
            except FAILURES as error:
                self.problem = f"cannot read the hub's stream: {sentence(error)}"
                if not self.begun.is_set():
                    raise HubError(self.problem, "have the right to read these hosts") from None
            # the hub was started again: its stream goes on where it was
            await asyncio.sleep(_PAUSE)

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[JetStreamContext.PullSubscription]:
        js = self._asker.client.jetstream(timeout=5)
        name, stream = f"ipttctl-{secrets.token_hex(8)}", self._asker.hub.stream
        config = ConsumerConfig(
            name=name,
            filter_subject=self._subject,
            deliver_policy=(
                DeliverPolicy.NEW if self._last is None else DeliverPolicy.BY_START_SEQUENCE
            ),
            opt_start_seq=None if self._last is None else self._last + 1,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=60,
            mem_storage=True,
        )
        made = await js.add_consumer(stream, config)
        if self._last is None:
            # what comes while the hub is away counts, also if nothing has come before
            self._last = made.delivered.stream_seq if made.delivered else 0
        pulled = await js.pull_subscribe_bind(name, stream)
        try:
            yield pulled
        finally:
            with suppress(*FAILURES):
                async with asyncio.timeout(1):
                    await pulled.unsubscribe()
                    await js.delete_consumer(stream, name)

    async def fetch(self, pulled: JetStreamContext.PullSubscription) -> None:
        """Take the messages that are there, or the next ones."""
        try:
            messages = await pulled.fetch(_AT_ONCE, timeout=_STEP)
        except (TimeoutError, nats.errors.TimeoutError):
            return
        for message in messages:
            try:
                number = message.metadata.sequence.stream
            # a hub that was taken over sends anything
            except (*FAILURES, IndexError, OverflowError):
                self.damaged += 1
                continue
            self._last = max(self._last or 0, number)
            await self._take(message)
