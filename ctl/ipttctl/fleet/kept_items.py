# SPDX-License-Identifier: GPL-2.0
"""The stories and events that the hub keeps, in its order."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final, TypeVar

from ipttctl.fleet.asker import Asker
from ipttctl.fleet.heartbeat import Selector
from ipttctl.fleet.kept import KeptFrames, ReadBounds
from ipttctl.frames.bodies import events_of, json_lines
from ipttctl.frames.head import EVENTS, STORIES, FrameError, FrameHead
from ipttproto import EventBatch

_NONE: Final = (
    *(ValueError, KeyError, TypeError, AttributeError),
    *(OverflowError, OSError, RecursionError),
)
"""The errors of an object that is no story: whoever speaks as a host may send anything."""

_T = TypeVar("_T")

TakeEvents = Callable[[FrameHead, list[EventBatch]], bool]
"""Takes events; whether more are wanted."""


class KeptItems:
    """Reads what the hub keeps of some hosts; ``tell`` takes sentences on what is missing."""

    def __init__(
        self, asker: Asker, chosen: Selector, bounds: ReadBounds, tell: Callable[[str], None]
    ) -> None:
        """Read by a connection to the hub."""
        self._asker = asker
        self._chosen = chosen
        self._bounds = bounds
        self._tell = tell

    async def stories(
        self, read: Callable[[FrameHead, dict[str, Any]], _T], take: Callable[[_T], bool]
    ) -> None:
        """Give stories to ``take``, as ``read`` makes them of objects; whether more are wanted.

        ``read`` may raise what an object that is no story makes.

        Raises:
            HubError: they cannot be read.
        """
        none = 0

        def take_all(head: FrameHead, body: bytes) -> bool:
            nonlocal none
            for line in json_lines(head, body):
                try:
                    made = read(head, json.loads(line))
                except _NONE:
                    none += 1
                    continue
                # its errors are none of the object's
                if not take(made):
                    return False
            return True

        bad = await self._read(STORIES, take_all)
        if bad + none:
            self._tell(f"{bad + none} frames or stories that cannot be read passed over")

    async def events(self, take: TakeEvents) -> None:
        """Give events to ``take``.

        Raises:
            HubError: they cannot be read.
        """
        bad = await self._read(EVENTS, lambda head, body: take(head, events_of(head, body)))
        if bad:
            self._tell(f"{bad} frames that cannot be read passed over")

    async def _read(self, kind: str, take: Callable[[FrameHead, bytes], bool]) -> int:
        """Give frames to ``take``; returns how many were bad."""
        names = self._chosen.names
        if self._chosen.terms:
            names = frozenset(one.host for one in await self._asker.find(self._chosen))
        frames = KeptFrames(self._asker, self._bounds)
        bad = 0
        async with aclosing(frames.read([kind], names, self._chosen.names)) as read:
            async for head, body in read:
                try:
                    if not take(head, body):
                        break
                except FrameError:
                    bad += 1
        for sentence in frames.sentences():
            self._tell(sentence)
        return bad
