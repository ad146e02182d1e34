# SPDX-License-Identifier: GPL-2.0
"""The time from which on a stream keeps what came into it, of which nats-py tells nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec
from nats.aio.client import Client

_INFO: Final = "$JS.API.STREAM.INFO"


class _State(msgspec.Struct):
    first_ts: datetime
    last_ts: datetime
    messages: int


class _Answer(msgspec.Struct):
    state: _State


_DECODER: Final = msgspec.json.Decoder(_Answer)


async def stream_begin(client: Client, stream: str, patience: float) -> float:
    """The time since which a stream has all that came, if it has thrown something away.

    These are seconds on the server's CLOCK_REALTIME. An empty stream has nothing up to its last
    message.

    Raises:
        ValueError: the answer is none.
        nats.errors.Error, TimeoutError: there is no answer.
    """
    answer = await client.request(f"{_INFO}.{stream}", timeout=patience)
    try:
        state = _DECODER.decode(answer.data).state
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"it tells nothing of its stream {stream}") from error
    return (state.first_ts if state.messages else state.last_ts).timestamp()
