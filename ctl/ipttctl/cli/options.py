# SPDX-License-Identifier: GPL-2.0
"""Options and arguments of several command lines, in typer's form, and what their values mean."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from ipttctl.errors import UsageError
from ipttctl.system.inherited import Inherited


class Output(enum.StrEnum):
    """Output formats."""

    TEXT = "text"
    JSON = "json"


LinkArgument = Annotated[str, typer.Argument(metavar="LINK", help="id or name of the link")]
OutputOption = Annotated[
    Output, typer.Option("-o", "--output", help="text for people, json for programs")
]
GroupOutputOption = Annotated[
    Output | None, typer.Option("-o", "--output", help="text for people, json for programs")
]
"""That of a command that has commands of its own, for when none of these is given."""

ColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="NAMES",
        help="only these columns, in this order: time,pkt_info,iptables_info",
    ),
]
RulesOption = Annotated[
    bool | None,
    typer.Option(
        "--rules/--no-rules",
        help="the rules themselves, as their owners write them (default: everywhere but in blocks "
        "of events on narrow terminals)",
    ),
]
ReasonOption = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help="why, for the link's history and observers"),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="against the will of its owner, who is told")
]
ExclusiveOption = Annotated[
    bool,
    typer.Option("--exclusive", help="others swap, detach, adopt or release it by --force only"),
]


def group_output(context: typer.Context, given: Output | None) -> Output:
    """The output format of a command that has commands of its own.

    Raises:
        UsageError: one of these is given, which has an option of its own.
    """
    if context.invoked_subcommand is not None and given is not None:
        command = f"{context.command_path} {context.invoked_subcommand}"
        raise UsageError(
            "--output is a command's own option", f"write `{command} --output {given}`"
        )
    return given or Output.TEXT


def inherited(context: typer.Context) -> Inherited:
    """The descriptors that were open when the command line was started: see ``cli.run``."""
    found = context.obj
    assert isinstance(found, Inherited)
    return found


def tell_compiling() -> None:
    """Tell the user that a compilation takes time."""
    typer.echo("compiling the BPF programs (once; takes some seconds)...", err=True)
