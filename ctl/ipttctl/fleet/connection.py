# SPDX-License-Identifier: GPL-2.0
"""The connection to the server on this host: made again for ever, and counted."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import nats
import nats.errors
import nkeys
from nats.aio.client import DEFAULT_INBOX_PREFIX, Client

from ipttctl.errors import os_reason
from ipttctl.fleet.config import LeafOptions
from ipttctl.fleet.server_files import seed_in
from ipttctl.fleet.subjects import LEAST_SERVER

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 30.0
_CONNECT: Final = 5
"""Seconds that a server has to answer."""

_PING: Final = 10
"""Seconds between two signs of life; a server that misses two of them is left."""


class TooOldError(Exception):
    """The server is older than those that this was tried with."""


class PlainServerError(nats.errors.Error):
    """The server does not ask for TLS, which it is to be spoken to by."""

    def __str__(self) -> str:
        return "the server does not speak TLS, and its address begins with tls://"


class ServerClient(Client):
    """A client that says nothing to a server in the clear, if its address begins with tls://.

    The library leaves it to the server whether there is TLS. Anybody in between could do without,
    and pass the signature for a server's nonce on as their own.
    """

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and "tls" in self.options and not info.get("tls_required"):
            raise PlainServerError
        await super()._process_info(info, initial_connection=initial_connection)


def options_of(leaf: LeafOptions) -> dict[str, Any]:
    """How to connect as the configuration says. Files are read each time: they may be renewed."""
    options: dict[str, Any] = {
        "servers": leaf.url,
        "allow_reconnect": False,
        "connect_timeout": _CONNECT,
        "ping_interval": _PING,
        "max_outstanding_pings": 2,
        "max_reconnect_attempts": 1,
        "user_credentials": leaf.credentials,
        "nkeys_seed": leaf.nkey,
        "inbox_prefix": own_inbox(leaf.nkey or leaf.credentials),
    }
    if leaf.url.startswith("tls://"):
        context = ssl.create_default_context(cafile=leaf.ca)
        if leaf.certificate and leaf.key:
            context.load_cert_chain(leaf.certificate, leaf.key)
        options["tls"] = context
    return options


def own_inbox(file: str | None) -> bytes:
    """The subject below which answers to a user come, which nobody else has the right to hear.

    It has the public key of the seed in a file, if there is any.
    """
    seed = seed_in(Path(file).read_bytes()) if file else None
    if seed is None:
        return DEFAULT_INBOX_PREFIX
    key: bytes = nkeys.from_seed(seed).public_key
    return DEFAULT_INBOX_PREFIX + b"." + key


class LeafConnection:
    """Keeps a connection. ``client`` is None while there is none."""

    def __init__(
        self,
        options: Callable[[], dict[str, Any]],
        connected: Callable[[Client], Awaitable[None]],
        *,
        overrun: Callable[[str], None] = lambda _: None,
        tell: Callable[[str], None] = lambda _: None,
        longest_pause: float = _LONGEST_PAUSE,
    ) -> None:
        """Call ``connected`` for each new connection; if it raises, the connection is left.

        ``overrun`` is called with the subject of each message that was dropped because as many
        as may were waiting. ``tell`` is called with a sentence for the log on what else went wrong
        while there is a connection.
        """
        self._overrun = overrun
        self._tell = tell
        self._told = ""
        self._options = options
        self._connected = connected
        self._longest = longest_pause
        self._there = asyncio.Event()
        self.client: Client | None = None
        self.connections = 0
        """Number of connections that were made."""
        self.failures = 0
        """Number of connections that could not be made, or broke."""
        self.problem = "not connected yet"
        """The reason why there is no connection; empty while there is one."""

    async def run(self) -> None:
        """Connect, and connect again whenever the connection is gone, until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            try:
                closed = await self._connect()
                pause = _FIRST_PAUSE
                await closed.wait()
                self.problem = "the server is gone"
            # a server can break off in many ways, and certificates or keys may be unreadable today
            except Exception as error:
                self.problem = sentence(error)
            finally:
                await self._leave()
            self.failures += 1
            # agents of many hosts do not come back all at once
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(self._longest, pause * 2)

    async def wait(self) -> Client:
        """Wait for a connection."""
        while self.client is None:
            await self._there.wait()
        return self.client

    async def _connect(self) -> asyncio.Event:
        """Make a connection; returns what happens when it ends."""
        closed = asyncio.Event()

        async def on_closed() -> None:
            closed.set()

        async def on_error(error: Exception) -> None:
            if isinstance(error, nats.errors.SlowConsumerError):
                self._overrun(error.subject)
                return
            text = sentence(error)
            if self.client is None:
                self.problem = text
            elif text != self._told:
                # something was refused, and the rest goes on
                self._tell(f"leaf: {text}")
                self._told = text

        client = ServerClient()
        try:
            await client.connect(**self._options(), closed_cb=on_closed, error_cb=on_error)
            require_version(client)
            await self._connected(client)
        except BaseException:
            await _close(client)
            raise
        if closed.is_set():
            raise nats.errors.ConnectionClosedError
        self.client = client
        self.connections += 1
        self.problem = ""
        self._there.set()
        return closed

    async def _leave(self) -> None:
        client, self.client = self.client, None
        self._there.clear()
        if client is not None:
            await _close(client)


def require_version(client: Client) -> None:
    """Check that a server is new enough.

    Raises:
        TooOldError: it is not.
    """
    found = client.connected_server_version
    version = found.major, found.minor, found.patch
    if version < LEAST_SERVER:
        raise TooOldError(
            f"the server is of version {'.'.join(map(str, version))}, and has to be of "
            f"{'.'.join(map(str, LEAST_SERVER))} or later"
        )


async def _close(client: Client) -> None:
    """Leave a server, whatever state the connection is in."""
    with suppress(Exception, asyncio.TimeoutError):
        async with asyncio.timeout(2):
            await client.close()


def sentence(error: BaseException) -> str:
    """The reason of a failure of a connection, which has many kinds, on one line."""
    text = os_reason(error) if isinstance(error, OSError) else str(error)
    return " ".join(text.split())[:300] or type(error).__name__
