# SPDX-License-Identifier: GPL-2.0
"""Heartbeats, by which hosts are found, and the labels that choose among them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from ipttctl.errors import UsageError
from ipttctl.fleet import subjects

FORMAT: Final = 1
"""Version of the object. Keys may be added without another one."""

LONGEST: Final = 16_384
"""Most bytes of a heartbeat."""

_MOST_HOSTS: Final = 10_000
_Text = Annotated[str, msgspec.Meta(max_length=255)]


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """A sign of life of an agent."""

    format: int = FORMAT
    host: _Text
    labels: Annotated[dict[_Text, _Text], msgspec.Meta(max_length=32)]
    kernel: _Text
    boot: _Text
    run: _Text
    version: _Text
    module: _Text = ""
    """Version of the module, empty while it is not loaded."""
    features: Annotated[list[_Text], msgspec.Meta(max_length=256)] = []
    allow: Annotated[list[_Text], msgspec.Meta(max_length=64)] = []
    interval_ms: Annotated[int, msgspec.Meta(ge=1, le=3_600_000)]


_DECODER: Final = msgspec.json.Decoder(Heartbeat)
_ENCODER: Final = msgspec.json.Encoder()
_TERM: Final = re.compile(r"([A-Za-z0-9_./-]+)(!?=)([A-Za-z0-9_./-]*)")


def encode(heartbeat: Heartbeat) -> bytes:
    """The bytes of a heartbeat."""
    return _ENCODER.encode(heartbeat)


def decode(subject: str, data: bytes) -> Heartbeat | None:
    """The heartbeat of a message; None if it is none, or not of the host that may send there."""
    if len(data) > LONGEST:
        return None
    try:
        found = _DECODER.decode(data)
        own = subject == subjects.heartbeat(subjects.host_token(found.host))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return found if own and found.format == FORMAT else None


@dataclass(frozen=True)
class Selector:
    """A choice of hosts by labels, and by ``host``: all terms have to hold."""

    terms: tuple[tuple[str, bool, str], ...]

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Read ``role=node,zone!=a``; an empty text chooses every host.

        Raises:
            UsageError: it is none.
        """
        terms = []
        for part in filter(None, (one.strip() for one in text.split(","))):
            found = _TERM.fullmatch(part)
            if not found:
                raise UsageError(f"'{part}' chooses no hosts", "write LABEL=VALUE or LABEL!=VALUE")
            terms.append((found[1], found[2] == "=", found[3]))
        return cls(tuple(terms))

    def chooses(self, host: str, labels: Mapping[str, str]) -> bool:
        """Whether a host is chosen. One without a label has no value that could be equal."""
        values = {**labels, "host": host}
        return all((values.get(name) == value) is same for name, same, value in self.terms)


async def find_hosts(
    client: Client, selector: Selector, wait: float = 1.0, *, ask: bool = True
) -> list[Heartbeat]:
    """The hosts whose agents are heard of within ``wait`` seconds, by name.

    With ``ask`` they are asked to speak at once, which takes the right to publish there.
    """
    found: dict[str, Heartbeat] = {}

    async def take(message: Msg) -> None:
        one = decode(message.subject, message.data)
        if one and selector.chooses(one.host, one.labels) and len(found) < _MOST_HOSTS:
            found[one.host] = one

    subscription = await client.subscribe(subjects.heartbeat("*"), cb=take)
    try:
        if ask:
            # by the server before any answer can be
            await client.flush()
            await client.publish(subjects.WHO, b"")
        await asyncio.sleep(wait)
    finally:
        await subscription.unsubscribe()
    return [found[host] for host in sorted(found)]
