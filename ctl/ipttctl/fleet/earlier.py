# SPDX-License-Identifier: GPL-2.0
"""What messages of the stream hold that the agent has not published in this run."""

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
    """What was found. Numbers of messages that are no frames of the host are left out."""

    heads: dict[int, FrameHead] = field(default_factory=dict)
    unread: list[tuple[range, int]] = field(default_factory=list)
    """The rest in parts, and when the first message of each was made (CLOCK_REALTIME, ns)."""
    complete: bool = True
    """Whether all were there and were read."""
    allowed: bool = True
    """Whether the server has answered."""


async def read_earlier(
    js: JetStreamContext, stream: str, host: str, numbers: range, known: frozenset[int]
) -> Earlier:
    """Read the heads of the messages with some numbers, but for those that are known.

    Raises:
        nats.errors.Error: the connection is gone.
    """
    found = Earlier()
    wanted = (number for number in numbers if number not in known)
    left = _MOST_READ
    while left and (some := list(islice(wanted, _AT_ONCE))):
        left -= len(some)
        await _read(js, stream, host, some, found)
        if not found.allowed:
            return found
    if (rest := next(wanted, None)) is not None:
        found.complete = False
        for part in _parts(range(rest, numbers.stop)):
            first = Earlier()
            await _read(js, stream, host, [part.start], first)
            # of one that begins with something else nobody knows when it expires
            if head := first.heads.get(part.start):
                found.unread.append((part, head.time))
    return found


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
            # a server does not answer what one has no right to ask
            case nats.errors.TimeoutError():
                found.complete = found.allowed = False
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
