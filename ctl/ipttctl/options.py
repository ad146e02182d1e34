# SPDX-License-Identifier: GPL-2.0
"""Options: the names of values on the command line and in files, declared next to their use.

A dataclass of options has a field for each, annotated with its type and an ``Option``. Both the
commands' options and the keys of files are made from these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, get_args, get_type_hints


@dataclass(frozen=True)
class Option:
    """The way a value is given: ``name`` is the command line's, with its dashes.

    ``short`` is a second one, with one dash. ``metavar`` stands for the value in the help,
    ``minimum`` and ``maximum`` bound a number. One that is ``hidden`` is in no help.
    """

    name: str
    help: str
    metavar: str | None = None
    minimum: int | None = None
    maximum: int | None = None
    short: str | None = None
    hidden: bool = False

    @property
    def key(self) -> str:
        """The option's name in a file."""
        return self.name.lstrip("-")


class GroupedOption(NamedTuple):
    """An option of a group: the field with its value, the field's type, and the option."""

    field: str
    type: Any
    option: Option


def options_of(group: Any) -> Iterator[GroupedOption]:
    """The options of a dataclass, in the order of its fields."""
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        kind, *notes = get_args(hints[field.name])
        option = next((note for note in notes if isinstance(note, Option)), None)
        if option is None:
            raise TypeError(f"{field.name} is no option")
        yield GroupedOption(field.name, kind, option)
