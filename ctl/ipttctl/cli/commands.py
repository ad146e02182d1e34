# SPDX-License-Identifier: GPL-2.0
"""The table of commands. A command's file is imported when the command is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

PLACES: Final = {
    "trace": "trace.trace",
    "record": "record.record",
    "show": "show.show",
    "export": "export.export",
    "query": "query.query",
    "attach": "attach.attach",
    "swap": "swap.swap",
    "confirm": "rollback.confirm",
    "rollback": "rollback.rollback",
    "promote": "shadow.promote",
    "drop-shadow": "shadow.drop_shadow",
    "history": "swap.history",
    "apply": "declared.apply",
    "diff": "declared.diff",
    "save": "declared.save",
    "adopt": "attach.adopt",
    "release": "links.release",
    "rename": "links.rename",
    "detach": "links.detach",
    "links": "links.links",
    "events": "events.events",
    "run": "run_command.run",
    "stats": "stats.stats",
    "maps": "maps.maps",
    "doctor": "doctor.doctor",
    "cflags": "cflags.cflags",
    "map": "maps.one_map",
    "module": "module.default",
    "agent": "agent.agent",
    "fleet": "fleet.fleet",
}
"""Command -> its function, in a file of this package; the docstring is its help."""

APPS: Final = frozenset({"attach", "swap", "run", "map", "module", "fleet"})
"""Commands for which the file has typer's object, ``app``: settings, or commands of their own."""


class CommandGroup(TyperGroup):
    """All commands of ``ipttctl``."""

    def __init__(self, **settings: Any) -> None:
        """Take typer's settings."""
        super().__init__(**settings)
        self.commands = _Commands()  # type: ignore[assignment]  # nobody adds any

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands with the help that their files say, without importing these."""
        self.commands = {name: TyperCommand(name, help=_help(name)) for name in PLACES}
        super().format_commands(ctx, formatter)


class _Commands(Mapping[str, Any]):
    """Typer's objects for the commands, each made when it is looked up.

    Importing the files of all commands takes twice as long as that of one.
    """

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _command(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(PLACES)

    def __len__(self) -> int:
        return len(PLACES)


def _command(name: str) -> Any:
    file, function = PLACES[name].split(".")
    module = import_module(f"ipttctl.cli.{file}")
    if name in APPS:
        app = module.app
    else:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name)(getattr(module, function))
    command = typer.main.get_command(app)
    command.name = name
    return command


def _help(name: str) -> str:
    """The docstring of a command's function."""
    file, function = PLACES[name].split(".")
    for node in ast.parse(Path(__file__).with_name(f"{file}.py").read_bytes()).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return ast.get_docstring(node) or ""
    raise AssertionError(f"{file}.py has no function {function}")
