# SPDX-License-Identifier: GPL-2.0
"""What the bytes mean that programs add to events: the type of their map's values tells."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ipttctl.errors import IpttctlError, LinkGoneError
from ipttctl.objects import Link

if TYPE_CHECKING:
    from ipttctl.btf import Type
    from ipttctl.records import EventRecord


class PayloadTypes:
    """The types of payloads, looked up in the kernel at the first event of each program set."""

    def __init__(self, link: Callable[[int], Link]) -> None:
        """``link`` looks up a link by its id, as ``Controller.link`` does."""
        self._link = link
        self._types: dict[tuple[int, int], Type | None] = {}

    def learn(self, link: Link) -> None:
        """Look at a link before its events come: afterwards it may have gone."""
        key = link.id, link.generation
        if key not in self._types:
            self._types[key] = _type(link.payload_map) if link.payload_map else None

    def value(self, record: EventRecord) -> Any:
        """What an event's payload means; None where it has none, or nothing describes it."""
        if not record.payload:
            return None
        key = record.link, record.generation
        if key not in self._types:
            try:
                self.learn(self._link(record.link))
            except LinkGoneError:
                self._types[key] = None
            # of an earlier generation than the link's: its map is not known any more
            self._types.setdefault(key, None)
        kind = self._types[key]
        if kind is None or kind.size != len(record.payload):
            return None
        from ipttctl.values import decode  # noqa: PLC0415  # loads libbpf

        return decode(kind, record.payload)


def _type(map_id: int) -> Type | None:
    """The type of a map's values, if somebody described it."""
    from ipttctl import bpf  # noqa: PLC0415  # loads libbpf
    from ipttctl.btf import Btf  # noqa: PLC0415  # loads libbpf

    try:
        fd = bpf.map_by_id(map_id)
        try:
            info = bpf.map_info(fd)
        finally:
            os.close(fd)
        if not info.btf or not info.value_type:
            return None
        with Btf.by_id(info.btf) as types:
            return types.type(info.value_type)
    except IpttctlError:
        # the map has gone, or its types cannot be read: the bytes are shown as they are
        return None
