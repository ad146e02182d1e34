# SPDX-License-Identifier: GPL-2.0
"""Options of commands that ask the hosts of a fleet, and their connection to the hub."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ipttctl.fleet.needs import require

if TYPE_CHECKING:
    from ipttctl.fleet.asker import Asker

_T = TypeVar("_T")

HubOption = Annotated[
    str | None,
    typer.Option(
        "--hub",
        metavar="FILE",
        help="how the hub is reached, in YAML (default: ~/.config/ipttctl/hub.yaml, then "
        "/etc/ipttctl/hub.yaml)",
    ),
]

HostsOption = Annotated[
    str,
    typer.Option(
        "--hosts",
        metavar="SELECTOR",
        help="which: names, labels as 'role=node,zone!=b', or all",
    ),
]


def asking(hub: str | None, work: Callable[[Asker], Awaitable[_T]]) -> _T:
    """Connect to the hub that ``--hub`` means, and do some work with the connection.

    Raises:
        UsageError: a library is missing, or the settings are not valid.
        HubError: the hub cannot be reached.
    """
    require("msgspec", "nats", "nkeys")
    import asyncio  # noqa: PLC0415  # other commands do without

    from ipttctl.fleet.asker import connected, read_hub  # noqa: PLC0415  # nats may be missing

    settings = read_hub(hub)

    async def run() -> _T:
        async with connected(settings) as asker:
            return await work(asker)

    return asyncio.run(run())
