# SPDX-License-Identifier: GPL-2.0
"""Objects in the hub's store, under their digests: hosts get them there."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final

import nats.js.errors
from nats.js.api import ObjectInfo
from nats.js.object_store import ObjectStore

from ipttctl.fleet.asker import FAILURES, Asker, HubError
from ipttctl.fleet.bundle import Bundle
from ipttctl.fleet.connection import sentence

_PATIENCE: Final = 10.0
_IN_USE: Final = timedelta(days=1)
"""For so long after it was put somebody may be about to get an object."""


async def upload(asker: Asker, bundle: Bundle) -> None:
    """Put objects into the hub's store, unless they have been put there lately.

    Then others are removed, the oldest first, until the store has no more than its bound. Hosts
    have what they run, and what they would go back to, in directories of their own.

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
        for digest, data in bundle.objects.items():
            try:
                info = await store.get_info(digest)
                if info.size == len(data) and not _is_old(info):
                    continue
            except nats.js.errors.NotFoundError:
                pass
            await store.put(digest, data)
        excess = (await store.status()).size - asker.hub.bucket_bytes
        if excess > 0:
            await _remove_old(store, excess, bundle.objects)
    except FAILURES as error:
        raise HubError(f"cannot put objects into {bucket}: {sentence(error)}") from None


async def _remove_old(store: ObjectStore, excess: int, needed: Collection[str]) -> None:
    """Remove so many bytes of what is old and not needed, if there are that many."""
    found = [one for one in await store.list() if not one.deleted and one.name not in needed]
    for info in sorted(filter(_is_old, found), key=_put_at):
        await store.delete(info.name)
        excess -= info.size or 0
        if excess <= 0:
            return


def _is_old(info: ObjectInfo) -> bool:
    return datetime.now(UTC) - _put_at(info) > _IN_USE


def _put_at(info: ObjectInfo) -> datetime:
    """When an object was put; long ago if whoever did it has not said when."""
    try:
        found = datetime.fromisoformat(info.mtime or "")
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
