# SPDX-License-Identifier: GPL-2.0
"""Compiled objects by digest, from JetStream's object store into a directory of ours."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from ipttctl.bpf.private_dirs import make_private
from ipttctl.fleet.config import ObjectsOptions
from ipttctl.fleet.connection import sentence
from ipttctl.fleet.grants import RefusedError
from ipttctl.fleet.requests import file_name
from ipttctl.fleet.whole_file import write_whole

_PATIENCE: Final = 10.0
MOST: Final = 64
"""Most objects of a request."""

_KEPT: Final = 16
"""Objects of the largest size that stay beside those that are needed."""

_FILE: Final = re.compile(r"[0-9a-f]{64}\.(o|tmp)")


class _TooLongError(Exception):
    """More bytes come than were announced."""


class _Bounded(io.BytesIO):
    """Bytes, up to a bound."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, data: bytes) -> int:  # type: ignore[override]  # bytes is what comes
        if self.tell() + len(data) > self._most:
            raise _TooLongError
        return super().write(data)


async def fetch(client: Client, config: ObjectsOptions, digests: Collection[str]) -> Path:
    """Have objects in the directory, which is returned; each has the digest that names it.

    Raises:
        RefusedError: one is missing, too long, or another one than its name says.
    """
    directory = Path(config.directory)
    if len(digests) > MOST:
        raise RefusedError(f"the request names {len(digests)} objects, {MOST} at most")
    await asyncio.to_thread(make_private, directory)
    for digest in digests:
        place = directory / file_name(digest)
        if not await asyncio.to_thread(_use, place, digest):
            data = await _get(client, config, digest)
            await asyncio.to_thread(write_whole, place, place.with_suffix(".tmp"), data)
    return directory


async def _get(client: Client, config: ObjectsOptions, digest: str) -> bytes:
    domain = {"domain": config.domain} if config.domain else {}
    js = client.jetstream(timeout=_PATIENCE, **domain)
    into = _Bounded(config.largest)
    try:
        async with asyncio.timeout(_PATIENCE):
            store = await js.object_store(config.bucket)
            info = await store.get_info(digest)
            if info.is_link() or info.size is None or info.size > config.largest:
                raise _TooLongError
            await store.get(digest, writeinto=into)
    except _TooLongError:
        raise RefusedError(f"object {digest} is longer than {config.largest} bytes") from None
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
        raise RefusedError(
            f"object {digest} cannot be had from {config.bucket}: {sentence(error)}"
        ) from None
    data = into.getvalue()
    if _digest(data) != digest:
        raise RefusedError(f"object {digest}: what the store has under this name is another one")
    return data


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def prune(config: ObjectsOptions, needed: Collection[str]) -> None:
    """Remove objects that are not needed, but those that were used last, up to a bound.

    They can be had again; so can those that could not be removed now.
    """
    directory = Path(config.directory)
    names = set(map(file_name, needed))
    found = []
    for place in directory.iterdir():
        if _FILE.fullmatch(place.name) and place.name not in names:
            with suppress(OSError):
                status = place.lstat()
                found.append((status.st_mtime_ns, status.st_size, place))
    left = _KEPT * config.largest
    for _, size, place in sorted(found, reverse=True):
        left -= size
        # what is half written was left by a process that was killed
        if left < 0 or place.suffix == ".tmp":
            with suppress(OSError):
                place.unlink()


def _use(place: Path, digest: str) -> bool:
    """Whether a file has an object; if so, it is used now."""
    try:
        if _digest(place.read_bytes()) != digest:
            return False
        os.utime(place)
    except OSError:
        return False
    return True
