# SPDX-License-Identifier: GPL-2.0
"""Stories that the hub of a fleet keeps, printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipttctl.cli.hub_options import asking
from ipttctl.cli.kept_options import KeptOptions
from ipttctl.cli.options import Output
from ipttctl.cli.printing import lines, note
from ipttctl.errors import UsageError
from ipttctl.fleet.needs import require
from ipttctl.numbers import counted
from ipttctl.show.render_json import dumps
from ipttctl.show.told_story import told_lines

if TYPE_CHECKING:
    from ipttctl.fleet.asker import Asker
    from ipttctl.frames.head import FrameHead


def show_kept(
    kept: KeptOptions,
    file: Path | None,
    since: str | None,
    *,
    drops: bool,
    count: int | None,
    output: Output,
) -> None:
    """Print the stories that the hub keeps, of all hosts or of some."""
    require("msgspec", "nats", "nkeys")
    from ipttctl.fleet.kept_stories import read_stories  # noqa: PLC0415  # 90 ms; nats may be missing

    settings = kept.settings([str(file)] if file else [])
    chosen, bounds = kept.chosen(), kept.bounds(since)
    told = 0

    def take(head: FrameHead, story: dict[str, Any]) -> bool:
        nonlocal told
        if drops and not story["end"]["dropped"]:
            return True
        if output is Output.JSON:
            where = {"host": head.host, "boot_id": head.boot, "run": head.run}
            lines([dumps({**where, **story})])
        else:
            lines(told_lines(story, head.host))
        told += 1
        return told != count

    async def read(asker: Asker) -> None:
        await read_stories(asker, chosen, bounds, take, note)

    asking(settings, read, wait=kept.wait)
    note(f"{counted(told, 'story', 'stories')} told")


def check_shown(**options: object) -> None:
    """Check that nothing is asked for that the hub does not keep.

    Raises:
        UsageError: something is.
    """
    for name, value in options.items():
        if value:
            raise UsageError(
                f"--{name.replace('_', '-')} is of recordings",
                "leave it out, or use `ipttctl query --hub`",
            )
