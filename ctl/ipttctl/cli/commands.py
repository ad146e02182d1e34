# SPDX-License-Identifier: GPL-2.0
"""The table of commands. A command's file is imported when the command is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Final

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

PLACES: Final = {
    "trace": (
        "trace.trace",
        (
            "Trace packets through iptables and nftables: what became of each, "
            "and which rule decided it."
        ),
    ),
    "record": (
        "record.record",
        (
            "Record a trace into FILE: its events, its stories, and the rules "
            "and names that they need."
        ),
    ),
    "show": (
        "show.show",
        "Print a recording as `ipttctl trace` would have printed it, on any machine, without root.",
    ),
    "export": (
        "export.export",
        (
            "Make files for other programs of a recording: Parquet of its "
            "tables, pcapng of its packets."
        ),
    ),
    "query": (
        "query.query",
        "Ask recordings a question: in SQL, or one of those that are ready.",
    ),
    "attach": (
        "attach.attach",
        "Attach programs as a link: --fd rule=7 --pinned exit=/sys/fs/bpf/x --id entry=12.",
    ),
    "swap": (
        "swap.swap",
        "Replace all programs of a link in one step, and what goes with them.",
    ),
    "confirm": (
        "rollback.confirm",
        "Keep a swap that waits, of a link and of those swapped together with it.",
    ),
    "rollback": (
        "rollback.rollback",
        "Undo a swap that waits, at once, of a link and of those swapped together with it.",
    ),
    "promote": (
        "shadow.promote",
        "Swap the shadow of a link in, for a generation of its own. Prints the link.",
    ),
    "drop-shadow": (
        "shadow.drop_shadow",
        "Take the shadow of a link away. Prints the link, with the last counts.",
    ),
    "history": (
        "swap.history",
        "Show the last generations of a link, oldest first: the change, its time and its author.",
    ),
    "apply": (
        "declared.apply",
        "Make links and maps as FILE declares them, and print the changes.",
    ),
    "diff": (
        "declared.diff",
        "Print the changes that apply would make, one a line. Exit status 9 if there are any.",
    ),
    "save": (
        "declared.save",
        "Print the persistent links in the form that apply takes: applying it changes nothing.",
    ),
    "adopt": (
        "attach.adopt",
        "Take over a persistent link: from now on it ends with this command, as after attach.",
    ),
    "release": (
        "links.release",
        "Make a link persistent: it no longer ends with its owner, and can be adopted by another.",
    ),
    "rename": (
        "links.rename",
        "Give a link another name, or its first one. Prints the link.",
    ),
    "detach": (
        "links.detach",
        "Remove links, whoever owns them. Prints the final state of each.",
    ),
    "links": (
        "links.links",
        "Show links, as a table on a terminal, otherwise one a line.",
    ),
    "events": (
        "events.events",
        "Follow the events of existing links, whoever made them.",
    ),
    "run": (
        "run_command.run",
        "Attach a link while COMMAND runs: run --fd packet=7 --hook HOOK -- COMMAND...",
    ),
    "stats": (
        "stats.stats",
        "Show the module, its event streams and their losses since it was loaded.",
    ),
    "maps": (
        "maps.maps",
        "Show the maps that the programs of a link use.",
    ),
    "doctor": (
        "doctor.doctor",
        "Check that this host has all that ipttctl needs, and name the remedy if it does not.",
    ),
    "cflags": (
        "cflags.cflags",
        "Print the options with which clang compiles a BPF program for this host.",
    ),
    "map": (
        "maps.one_map",
        "Read and write a map that a link's programs use, while they run.",
    ),
    "module": (
        "module.default",
        "Build, load and unload the kernel module. Without a command: show its status.",
    ),
    "agent": (
        "agent.agent",
        "Publish what happens on this host to the NATS server on it, and do what others may ask.",
    ),
    "fleet": (
        "fleet.fleet",
        "Look at many hosts, and roll states out to them: see docs/fleet.md.",
    ),
}
"""Command -> its function, in a file of this package, and the first line of its docstring.

The list of commands shows these lines, for which it need not read the files.
"""

APPS: Final = frozenset({"attach", "swap", "run", "map", "module", "fleet"})
"""Commands for which the file has typer's object, ``app``: settings, or commands of their own."""


class CommandGroup(TyperGroup):
    """All commands of ``ipttctl``."""

    def __init__(self, **settings: Any) -> None:
        """Take typer's settings."""
        super().__init__(**settings)
        self.commands = _Commands()  # type: ignore[assignment]  # nobody adds any

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands without importing their files."""
        self.commands = {
            name: TyperCommand(name, help=summary) for name, (_, summary) in PLACES.items()
        }
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
    place, _ = PLACES[name]
    file, function = place.split(".")
    module = import_module(f"ipttctl.cli.{file}")
    if name in APPS:
        app = module.app
    else:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name)(getattr(module, function))
    command = typer.main.get_command(app)
    command.name = name
    return command
