# SPDX-License-Identifier: GPL-2.0
"""The frames that the hub's stream keeps, read from some time on, within bounds, each once."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamInfo

from ipttctl.fleet import subjects
from ipttctl.fleet.asker import FAILURES, Asker, HubError
from ipttctl.fleet.connection import sentence
from ipttctl.fleet.kept_losses import KeptLosses
from ipttctl.fleet.stream_begin import stream_begin
from ipttctl.frames.codec import decode
from ipttctl.frames.head import EVENTS, STORIES, FrameError, FrameHead
from ipttctl.frames.seen import Seen
from ipttctl.numbers import counted, shortened

SLACK: Final = 60.0
"""Seconds by which reading begins earlier than asked for: clocks of hosts differ from the hub's."""

_AT_ONCE: Final = 32
"""Frames that are on their way."""

_ANSWER: Final = 10.0
"""Seconds without anything after which the hub is thought to be gone."""

_MOST_CONSUMERS: Final = 16
"""Hosts of which each has a consumer of its own; for more, those of all are read."""

_MOST: Final = "the bound of --most"

_MOST_HOSTS: Final = 4096
"""Hosts that are read: whoever has taken the hub over may make up any number."""

_MOST_RUNS: Final = 64
"""Runs of a host of which it is remembered what has come; others' are not forgotten for them."""

_SHOWN_HOSTS: Final = 8

_WORDS: Final = {EVENTS: "events", STORIES: "stories"}

_SUBJECTS: Final = {EVENTS: subjects.events, STORIES: subjects.stories}


@dataclass(frozen=True)
class ReadBounds:
    """From when on frames are read (seconds on CLOCK_REALTIME), and how much at most."""

    since: float
    size: int
    """Bytes of frames, once they are no longer compressed."""
    seconds: float


class KeptFrames:
    """Reads frames; afterwards ``sentences`` tells what is missing in them."""

    def __init__(self, asker: Asker, bounds: ReadBounds) -> None:
        """Read by a connection to the hub."""
        self._asker = asker
        self._bounds = bounds
        self._js = asker.client.jetstream(timeout=_ANSWER)
        self._end = time.monotonic() + bounds.seconds
        #: by the last token of the subjects of hosts: names with dots and '_' may have the same
        self._seen: dict[str, Seen] = {}
        self._of_others = 0
        self._losses = KeptLosses()
        self._left = bounds.size
        self._full = ""
        self._of_all = False
        self._unread = 0
        self._reached = 0.0
        self._begin = 0.0
        self._found: set[str] = set()
        self._nothing = ""
        self.damaged = 0
        """Messages that are no frames of their host, or damaged ones."""

    async def read(
        self, kinds: Sequence[str], names: frozenset[str], asked: frozenset[str] = frozenset()
    ) -> AsyncGenerator[tuple[FrameHead, bytes], None]:
        """The frames of some kinds of some hosts, of all if none is named, in the hub's order.

        ``asked`` are those of which it is told if the hub keeps nothing of them.

        Raises:
            HubError: the hub has no such stream, does not let one read it, or is gone.
        """
        hosts = frozenset(map(subjects.host_token, names))
        try:
            stream = await self._js.stream_info(self._asker.hub.stream)
            if stream.state.first_seq > 1:
                # the oldest message may be of another host, or of another kind
                client, name = self._asker.client, self._asker.hub.stream
                self._begin = await stream_begin(client, name, _ANSWER)
            self._of_all = len(hosts) > _MOST_CONSUMERS
            for kind in kinds:
                for host in sorted(hosts) if 0 < len(hosts) <= _MOST_CONSUMERS else ["*"]:
                    # a consumer that nobody closes stays at the hub for a while
                    async with aclosing(self._of(_SUBJECTS[kind](host), hosts, stream)) as found:
                        async for one in found:
                            yield one
            self._note_missing(kinds, asked)
        except nats.js.errors.NotFoundError:
            raise HubError(
                f"the hub has no stream {self._asker.hub.stream}", "see docs/fleet.md"
            ) from None
        except (nats.errors.TimeoutError, TimeoutError):
            # a server does not answer what one has no right to ask
            raise HubError(
                "the hub does not answer",
                "have the right to read this stream and these hosts, or name others with --hosts",
            ) from None
        except FAILURES as error:
            raise HubError(f"cannot read what the hub keeps: {sentence(error)}") from None

    def sentences(self) -> list[str]:
        """A sentence on each thing that is missing, or was left out."""
        found = [self._nothing] if self._nothing else []
        if self._begin > self._bounds.since:
            found.append(f"the hub keeps nothing from before {_time(self._begin)}")
        if self._full:
            # nobody knows of which hosts those are that were not read
            most = "at most " if self._of_all else ""
            behind = f"behind {_time(self._reached)} ({self._full})"
            found.append(f"left out: {most}{self._unread} frames {behind}")
        if self.damaged:
            found.append(f"{self.damaged} damaged frames passed over")
        if self._of_others:
            found.append(f"left out: {self._of_others} frames of more than {_MOST_HOSTS} hosts")
        if missing := sum(seen.missing(beginnings=False) for seen in self._seen.values()):
            found.append(f"{missing} items of these hosts never came, or were thrown away before")
        if many := sorted(host for host, seen in self._seen.items() if seen.forgotten):
            runs = counted(sum(self._seen[host].forgotten for host in many), "run")
            found.append(
                f"of {runs} of {shortened(many, _SHOWN_HOSTS)} it is not known whether frames came "
                f"twice: there are more than {_MOST_RUNS}"
            )
        return [*found, *self._losses.sentences()]

    async def _of(
        self, subject: str, hosts: frozenset[str], stream: StreamInfo
    ) -> AsyncGenerator[tuple[FrameHead, bytes], None]:
        """The frames of a subject and some hosts, of all if none is named, up to what is there."""
        last = stream.state.last_seq
        name = f"ipttctl-{secrets.token_hex(8)}"
        assert stream.config.name
        made = await self._js.add_consumer(stream.config.name, self._consumer(name, subject))
        waiting = made.num_pending or 0
        own = subject.rpartition(".")[2]
        pulled = await self._js.pull_subscribe_bind(name, stream.config.name)
        try:
            while waiting and not self._over(waiting):
                for message in await self._next(pulled, waiting):
                    try:
                        where = message.metadata
                    # a hub that was taken over sends anything
                    except (*FAILURES, IndexError, OverflowError):
                        self.damaged += 1
                        waiting = max(0, waiting - 1)
                        continue
                    waiting = where.num_pending if where.sequence.stream < last else 0
                    if self._left > 0:
                        self._reached = max(self._reached, where.timestamp.timestamp())
                    # nothing of hosts that nobody asks for is told
                    host = message.subject.rpartition(".")[2]
                    if hosts and host not in hosts:
                        continue
                    if self._left <= 0:
                        self._found.add(host)
                        self._full = _MOST
                        self._unread += 1
                    elif one := self._frame(message, host):
                        yield one
            if waiting and own != "*":
                self._found.add(own)
        finally:
            with suppress(*FAILURES, TimeoutError):
                await pulled.unsubscribe()
                await self._js.delete_consumer(stream.config.name, name)

    def _note_missing(self, kinds: Sequence[str], asked: frozenset[str]) -> None:
        """Note of which hosts nothing is there; of all together, only if all was read."""
        if self._of_all and self._full:
            return
        missing = sorted(one for one in asked if subjects.host_token(one) not in self._found)
        if missing:
            what = " or ".join(_WORDS[kind] for kind in kinds)
            names = shortened(missing, _SHOWN_HOSTS)
            since = _time(self._bounds.since)
            self._nothing = f"the hub keeps no {what} of {names} from {since} on"

    def _consumer(self, name: str, subject: str) -> ConsumerConfig:
        return ConsumerConfig(
            name=name,
            filter_subject=subject,
            deliver_policy=DeliverPolicy.BY_START_TIME,
            opt_start_time=datetime.fromtimestamp(max(0.0, self._bounds.since - SLACK), UTC),
            ack_policy=AckPolicy.NONE,
            inactive_threshold=60,
            mem_storage=True,
        )

    async def _next(self, pulled: JetStreamContext.PullSubscription, waiting: int) -> list[Msg]:
        """The next messages, one at least."""
        limit = min(_ANSWER, max(0.1, self._end - time.monotonic()))
        try:
            return await pulled.fetch(min(_AT_ONCE, waiting), timeout=limit)
        except (TimeoutError, nats.errors.TimeoutError):
            if self._over(waiting):
                return []
            raise HubError(f"the hub has sent nothing for {limit:.0f} s") from None

    def _over(self, waiting: int) -> bool:
        """Whether a bound is reached, behind which so many frames wait."""
        if self._left <= 0:
            self._full = _MOST
        elif time.monotonic() >= self._end:
            self._full = "the bound of --within"
        else:
            return False
        self._unread += waiting
        return True

    def _frame(self, message: Msg, host: str) -> tuple[FrameHead, bytes] | None:
        """The frame of a message, if it is one, of the host that may send it, and comes first.

        It is none that the host made before what was asked for: reading begins earlier.
        """
        try:
            head, body = decode(message.data)
            own = message.subject == _SUBJECTS[head.kind](subjects.host_token(head.host))
        except (FrameError, KeyError, ValueError):
            own = False
        if own and head.time < self._bounds.since * 1e9:
            return None
        self._found.add(host)
        if not own:
            self.damaged += 1
            return None
        if host not in self._seen and len(self._seen) >= _MOST_HOSTS:
            self._of_others += 1
            return None
        # of each run there are events and stories
        if not self._seen.setdefault(host, Seen(2 * _MOST_RUNS)).first(head):
            return None
        self._losses.take(head)
        self._left -= len(body)
        return head, body


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
