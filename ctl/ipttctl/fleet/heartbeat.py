# SPDX-License-Identifier: GPL-2.0
"""Heartbeats, by which hosts are found, and the labels that choose among them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
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
    traces: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Traces that run for others."""
    watches: Annotated[list[_Text], msgspec.Meta(max_length=256)] = []
    """The names of its watches that run."""
    time_ms: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] | None = None
    """When it was sent, by the host's clock: ms since 1970."""


_DECODER: Final = msgspec.json.Decoder(Heartbeat)
_ENCODER: Final = msgspec.json.Encoder()
_ALL: Final = "all"
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,63}")
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
    """A choice of hosts: by labels, of which all terms have to hold, and by names, if any."""

    terms: tuple[tuple[str, bool, str], ...] = ()
    names: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Read ``role=node,zone!=a``, ``web1,web2``, both at once, or ``all``.

        An empty text chooses every host, as ``all`` does.

        Raises:
            UsageError: it is none.
        """
        terms = []
        names = set()
        parts = [one for one in map(str.strip, text.split(",")) if one]
        for part in () if parts == [_ALL] else parts:
            if found := _TERM.fullmatch(part):
                terms.append((found[1], found[2] == "=", found[3]))
            elif _NAME.fullmatch(part) and part != _ALL:
                names.add(part)
            else:
                raise UsageError(
                    f"'{part}' chooses no hosts", "write a name, LABEL=VALUE, LABEL!=VALUE or all"
                )
        return cls(tuple(terms), frozenset(names))

    def chooses(self, host: str, labels: Mapping[str, str]) -> bool:
        """Whether a host is chosen. One without a label has no value that could be equal."""
        if self.names and host not in self.names:
            return False
        values = {**labels, "host": host}
        return all((values.get(name) == value) is same for name, same, value in self.terms)


async def find_hosts(
    client: Client, selector: Selector, wait: float = 1.0, *, ask: bool = True
) -> list[Heartbeat]:
    """The hosts whose agents are heard of within ``wait`` seconds, by name.

    If the selector has names, it is enough to hear of all of these. With ``ask`` hosts are asked
    to speak at once, which takes the right to publish there.
    """
    found: dict[str, Heartbeat] = {}
    enough = asyncio.Event()

    async def take(message: Msg) -> None:
        one = decode(message.subject, message.data)
        if one and selector.chooses(one.host, one.labels) and len(found) < _MOST_HOSTS:
            found[one.host] = one
            if selector.names and selector.names <= found.keys():
                enough.set()

    subscription = await client.subscribe(subjects.heartbeat("*"), cb=take)
    try:
        if ask:
            # by the server before any answer can be
            await client.flush()
            await client.publish(subjects.WHO, b"")
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await enough.wait()
    finally:
        await subscription.unsubscribe()
    return [found[host] for host in sorted(found)]
