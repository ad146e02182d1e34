# SPDX-License-Identifier: GPL-2.0
"""The stream that the leaf keeps for its host, with its bounds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from nats.js import JetStreamContext
from nats.js.api import (
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StoreCompression,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import APIError, NotFoundError

from ipttctl.errors import IpttctlError
from ipttctl.fleet import subjects
from ipttctl.fleet.config import AgentConfig
from ipttctl.fleet.config_file import seconds

WINDOW: Final = 120.0
"""Seconds within which the server itself drops a message that comes twice."""

LONGEST: Final = 1 << 20
"""Most bytes of a message."""

_NO_ROOM: Final = frozenset({10002, 10023, 10047})
"""Numbers of the server's errors: limits of the account, of all resources, of storage."""


class NoRoomError(IpttctlError):
    """The server has no room for the stream, or for more of it."""


def wanted(config: AgentConfig) -> StreamConfig:
    """The stream as the configuration wants it."""
    host = config.token
    return StreamConfig(
        name=config.stream_name,
        description=f"events and stories of {config.host}, by ipttctl agent",
        subjects=[subjects.events(host), subjects.stories(host)],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_bytes=config.stream.bytes,
        max_age=seconds(config.stream.age),
        max_msg_size=LONGEST,
        duplicate_window=min(WINDOW, seconds(config.stream.age)),
        compression=StoreCompression.NONE,  # frames are compressed already
        num_replicas=1,
    )


async def ensure(
    js: JetStreamContext,
    config: StreamConfig,
    found: Callable[[StreamInfo | None], Awaitable[None]],
) -> StreamInfo:
    """Make the stream, or give the one that is there these bounds.

    ``found`` is called with what is there before it gets them: lower ones throw something away.

    Raises:
        NoRoomError: the server has no room for it.
    """
    assert config.name is not None
    try:
        try:
            there = await js.stream_info(config.name)
        except NotFoundError:
            await found(None)
            return await js.add_stream(config)
        await found(there)
        if _differs(there.config, config):
            return await js.update_stream(config)
    except APIError as error:
        raise (no_room(error, config) or error) from None
    return there


def no_room(error: BaseException, config: StreamConfig) -> NoRoomError | None:
    """The failure that an answer tells, if it is that the server has no room for a stream."""
    if not isinstance(error, APIError) or error.err_code not in _NO_ROOM:
        return None
    return NoRoomError(
        f"the leaf has no room for the stream {config.name} of {config.max_bytes} bytes",
        "raise max_file of its JetStream, or lower stream.bytes",
    )


def _differs(found: StreamConfig, config: StreamConfig) -> bool:
    names = ("subjects", "discard", "max_bytes", "max_age", "max_msg_size", "duplicate_window")
    return any(getattr(found, name) != getattr(config, name) for name in names)
