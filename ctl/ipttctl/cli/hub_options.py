# SPDX-License-Identifier: GPL-2.0
"""Options of commands that ask the hosts of a fleet, and their connection to the hub."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from ipttctl.errors import UsageError
from ipttctl.fleet.needs import require

if TYPE_CHECKING:
    from ipttctl.fleet.asker import Asker
    from ipttctl.fleet.heartbeat import Selector

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

WAIT_HELP: Final = "how long hosts may take to be heard of (default: 2.5)"
"""Help for ``--wait``."""

WaitOption = Annotated[float | None, typer.Option("--wait", metavar="SECONDS", help=WAIT_HELP)]

_LONGEST_WAIT: Final = 3600


def chosen_hosts(text: str) -> Selector:
    """The hosts that ``--hosts`` means, which somebody has to have said.

    Raises:
        UsageError: it is not said, as by a variable of a shell that is empty, or no selector.
    """
    from ipttctl.fleet.heartbeat import Selector  # noqa: PLC0415  # 45 ms; msgspec may be missing

    chosen = Selector.parse(text)
    if chosen == Selector() and text.strip() != "all":
        raise UsageError("--hosts: nobody is chosen", "write all for all hosts")
    return chosen


def check_wait(wait: float | None) -> None:
    """Check the time of ``--wait``.

    Raises:
        UsageError: it is none.
    """
    if wait is not None and not 0 < wait <= _LONGEST_WAIT:
        raise UsageError(f"--wait: {wait:g} is not a time above 0 and up to {_LONGEST_WAIT} s")


def asking(
    hub: str | None, work: Callable[[Asker], Awaitable[_T]], *, wait: float | None = None
) -> _T:
    """Connect to the hub that ``--hub`` means, and do some work with the connection.

    ``wait`` is the time of ``--wait``.

    Raises:
        UsageError: a library is missing, or the settings or the time are not valid.
        HubError: the hub cannot be reached.
    """
    check_wait(wait)
    require("msgspec", "nats", "nkeys")
    import asyncio  # noqa: PLC0415  # 15 ms, and --help needs none

    from ipttctl.fleet.asker import connected, read_hub  # noqa: PLC0415  # 110 ms; nats may be missing

    settings = read_hub(hub)

    async def run() -> _T:
        async with connected(settings, wait) as asker:
            return await work(asker)

    return asyncio.run(run())
