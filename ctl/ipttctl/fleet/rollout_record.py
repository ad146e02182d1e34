# SPDX-License-Identifier: GPL-2.0
"""The progress of a roll-out, in a key-value bucket of the hub.

There is one key for the whole fleet, and each change of it says which change it follows: of two
people who begin at a time, one is refused. It is written before each step, so that whoever goes on
knows which one may have been taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, Literal, TypeAlias, TypeVar

import msgspec
import nats.js.errors
from nats.js.api import KeyValueConfig
from nats.js.kv import KeyValue

from ipttctl.errors import IpttctlError
from ipttctl.fleet import subjects
from ipttctl.fleet.asker import FAILURES, Asker, HubError
from ipttctl.fleet.connection import sentence
from ipttctl.fleet.requests import Declared

BUCKET: Final = "ipttctl-rollouts"
_KEY: Final = "current"
_TIMEOUT: Final = 3.0
_PAUSE: Final = 0.3
_AT_FIRST: Final = 10.0
_T = TypeVar("_T")

Step: TypeAlias = Literal["apply", "watch", "confirm", "done", "undo", "undone"]
ENDED: Final = frozenset({"done", "undone"})


class RolloutRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A roll-out, and the step that is being taken.

    ``same`` is a digest of all that was asked for: it goes on for whoever asks for the same.
    ``holder`` is whose process takes the steps, empty if none does; ``beat`` grows as long as it
    lives. ``waves`` are the hosts, and ``boots`` are of these as they were found.

    Raises:
        ValueError: these do not fit each other, or a host has no name.
    """

    format: int = 1
    rollout: str
    same: str
    file: str
    who: str
    holder: str = ""
    beat: int = 0
    links: dict[str, Declared]
    guards: list[str] = []
    pause: float
    rollback_after: float
    waves: list[list[str]]
    boots: dict[str, str]
    wave: Annotated[int, msgspec.Meta(ge=0)] = 0
    step: Step = "apply"
    why: str = ""
    unreached: list[str] = []

    def __post_init__(self) -> None:
        # others write there too
        if set(self.hosts) != self.boots.keys() or len(self.hosts) != len(self.boots):
            raise ValueError("the hosts of its waves are not those that were found")
        for host in self.hosts:
            subjects.host_token(host)
        if self.wave >= max(1, len(self.waves)):
            raise ValueError(f"it has no wave {self.wave + 1}")

    @property
    def hosts(self) -> list[str]:
        """The hosts, wave by wave."""
        return [host for wave in self.waves for host in wave]

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to do."""
        return self.step in ENDED

    @property
    def reached(self) -> list[str]:
        """The hosts that may have the new state."""
        return [host for wave in self.waves[: self.wave + 1] for host in wave]

    @property
    def kept(self) -> list[str]:
        """The hosts that have kept the new state, none of them once all are to go back."""
        if self.step == "done":
            return self.reached
        if self.step in ("undo", "undone"):
            return []
        return [host for wave in self.waves[: self.wave] for host in wave]

    def where(self) -> str:
        """The step in words."""
        if self.ended:
            return self.step
        return f"wave {self.wave + 1} of {len(self.waves)}, {self.step}"


class TakenError(IpttctlError):
    """Somebody else rolls out, or has taken this roll-out over."""


_DECODER: Final = msgspec.json.Decoder(RolloutRecord)


class RolloutStore:
    """The record in the hub. A hub that is gone for a while is waited for."""

    def __init__(self, asker: Asker, patience: float = 120.0) -> None:
        """Use a connection; wait ``patience`` seconds for a hub that is gone.

        At first it is waited for less long: perhaps one has no right to it.
        """
        self._asker = asker
        self._patience = patience
        self._heard = False
        self._found: KeyValue | None = None
        self._revision = 0

    async def read(self) -> RolloutRecord | None:
        """The record; None if there was no roll-out yet.

        Raises:
            HubError: it cannot be read.
        """
        data, self._revision = await self._patiently(self._get)
        if data is None:
            return None
        try:
            return _DECODER.decode(data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise HubError(
                f"the record of roll-outs is of another version, or damaged: {error}",
                f"remove the key {_KEY} of the bucket {BUCKET} once nothing is rolled out",
            ) from None

    async def revision(self) -> int:
        """The number of the last change; it is not taken note of."""
        return (await self._patiently(self._get))[1]

    async def put(self, record: RolloutRecord) -> None:
        """Store a record, if nobody else has since it was read.

        Raises:
            TakenError: somebody has.
            HubError: it cannot be stored, or nobody knows.
        """
        data = msgspec.json.encode(record)

        async def put() -> int:
            kv = await self._kv()
            try:
                return await kv.update(_KEY, data, last=self._revision or None)
            except nats.js.errors.KeyWrongLastSequenceError:
                # perhaps an answer to us was lost
                stored, revision = await self._get()
                if stored == data:
                    return revision
                raise TakenError("somebody else has taken the roll-out over") from None

        self._revision = await self._patiently(put)

    async def _get(self) -> tuple[bytes | None, int]:
        kv = await self._kv()
        try:
            entry = await kv.get(_KEY)
        except nats.js.errors.KeyNotFoundError as error:
            # one that was removed has a number yet, which the next one has to follow
            return None, (error.entry.revision or 0) if error.entry else 0
        return entry.value, entry.revision or 0

    async def _kv(self) -> KeyValue:
        if self._found is None:
            js = self._asker.client.jetstream(timeout=_TIMEOUT)
            try:
                self._found = await js.key_value(BUCKET)
            except nats.js.errors.NotFoundError:
                self._found = await js.create_key_value(KeyValueConfig(bucket=BUCKET))
        return self._found

    async def _patiently(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Do something with the hub, again and again while it is gone."""
        loop = asyncio.get_running_loop()
        end = loop.time() + (self._patience if self._heard else min(self._patience, _AT_FIRST))
        while True:
            try:
                found = await work()
                self._heard = True
                return found
            except FAILURES as error:
                if loop.time() >= end:
                    raise HubError(f"no record of roll-outs: {sentence(error)}") from None
            await asyncio.sleep(_PAUSE)
