# SPDX-License-Identifier: GPL-2.0
"""Messages of the stream that the agent has not published in this run, and their items."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from ipttctl.frames.codec import decode_head
from ipttctl.frames.head import FrameError, FrameHead

_MOST_READ: Final = 1 << 14
"""Messages that are read one by one, the oldest first; each takes a fifth of a millisecond."""

_AT_ONCE: Final = 16
_PARTS: Final = 64
"""Parts of the rest, of which the first message is read, which tells when the part expires."""


@dataclass
class Earlier:
    """Findings. Numbers of messages that are no frames of the host are left out.

    Reading may break off, and goes on where it was.
    """

    known: frozenset[int] = frozenset()
    """Numbers that are not to be read."""
    through: int = 0
    """The number up to which all messages were read, are known or are gone."""
    gone: int = 0
    """Messages that the stream did not have any more before they were read."""
    heads: dict[int, FrameHead] = field(default_factory=dict)
    unread: list[tuple[range, int]] = field(default_factory=list)
    """The rest in parts, and when the first message of each was made (CLOCK_REALTIME, ns)."""
    complete: bool = True
    """Whether all were there and were read."""
    allowed: bool = True
    """Whether one has the right to read messages."""
    asked: int = 0
    """Messages that were asked for, and answered."""


async def read_earlier(
    js: JetStreamContext, stream: str, host: str, there: range, found: Earlier
) -> None:
    """Read the heads of the messages that are there, behind those that were read already.

    Raises:
        nats.errors.Error: the connection is gone, or slow: what is read may be gone on with.
    """
    gone = range(found.through + 1, there.start)
    if more := len(gone) - sum(number in gone for number in found.known):
        found.gone += more
        found.complete = False
    found.through = max(found.through, there.start - 1)
    wanted = (one for one in range(found.through + 1, there.stop) if one not in found.known)
    while found.asked < _MOST_READ and (some := list(islice(wanted, _AT_ONCE))):
        if not found.asked and not await _may_read(js, stream, some[0]):
            found.complete = found.allowed = False
            return
        await _read(js, stream, host, some, found)
        found.asked += len(some)
        found.through = some[-1]
    if (rest := next(wanted, None)) is not None:
        found.complete = False
        found.unread = []
        for part in _parts(range(rest, there.stop)):
            first_one = Earlier()
            await _read(js, stream, host, [part.start], first_one)
            # of one that begins with something else nobody knows when it expires
            if head := first_one.heads.get(part.start):
                found.unread.append((part, head.time))


async def _may_read(js: JetStreamContext, stream: str, number: int) -> bool:
    """Whether one may read messages: a server does not answer what one has no right to ask.

    Nor does one that is busy, for a while. So it is asked twice, and has to answer something else
    in between.

    Raises:
        nats.errors.Error: it answers nothing.
    """
    for last in (False, True):
        try:
            await js.get_msg(stream, number)
        except NotFoundError:
            return True
        except nats.errors.TimeoutError:
            if not last:
                await js.stream_info(stream)
        else:
            return True
    return False


async def _read(
    js: JetStreamContext, stream: str, host: str, numbers: Sequence[int], found: Earlier
) -> None:
    """Read some messages, at the same time."""
    asked = (js.get_msg(stream, number) for number in numbers)
    for number, message in zip(
        numbers, await asyncio.gather(*asked, return_exceptions=True), strict=True
    ):
        match message:
            # it expired meanwhile, or somebody has removed it
            case NotFoundError():
                found.complete = False
            case BaseException():
                raise message
            case _:
                try:
                    head = decode_head(message.data or b"")
                except FrameError:
                    continue
                if head.host == host:
                    found.heads[number] = head


def _parts(numbers: range) -> Iterator[range]:
    size = -(-len(numbers) // _PARTS)
    for begin in range(numbers.start, numbers.stop, size):
        yield range(begin, min(begin + size, numbers.stop))
