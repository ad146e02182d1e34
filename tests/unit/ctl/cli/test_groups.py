# SPDX-License-Identifier: GPL-2.0
"""A dataclass stands for its options."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Annotated

import typer

from ipttctl.cli.groups import grouped

_NAME = Annotated[str, typer.Option("--name", help="a name")]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Some options."""

    name: _NAME
    values: Annotated[list[int], typer.Option("--value")] = field(default_factory=list)
    fast: bool = False


@grouped
def command(*, before: int, chosen: Options, after: str = "x") -> str:
    """What it does."""
    return f"{before} {chosen.name} {chosen.values} {chosen.fast} {after}"


def test_options_are_spelled_out() -> None:
    parameters = inspect.signature(command).parameters
    assert list(parameters) == ["before", "name", "values", "fast", "after"]
    assert parameters["name"].annotation == _NAME
    assert parameters["name"].default is inspect.Parameter.empty
    assert parameters["values"].default == []
    assert (parameters["fast"].default, parameters["after"].default) == (False, "x")
    assert (command.__name__, command.__doc__) == ("command", "What it does.")


def test_they_come_as_one() -> None:
    made = command(before=1, name="a", values=[2], fast=True, after="z")
    assert made == "1 a [2] True z"


def test_with_typer() -> None:
    app = typer.Typer()
    app.command()(command)
    line = ["1", "--name", "a", "--value", "2", "--value", "3", "--fast"]
    assert app(args=line, standalone_mode=False) == "1 a [2, 3] True x"
