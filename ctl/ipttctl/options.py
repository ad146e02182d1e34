# SPDX-License-Identifier: GPL-2.0
"""Options: what a command line and a file call a value, written down where the value is used.

A dataclass of options has a field for each, annotated with its type and an ``Option``. Commands
and keys of files are both made of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, get_args, get_type_hints


@dataclass(frozen=True)
class Option:
    """How a value is given: ``name`` is that of the command line, with its dashes.

    ``metavar`` stands for the value in the help, ``minimum`` and ``maximum`` bound a number.
    """

    name: str
    help: str
    metavar: str | None = None
    minimum: int | None = None
    maximum: int | None = None

    @property
    def key(self) -> str:
        """Its name in a file."""
        return self.name.lstrip("-")


class GroupedOption(NamedTuple):
    """An option of a group: the field that has its value, the type of that, and the option."""

    field: str
    type: Any
    option: Option


def options_of(group: Any) -> Iterator[GroupedOption]:
    """The options of a dataclass, in the order of its fields."""
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        kind, *notes = get_args(hints[field.name])
        option = next(note for note in notes if isinstance(note, Option))
        yield GroupedOption(field.name, kind, option)
