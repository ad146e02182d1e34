# SPDX-License-Identifier: GPL-2.0
"""A dataclass stands for its options."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Annotated, get_args

import pytest
import typer
from typer.exceptions import TyperException

from ipttctl.cli.groups import grouped
from ipttctl.options import Option


@dataclass(frozen=True, kw_only=True)
class Options:
    """Some options."""

    name: Annotated[str, Option("--name", "a name", metavar="NAME")]
    values: Annotated[list[int], Option("--value", "a number", minimum=1)] = field(
        default_factory=list
    )
    fast: Annotated[bool, Option("--fast", "at once")] = False


@grouped
def command(*, before: int, chosen: Options, after: str = "x") -> str:
    """Show the options."""
    return f"{before} {chosen.name} {chosen.values} {chosen.fast} {after}"


def test_options_are_spelled_out() -> None:
    parameters = inspect.signature(command).parameters
    assert list(parameters) == ["before", "name", "values", "fast", "after"]
    kind, option = get_args(parameters["name"].annotation)
    assert kind is str
    assert (option.metavar, option.help) == ("NAME", "a name")
    assert parameters["name"].default is inspect.Parameter.empty
    assert parameters["values"].default == []
    assert (parameters["fast"].default, parameters["after"].default) == (False, "x")
    assert (command.__name__, command.__doc__) == ("command", "Show the options.")


def test_they_come_as_one() -> None:
    made = command(before=1, name="a", values=[2], fast=True, after="z")
    assert made == "1 a [2] True z"


def test_with_typer() -> None:
    app = typer.Typer()
    app.command()(command)
    line = ["1", "--name", "a", "--value", "2", "--value", "3", "--fast"]
    assert app(args=line, standalone_mode=False) == "1 a [2, 3] True x"
    with pytest.raises(TyperException, match="0 is not in the range x>=1"):
        app(args=["1", "--name", "a", "--value", "0"], standalone_mode=False)


def test_an_option_in_another_form_is_refused() -> None:
    @dataclass(frozen=True)
    class Wrong:
        """An option in typer's form."""

        name: Annotated[str, typer.Option("--name")]

    def wrong(*, chosen: Wrong) -> None:
        """Take it."""

    wrong.__annotations__ = {"chosen": Wrong, "return": None}
    with pytest.raises(TypeError, match="name is no option"):
        grouped(wrong)
