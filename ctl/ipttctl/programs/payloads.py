# SPDX-License-Identifier: GPL-2.0
"""The bytes that programs add to events, decoded by the type of their map's values."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from ipttctl.bpf import syscalls
from ipttctl.bpf.btf import Btf, Type
from ipttctl.bpf.values import decode
from ipttctl.errors import IpttctlError, LinkGoneError
from ipttctl.events.records import EventRecord
from ipttctl.link.model import Link
from ipttproto import Hook, Kind
from ipttproto.family import limit

#: a few for each possible link: events of an earlier program set may still be on their way
_REMEMBERED: Final = 4 * len(Hook) * limit("MAX_LINKS")


class PayloadTypes:
    """The types of payloads, looked up in the kernel at the first event of each program set.

        types = PayloadTypes(controller.link)
        for record in events.records():
            print(types.value(record))

    Only the most recently used are remembered, so that swaps do not fill the memory. One thread
    uses it.
    """

    def __init__(self, link: Callable[[int], Link] | None = None) -> None:
        """Use ``link`` to look up a link by its id, as ``Controller.link`` does.

        Without it, only the types of links that were given to ``learn`` are known.
        """
        self._link = link
        self._types: dict[tuple[int, int, int], Type | None] = {}
        """(link, generation, shadow) -> type; the most recently used are last."""

    def __len__(self) -> int:
        """The number of program sets that are remembered."""
        return len(self._types)

    def learn(self, link: Link) -> None:
        """Look up a link's types before its events come: later the link may be gone."""
        maps = {0: link.payload_map}
        if link.shadow is not None:
            maps[link.shadow.number] = link.shadow.payload_map
        for shadow, payload in maps.items():
            key = link.id, link.generation, shadow
            if key not in self._types:
                self._remember(key, _type(payload) if payload else None)

    def value(self, record: EventRecord) -> Any:
        """The decoded payload of an event; None if it has none, or its type is unknown.

        It is what the type is in JSON: an object for a struct, a list for an array, a number...
        """
        if not record.payload:
            return None
        shadow = record.rule_handle if record.kind == Kind.DISAGREE else 0
        key = record.link, record.generation, shadow
        if key not in self._types and self._link is not None:
            with suppress(LinkGoneError):
                self.learn(self._link(record.link))
        # None for a generation, or a shadow, older than the link's: its map is unknown by now
        kind = self._remember(key, self._types.pop(key, None))
        if kind is None or kind.size != len(record.payload):
            return None
        return decode(kind, record.payload)

    def _remember(self, key: tuple[int, int, int], kind: Type | None) -> Type | None:
        self._types[key] = kind
        if len(self._types) > _REMEMBERED:
            del self._types[next(iter(self._types))]
        return kind


def _type(map_id: int) -> Type | None:
    """The type of a map's values, or None if it has none."""
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
