# SPDX-License-Identifier: GPL-2.0
"""Objects in the hub's store, under their digests: hosts get them there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

import nats.js.errors
from nats.js.api import ObjectInfo
from nats.js.object_store import ObjectStore

from ipttctl.fleet.asker import FAILURES, Asker, HubError
from ipttctl.fleet.bundle import Bundle
from ipttctl.fleet.connection import sentence
from ipttctl.fleet.spellings import DIGEST

_PATIENCE: Final = 10.0
_FRESH: Final = timedelta(days=1)
"""For so long an object is not put again."""
_IN_USE: Final = timedelta(days=8)
"""For so long after it was put somebody may be about to get an object: a roll-out takes days."""


async def upload(asker: Asker, bundle: Bundle) -> None:
    """Put objects into the hub's store, unless they have been put there lately.

    Before that others are removed, the oldest first, if the store would have more than its bound.
    Hosts have what they run, and what they would go back to, in directories of their own.

    Raises:
        HubError: the hub does not take them.
    """
    bucket = asker.hub.bucket
    js = asker.client.jetstream(timeout=_PATIENCE)
    try:
        try:
            store = await js.object_store(bucket)
        except nats.js.errors.NotFoundError:
            store = await js.create_object_store(bucket)
        await _make_room(store, asker.hub.bucket_bytes, bundle.objects)
        for digest, data in bundle.objects.items():
            try:
                info = await store.get_info(digest)
                if info.size == len(data) and _age(info) < _FRESH:
                    continue
            except nats.js.errors.NotFoundError:
                pass
            await store.put(digest, data)
    except FAILURES as error:
        raise HubError(f"cannot put objects into {bucket}: {sentence(error)}") from None


async def _make_room(store: ObjectStore, most: int, needed: Mapping[str, bytes]) -> None:
    """Remove what is old and not needed, as far as that has to be and can be done.

    Somebody else may be about to do the same, and others may keep objects here.
    """
    with suppress(*FAILURES):
        async with asyncio.timeout(_PATIENCE):
            excess = (await store.status()).size + sum(map(len, needed.values())) - most
            if excess <= 0:
                return
            found = [one for one in await store.list() if not one.deleted and _is_ours(one.name)]
            for info in sorted(found, key=_age, reverse=True):
                if excess <= 0 or _age(info) < _IN_USE:
                    return
                if info.name not in needed:
                    excess -= info.size or 0
                    await store.delete(info.name)


def _is_ours(name: str) -> bool:
    return re.fullmatch(DIGEST, name) is not None


def _age(info: ObjectInfo) -> timedelta:
    """The time since an object was put; none if whoever did it has not said when."""
    try:
        put = datetime.fromisoformat(info.mtime or "")
    except (ValueError, TypeError):
        return timedelta(0)
    return datetime.now(UTC) - (put if put.tzinfo else put.replace(tzinfo=UTC))
