# SPDX-License-Identifier: GPL-2.0
"""The answers of hosts to ``status``, and whether they are what a roll-out has them be."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from ipttctl.fleet.asker import AnswerError, Asker, SilentHostError
from ipttctl.fleet.host import FleetLink
from ipttctl.fleet.rollout_record import RolloutRecord
from ipttctl.fleet.tasks import run_together

_AT_A_TIME: Final = 64


class StatusAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a host to ``status``."""

    rollout: str | None
    state: str
    why: str
    boot: str
    links: list[FleetLink]


@dataclass(frozen=True)
class HostsChanged:
    """Hosts that are not as a roll-out left them, each with the reason.

    ``unknown`` are those that do not say.
    """

    changed: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)


def read_status(host: str, answer: dict[str, Any]) -> StatusAnswer:
    """The status of a host, which may have been taken over.

    Raises:
        AnswerError: it is none.
    """
    try:
        return msgspec.convert(answer, StatusAnswer)
    except msgspec.ValidationError:
        raise AnswerError(f"{host}: the answer to status is none") from None


def why_not_there(record: RolloutRecord, host: str, status: StatusAnswer) -> str:
    """The reason why a host does not have what was rolled out, on trial or kept; or empty."""
    if status.boot != record.boots.get(host):
        return "it was started again"
    if status.rollout != record.rollout or status.state not in ("trial", "kept"):
        return status.why or "the roll-out is not there"
    # what was kept may not be as it was any more
    return status.why


async def hosts_changed(asker: Asker, record: RolloutRecord, patience: float) -> HostsChanged:
    """Ask the hosts whose waves were kept whether they are as they were then.

    Those that do not answer for ``patience`` seconds do not say.

    Raises:
        HubError: the hub is gone.
    """
    found = HostsChanged()
    few = asyncio.Semaphore(_AT_A_TIME)

    async def look(host: str) -> None:
        try:
            async with few:
                answer = await asker.ask(host, "status", {}, patience)
            why = why_not_there(record, host, read_status(host, answer))
        except (SilentHostError, AnswerError) as error:
            found.unknown[host] = str(error).removeprefix(f"{host}: ")
        else:
            if why:
                found.changed[host] = why

    if record.kept:
        await run_together(*map(look, record.kept))
    return found
