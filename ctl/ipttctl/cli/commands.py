# SPDX-License-Identifier: GPL-2.0
"""The table of commands. A command's file is imported when the command is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Final

import typer
import typer.main
from typer.core import TyperGroup

PLACES: Final = {
    "trace": "trace.trace",
    "attach": "attach.attach",
    "swap": "swap.swap",
    "confirm": "swap.confirm",
    "history": "swap.history",
    "apply": "declared.apply",
    "diff": "declared.diff",
    "save": "declared.save",
    "adopt": "attach.adopt",
    "detach": "links.detach",
    "links": "links.links",
    "events": "events.events",
    "run": "run_command.app",
    "stats": "events.stats",
    "maps": "maps.maps",
    "doctor": "doctor.doctor",
    "cflags": "cflags.cflags",
    "map": "maps.app",
    "module": "module.app",
}
"""Command -> the file of this package with its function, or with typer's object for it."""


class CommandGroup(TyperGroup):
    """All commands of ``ipttctl``."""

    def __init__(self, **settings: Any) -> None:
        """Take typer's settings."""
        super().__init__(**settings)
        self.commands = _Commands()  # type: ignore[assignment]  # nobody adds any


class _Commands(Mapping[str, Any]):
    """Typer's objects for the commands, each made when it is looked up.

    Importing the files of all commands takes twice as long as those of one.
    """

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _command(name, *PLACES[name].split("."))
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(PLACES)

    def __len__(self) -> int:
        return len(PLACES)


def _command(name: str, file: str, attribute: str) -> Any:
    found = getattr(import_module(f"ipttctl.cli.{file}"), attribute)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False, rich_markup_mode=None)
        found.command(name)(function)
    command = typer.main.get_command(found)
    command.name = name
    return command
