# SPDX-License-Identifier: GPL-2.0
"""Options and arguments of several command lines, in typer's form, and what their values mean."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from ipttctl.numbers import U32_MAX
from ipttctl.system.inherited import Inherited


class Output(enum.StrEnum):
    """Output formats."""

    TEXT = "text"
    JSON = "json"


LinkArgument = Annotated[
    int, typer.Argument(metavar="LINK", min=1, max=U32_MAX, help="id of the link")
]
OutputOption = Annotated[
    Output, typer.Option("-o", "--output", help="text for people, json for programs")
]
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
        help="the rules themselves, as their owners write them (default: in the table of wide "
        "terminals and pipes)",
    ),
]


def inherited(context: typer.Context) -> Inherited:
    """The descriptors that were open when the command line was started: see ``cli.run``."""
    found = context.obj
    assert isinstance(found, Inherited)
    return found


def tell_compiling() -> None:
    """Tell the user that a compilation takes time."""
    typer.echo("compiling the BPF programs (once; takes some seconds)...", err=True)
