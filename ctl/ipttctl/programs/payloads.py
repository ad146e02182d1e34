# SPDX-License-Identifier: GPL-2.0
"""What the bytes mean that programs add to events: the type of their map's values tells."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ipttctl.bpf import syscalls
from ipttctl.bpf.btf import Btf
from ipttctl.bpf.values import decode
from ipttctl.errors import IpttctlError, LinkGoneError
from ipttctl.link.model import Link
from ipttproto import Hook
from ipttproto.family import limit

if TYPE_CHECKING:
    from ipttctl.bpf.btf import Type
    from ipttctl.events.records import EventRecord


#: a few for each link that there can be: events of an earlier program set are on their way still
_REMEMBERED: Final = 4 * len(Hook) * limit("MAX_LINKS")


class PayloadTypes:
    """The types of payloads, looked up in the kernel at the first event of each program set.

    Those are remembered that were last asked for, so that swaps do not fill the memory.
    """

    def __init__(self, link: Callable[[int], Link]) -> None:
        """``link`` looks up a link by its id, as ``Controller.link`` does."""
        self._link = link
        self._types: dict[tuple[int, int], Type | None] = {}
        """By link and generation; the last used are last."""

    def __len__(self) -> int:
        """How many program sets are remembered."""
        return len(self._types)

    def learn(self, link: Link) -> None:
        """Look at a link before its events come: afterwards it may have gone."""
        key = link.id, link.generation
        if key not in self._types:
            self._remember(key, _type(link.payload_map) if link.payload_map else None)

    def value(self, record: EventRecord) -> Any:
        """What an event's payload means; None where it has none, or nothing describes it."""
        if not record.payload:
            return None
        key = record.link, record.generation
        if key not in self._types:
            with suppress(LinkGoneError):
                self.learn(self._link(record.link))
        # None of an earlier generation than the link's: its map is not known any more
        kind = self._remember(key, self._types.pop(key, None))
        if kind is None or kind.size != len(record.payload):
            return None

        return decode(kind, record.payload)

    def _remember(self, key: tuple[int, int], kind: Type | None) -> Type | None:
        self._types[key] = kind
        if len(self._types) > _REMEMBERED:
            del self._types[next(iter(self._types))]
        return kind


def _type(map_id: int) -> Type | None:
    """The type of a map's values, if somebody described it."""
    try:
        fd = syscalls.map_by_id(map_id)
        try:
            info = syscalls.map_info(fd)
        finally:
            os.close(fd)
        if not info.btf or not info.value_type:
            return None
        with Btf.by_id(info.btf) as types:
            return types.type(info.value_type)
    except IpttctlError:
        # the map has gone, or its types cannot be read: the bytes are shown as they are
        return None
