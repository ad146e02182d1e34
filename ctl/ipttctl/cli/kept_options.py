# SPDX-License-Identifier: GPL-2.0
"""Options of commands that read recordings, or what the hub of a fleet keeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ipttctl.cli.durations import seconds
from ipttctl.cli.file_names import file_named
from ipttctl.cli.hub_options import WAIT_HELP, asking, check_wait, chosen_hosts
from ipttctl.cli.sizes import parse_size
from ipttctl.errors import UsageError
from ipttctl.fleet.needs import require
from ipttctl.options import Option

if TYPE_CHECKING:
    from ipttctl.fleet.asker import Asker
    from ipttctl.fleet.heartbeat import Selector
    from ipttctl.fleet.kept import ReadBounds
    from ipttctl.recordings.table_maker import Sink

LONGEST: Final = 10 * 365 * 86_400
"""Most seconds of ``--since``."""

SINCE: Final = "1h"
"""The time from which on the hub is read, unless it is said."""

KeptFile = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", parser=file_named, help="a recording of `ipttctl record`"),
]
KeptSinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="with --hub, of the last 30s, 10m, 1h..."),
]


@dataclass(frozen=True, kw_only=True)
class KeptOptions:
    """The options that choose what is read of the hub (see ``ipttctl.options``)."""

    hub: Annotated[
        bool,
        Option("--hub", "what the hub of a fleet keeps; FILE, if given, says how it is reached"),
    ] = False
    hosts: Annotated[
        str | None,
        Option(
            "--hosts",
            "with --hub, of which hosts: names, labels as 'role=node,zone!=b', or all",
            metavar="SELECTOR",
        ),
    ] = None
    most: Annotated[
        str | None,
        Option("--most", "with --hub, most bytes that are read (512M)", metavar="BYTES"),
    ] = None
    within: Annotated[
        str | None,
        Option("--within", "with --hub, longest time for which it is read (2m)", metavar="TIME"),
    ] = None
    wait: Annotated[
        float | None,
        Option("--wait", f"with --hub, {WAIT_HELP}", metavar="SECONDS"),
    ] = None

    def check(self) -> None:
        """Check that nothing is said of a hub that is not asked.

        Raises:
            UsageError: something is.
        """
        if not self.hub:
            for one in fields(self)[1:]:
                if getattr(self, one.name) is not None:
                    raise UsageError(f"--{one.name} is of what a hub keeps", "add --hub")
        check_wait(self.wait)

    def settings(self, files: list[str]) -> str | None:
        """The file that says how the hub is reached; None: the usual one.

        Raises:
            UsageError: there are several.
        """
        if len(files) > 1:
            raise UsageError("--hub takes one FILE, which says how the hub is reached")
        return files[0] if files else None

    def bounds(self, since: str | None) -> ReadBounds:
        """The bounds of reading."""
        from ipttctl.fleet.kept import ReadBounds  # noqa: PLC0415  # 80 ms; nats may be missing

        return ReadBounds(
            since=time.time() - seconds("--since", since or SINCE, LONGEST),
            size=parse_size("--most", self.most or "512M"),
            seconds=seconds("--within", self.within or "2m", 86_400),
        )

    def chosen(self) -> Selector:
        """The hosts that are meant: all unless it is said."""
        return chosen_hosts("all" if self.hosts is None else self.hosts)

    def writer(
        self, files: list[str], since: str | None, tell: Callable[[str], None]
    ) -> Callable[[Sink, frozenset[str]], Any]:
        """Connects to the hub and gives the rows of what it keeps to a sink, when called.

        Raises:
            UsageError: an option makes no sense, or a library is missing.
        """
        require("msgspec", "nats", "nkeys")
        from ipttctl.fleet.kept_tables import write_kept  # noqa: PLC0415  # see bounds()

        settings, bounds, chosen = self.settings(files), self.bounds(since), self.chosen()

        def write(sink: Sink, wanted: frozenset[str]) -> None:
            async def read(asker: Asker) -> None:
                await write_kept(asker, chosen, bounds, sink=sink, wanted=wanted, tell=tell)

            asking(settings, read, wait=self.wait)

        return write
