# SPDX-License-Identifier: GPL-2.0
"""The side of whoever asks hosts: a connection to the hub, who is there, and their answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from ipttctl.errors import IpttctlError, UsageError
from ipttctl.fleet import subjects
from ipttctl.fleet.config import HubConfig
from ipttctl.fleet.config_file import read_hub_file
from ipttctl.fleet.connection import (
    ServerClient,
    TooOldError,
    options_of,
    require_version,
    sentence,
)
from ipttctl.fleet.heartbeat import Heartbeat, Selector, find_hosts

SYSTEM_FILE: Final = Path("/etc/ipttctl/hub.yaml")
"""The settings of all users of a host who have none of their own."""

WAIT: Final = 2.5
"""Seconds to wait for heartbeats. Agents send one when they are asked, but one a second at most."""

PATIENCE: Final = 10.0
"""Seconds to wait for an answer to a command that takes no time."""

_LONGEST_ANSWER: Final = 256 * 1024
_LONGEST_ERROR: Final = 500
_CONNECT: Final = 5.0
_PAUSE: Final = 0.5
_TRIES: Final = 240
_LISTENING: Final = 1.0
_LISTENING_PAUSE: Final = 0.1

#: verbs that are asked for on the subject of another one
_SUBJECTS: Final = {"renew": "trace", "end": "trace"}

#: how a connection, or what is asked for by it, can fail
FAILURES: Final = (
    nats.errors.Error,
    nats.js.errors.Error,
    TooOldError,
    OSError,
    TimeoutError,
    ValueError,
)


class HubError(IpttctlError):
    """The hub cannot be reached, or does not let one do something."""


class SilentHostError(IpttctlError):
    """A host does not answer: whether it did what it was asked for is not known."""


class AnswerError(IpttctlError):
    """A host answers that it does not do what it was asked for, or that it failed."""


class BusyError(AnswerError):
    """A host answers that as many commands wait there as may: it has not looked at this one."""


def user_file() -> Path:
    """The settings of this user."""
    return Path("~/.config/ipttctl/hub.yaml").expanduser()


def read_hub(file: str | None = None) -> HubConfig:
    """Read the settings: of a file, or else the user's own, or those of the host.

    Raises:
        UsageError: there are none, or something in them or their files is not valid.
    """
    if file is None:
        places = [user_file(), SYSTEM_FILE]
        found = next((str(place) for place in places if place.exists()), None)
        if found is None:
            raise UsageError(
                f"there is neither {places[0]} nor {places[1]}, which say how the hub is reached",
                "see docs/fleet.md, or give --hub FILE",
            )
        file = found
    return read_hub_file(file)


class Asker:
    """A connection to the hub, by which hosts are found and asked."""

    def __init__(self, client: Client, hub: HubConfig, wait: float | None = None) -> None:
        """Take a connection; ``connected`` makes one.

        ``wait`` is the time for which hosts are listened to, ``WAIT`` if it is not said.
        """
        self.client = client
        self.hub = hub
        self.wait = WAIT if wait is None else wait

    async def find(
        self, selector: Selector, wait: float | None = None, *, some: bool = True
    ) -> list[Heartbeat]:
        """The hosts that are there, of those that a selector chooses, by name.

        They are listened to for ``wait`` seconds, or for as long as this asker waits; not for
        longer than until each that is named was heard.

        Raises:
            HubError: the hub is gone.
            SilentHostError: with ``some`` there has to be one at least, and each that is named.
        """
        wait = self.wait if wait is None else wait
        try:
            found = await find_hosts(self.client, selector, wait)
        except FAILURES as error:
            raise HubError(f"cannot ask the hub for hosts: {sentence(error)}") from None
        if some:
            _require(selector, found, wait)
        return found

    async def _heard(self, subject: str, data: bytes, timeout: float) -> Msg:
        """The answer to a request.

        Servers tell each other who listens: one that has just begun to may not be known here yet.
        Where nobody was there nobody has heard the request, so it can be made again.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + min(timeout, _LISTENING)
        while True:
            try:
                return await self.client.request(subject, data, timeout)
            except nats.errors.NoRespondersError:
                if loop.time() >= end:
                    raise
            await asyncio.sleep(_LISTENING_PAUSE)

    async def ask(
        self, host: str, verb: str, request: Mapping[str, Any], timeout: float = PATIENCE
    ) -> dict[str, Any]:
        """Have a host do what a verb means; returns its answer without ``ok``.

        ``request`` has the members of the request beside its verb.

        Raises:
            SilentHostError: there is no answer within ``timeout`` seconds.
            AnswerError: the host refuses, or failed.
            HubError: the hub is gone.
            UsageError: there is text in the request that is not UTF-8.
        """
        subject = subjects.control(subjects.host_token(host), _SUBJECTS.get(verb, verb))
        try:
            data = msgspec.json.encode({"verb": verb, **request})
        except UnicodeEncodeError:
            raise UsageError(f"{verb}: there is a byte that is not UTF-8 in the request") from None
        try:
            message = await self._heard(subject, data, timeout)
        except nats.errors.NoRespondersError:
            raise SilentHostError(f"{host}: there is no agent that hears {verb}") from None
        except (nats.errors.TimeoutError, TimeoutError):
            raise SilentHostError(f"{host}: no answer to {verb} within {timeout:g} s") from None
        except FAILURES as error:
            raise HubError(f"cannot ask {host}: {sentence(error)}") from None
        return _read(host, verb, message.data)


def _require(selector: Selector, found: list[Heartbeat], wait: float) -> None:
    """Check that somebody is there, and everybody who is named."""
    silent = sorted(selector.names - {one.host for one in found})
    if silent:
        raise SilentHostError(
            f"{', '.join(silent)}: nothing is heard of it within {wait:g} s",
            "where hosts or the hub are busy, give --wait SECONDS",
        )
    if not found:
        raise SilentHostError(
            f"no host that is meant is heard of within {wait:g} s",
            "see `ipttctl fleet hosts`, or give --wait SECONDS",
        )


def _read(host: str, verb: str, data: bytes) -> dict[str, Any]:
    """The answer of a host, which may have been taken over."""
    try:
        if len(data) > _LONGEST_ANSWER:
            raise ValueError
        answer = msgspec.json.decode(data)
        if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
            raise TypeError
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError):
        raise AnswerError(f"{host}: the answer to {verb} is none") from None
    if not answer.pop("ok"):
        reason = " ".join(str(answer.get("error")).split())[:_LONGEST_ERROR]
        raise (BusyError if answer.get("busy") is True else AnswerError)(f"{host}: {reason}")
    return answer


@asynccontextmanager
async def connected(hub: HubConfig, wait: float | None = None) -> AsyncIterator[Asker]:
    """A connection to the hub. If it breaks, it is made again; what is asked meanwhile fails.

    ``wait`` is the time for which hosts are listened to.

    Raises:
        HubError: there is no connection.
    """
    refused: list[Exception] = []

    async def on_error(error: Exception) -> None:
        refused.append(error)

    client = ServerClient()
    try:
        # a server that accepts and is silent has no limit of nats-py's own in each phase
        async with asyncio.timeout(2 * _CONNECT):
            await client.connect(**options_of(hub), error_cb=on_error)
        require_version(client)
    # a server can break off in many ways, and a seed or a certificate be none
    except Exception as error:
        await _close(client)
        raise HubError(f"no connection to {hub.url}: {sentence((refused or [error])[0])}") from None
    # not at first: an address that is wrong is told at once
    client.options["allow_reconnect"] = True
    client.options["max_reconnect_attempts"] = _TRIES
    client.options["reconnect_time_wait"] = _PAUSE
    try:
        yield Asker(client, hub, wait)
    finally:
        await _close(client)


async def _close(client: Client) -> None:
    with suppress(Exception):
        async with asyncio.timeout(2):
            await client.close()
