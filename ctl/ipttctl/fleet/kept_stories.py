# SPDX-License-Identifier: GPL-2.0
"""The stories that the hub keeps, one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final

from ipttctl.fleet import subjects
from ipttctl.fleet.asker import Asker
from ipttctl.fleet.heartbeat import Selector
from ipttctl.fleet.kept import KeptFrames, ReadBounds
from ipttctl.frames.bodies import json_lines
from ipttctl.frames.head import STORIES, FrameError, FrameHead

_NONE: Final = (
    *(ValueError, KeyError, TypeError, AttributeError),
    *(OverflowError, OSError, RecursionError),
)
"""The errors of an object that is no story: whoever speaks as a host may send anything."""

Take = Callable[[FrameHead, dict[str, Any]], bool]
"""Takes a story; whether another one is wanted. It may raise what an object that is none makes."""


async def read_stories(
    asker: Asker, chosen: Selector, bounds: ReadBounds, take: Take, tell: Callable[[str], None]
) -> None:
    """Give stories to ``take``, in the hub's order; ``tell`` takes sentences on what is missing.

    Raises:
        HubError: they cannot be read.
    """
    names = chosen.names
    if chosen.terms:
        names = frozenset(one.host for one in await asker.find(chosen))
    frames = KeptFrames(asker, bounds)
    none = 0
    async with aclosing(frames.read([STORIES], frozenset(map(subjects.host_token, names)))) as read:
        async for head, body in read:
            try:
                lines = json_lines(head, body)
            except FrameError:
                none += 1
                continue
            wanted = True
            for line in lines:
                try:
                    wanted = take(head, json.loads(line))
                except _NONE:
                    none += 1
                if not wanted:
                    break
            if not wanted:
                break
    for sentence in frames.sentences():
        tell(sentence)
    if none:
        tell(f"{none} frames or stories that cannot be read passed over")
