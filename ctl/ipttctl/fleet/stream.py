# SPDX-License-Identifier: GPL-2.0
"""The stream that the leaf keeps for its host, and what its bound throws away."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from time import monotonic
from typing import Final

from nats.js import JetStreamContext
from nats.js.api import (
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StoreCompression,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import APIError, NotFoundError

from ipttctl.errors import IpttctlError
from ipttctl.fleet import subjects
from ipttctl.fleet.config import AgentConfig
from ipttctl.fleet.config_file import seconds
from ipttctl.frames.head import FrameHead

STREAM: Final = "stream"
"""The cause of losses by the bound of the stream."""

WINDOW: Final = 120.0
"""Seconds within which the server itself drops a message that comes twice."""

LONGEST: Final = 1 << 20
"""Most bytes of a message."""

_NO_ROOM: Final = frozenset({10002, 10023, 10047})
"""Numbers of the server's errors: limits of the account, of all resources, of storage."""

_MOST_KNOWN: Final = 1 << 16
"""Most entries of what messages hold; where there are more, an entry is for several messages."""


class NoRoomError(IpttctlError):
    """The server has no room for the stream, or for more of it."""


def wanted(config: AgentConfig) -> StreamConfig:
    """The stream as the configuration wants it."""
    host = config.token
    return StreamConfig(
        name=config.stream_name,
        description=f"events and stories of {config.host}, by ipttctl agent",
        subjects=[subjects.events(host), subjects.stories(host)],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_bytes=config.stream.bytes,
        max_age=seconds(config.stream.age),
        max_msg_size=LONGEST,
        duplicate_window=min(WINDOW, seconds(config.stream.age)),
        compression=StoreCompression.NONE,  # frames are compressed already
        num_replicas=1,
    )


async def ensure(js: JetStreamContext, config: StreamConfig) -> StreamInfo:
    """Make the stream, or give the one that is there these bounds.

    Raises:
        NoRoomError: the server has no room for it.
    """
    assert config.name is not None
    try:
        try:
            found = await js.stream_info(config.name)
        except NotFoundError:
            return await js.add_stream(config)
        if _differs(found.config, config):
            return await js.update_stream(config)
    except APIError as error:
        raise (no_room(error, config) or error) from None
    return found


def no_room(error: BaseException, config: StreamConfig) -> NoRoomError | None:
    """The failure that an answer tells, if it is that the server has no room for a stream."""
    if not isinstance(error, APIError) or error.err_code not in _NO_ROOM:
        return None
    return NoRoomError(
        f"the leaf has no room for the stream {config.name} of {config.max_bytes} bytes",
        "raise max_file of its JetStream, or lower stream.bytes",
    )


def _differs(found: StreamConfig, config: StreamConfig) -> bool:
    names = ("subjects", "discard", "max_bytes", "max_age", "max_msg_size", "duplicate_window")
    return any(getattr(found, name) != getattr(config, name) for name in names)


@dataclass(frozen=True, order=True)
class _Kept:
    """A message in the stream, or several of a kind up to one with ``number``."""

    number: int
    kind: str
    items: int
    expires: float


class StreamLedger:
    """Knows how many items are in messages of this run, and so how many are thrown away.

    A message that goes because of its age has been there as long as was asked for, and is not
    counted. Nor are messages of the agent's earlier runs.
    """

    def __init__(self, age: float, most: int = _MOST_KNOWN) -> None:
        """Messages expire after ``age`` seconds; ``most`` entries remember what they hold."""
        self._age = age
        self._most = most
        #: a heap: several messages are on their way at once, and may be stored in another order
        self._kept: list[_Kept] = []
        self.newest = 0
        """The highest number of a message of ours."""
        self.lost: Counter[str] = Counter()
        """Items that were thrown away, by kind."""

    def stored(self, number: int, head: FrameHead, sent: float) -> None:
        """Take note of a message that the stream has under a number.

        It was sent first at ``sent``, on the monotonic clock: the stream has had it since then, or
        for less.
        """
        self.newest = max(self.newest, number)
        if head.count:
            heappush(self._kept, _Kept(number, head.kind, head.count, sent + self._age))
            if len(self._kept) > self._most:
                self._merge()

    def take(self, first: int, last: int, newest: int) -> Counter[str]:
        """Take note of the first and last number that the stream has; returns what is newly lost.

        ``newest`` is what it was before the stream was asked. Numbers up to it that the stream has
        not reached are of a stream that is no more.
        """
        lost: Counter[str] = Counter()
        anew = [one for one in self._kept if last < one.number <= newest]
        if anew:
            self._kept = [one for one in self._kept if not last < one.number <= newest]
            heapify(self._kept)
            self.newest = max((one.number for one in self._kept), default=0)
        while self._kept and self._kept[0].number < first:
            one = heappop(self._kept)
            if one.expires > monotonic():
                lost[one.kind] += one.items
        for one in anew:
            lost[one.kind] += one.items
        self.lost.update(lost)
        return lost

    def _merge(self) -> None:
        """Have half as many entries: neighbours of a kind are counted when the later one goes."""
        merged: list[_Kept] = []
        open_: dict[str, _Kept] = {}
        for one in sorted(self._kept):
            before = open_.pop(one.kind, None)
            if before is None:
                open_[one.kind] = one
            else:
                merged.append(replace(one, items=before.items + one.items))
        # in order, it is a heap
        self._kept = sorted([*merged, *open_.values()])
