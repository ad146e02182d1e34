# SPDX-License-Identifier: GPL-2.0
"""The head of a frame: whose items it holds, which of them, and what was lost before them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, NoReturn
from urllib.parse import quote

from ipttctl.errors import IpttctlError

EVENTS: Final = "events"
STORIES: Final = "stories"
RULESETS: Final = "rulesets"
NAMES: Final = "names"
DROPS: Final = "drops"

KINDS: Final = frozenset({EVENTS, STORIES, RULESETS, NAMES, DROPS})
"""Kinds of frames, by what their bodies hold."""

MOST_HEAD: Final = 1 << 14
"""Most bytes of a head."""

_MOST_TEXT: Final = 255
_MOST_CAUSES: Final = 32
_MOST_NUMBER: Final = 2**63 - 1
_MOST_ITEMS: Final = 2**31 - 1
_CAUSE: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")


class FrameError(IpttctlError):
    """Some bytes are no frame, or one that was damaged."""


@dataclass(frozen=True, kw_only=True)
class FrameHead:
    """The head of a frame.

    ``kind`` is one of ``KINDS``. ``host`` is a name, ``boot`` the id of the kernel's boot, ``run``
    a random id of the process that writes. ``sequence`` is the number of the first item among those
    of this run and kind, which begin with 0: items that were thrown away keep their numbers.
    ``count`` is the number of items.

    The frame was made at ``time`` (CLOCK_REALTIME, ns), which was ``monotonic`` on CLOCK_MONOTONIC.
    ``lost`` has the number of events, by cause, that were lost after the last item of the frame
    before this one and before the first of this. ``format`` are numbers that say how the body is to
    be read: for events the protocol's version and the size of a record.
    """

    kind: str
    host: str
    boot: str
    run: str
    sequence: int
    count: int
    time: int
    monotonic: int
    lost: Mapping[str, int] = field(default_factory=dict)
    format: Mapping[str, int] = field(default_factory=dict)

    @property
    def message_id(self) -> str:
        """The id by which readers know a frame that comes twice.

        A frame without items has the number of the next one, which has another id.
        """
        where = "/".join(quote(part, safe="") for part in (self.host, self.boot, self.run))
        return f"{where}/{self.kind}/{self.sequence}{'' if self.count else '/end'}"

    def to_bytes(self) -> bytes:
        """The head as JSON.

        Raises:
            FrameError: a value is out of bounds.
        """
        _check(self)
        text = json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)
        data = text.encode()
        if len(data) > MOST_HEAD:
            raise FrameError(f"the head of a frame has {len(data)} bytes, {MOST_HEAD} at most")
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> FrameHead:
        """Read a head; members that a later version has are left out.

        Raises:
            FrameError: it is not a head.
        """
        try:
            value = _DECODER.decode(data.decode())
        except (ValueError, RecursionError) as error:
            raise FrameError("the head of a frame is not JSON") from error
        if not isinstance(value, dict):
            raise FrameError("the head of a frame is no object")
        try:
            head = cls(**{name: one for name, one in value.items() if name in _MEMBERS})
        except TypeError as error:
            raise FrameError("the head of a frame lacks a member") from error
        _check(head)
        return head


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)


# a file has thousands of heads: making these for each took longer than reading it
_DECODER: Final = json.JSONDecoder(parse_constant=_refuse, parse_float=_refuse)
_MEMBERS: Final = frozenset(one.name for one in fields(FrameHead))


def _check(head: FrameHead) -> None:
    """Check the types and bounds of a head's members."""
    # a list is in no set, and asking is an error
    if not isinstance(head.kind, str) or head.kind not in KINDS:
        raise FrameError("the head of a frame has a kind that is not known")
    for name in ("host", "boot", "run"):
        text = getattr(head, name)
        if not isinstance(text, str) or len(text) > _MOST_TEXT or not _plain(text):
            raise FrameError(f"the head of a frame has a bad {name}")
    for name in ("sequence", "time", "monotonic"):
        if not _number(getattr(head, name), _MOST_NUMBER):
            raise FrameError(f"the head of a frame has a bad {name}")
    if not _number(head.count, _MOST_ITEMS) or head.sequence + head.count > _MOST_NUMBER:
        raise FrameError("the head of a frame has a bad count")
    for name in ("lost", "format"):
        found = getattr(head, name)
        if not isinstance(found, Mapping) or len(found) > _MOST_CAUSES or not _numbers(found):
            raise FrameError(f"the head of a frame has a bad member '{name}'")


def _plain(text: str) -> bool:
    """Whether a text can be printed and be encoded."""
    return text == "" or text.isprintable()


def _number(value: Any, most: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _numbers(found: Mapping[Any, Any]) -> bool:
    return all(
        isinstance(name, str) and _CAUSE.fullmatch(name) and _number(value, _MOST_NUMBER)
        for name, value in found.items()
    )
