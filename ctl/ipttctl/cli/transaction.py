# SPDX-License-Identifier: GPL-2.0
"""The file of ``ipttctl swap --txn``: the options of swap once more, for each link."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

import yaml
from typer.models import OptionInfo

from ipttctl.cli import options
from ipttctl.cli.options import ProgramChoice, ProgramOptions
from ipttctl.errors import UsageError
from ipttproto import Slot
from ipttproto.family import limit

_STANDARD_INPUT: Final = "-"
_LINK: Final = "link"
_EXPECT_GENERATION: Final = "expect-gen"
_EXPECT_PROGRAM: Final = "expect-prog"
_MOST: Final = limit("MAX_CHANGES")
_HIGHEST: Final = 0xFFFFFFFF


@dataclass(frozen=True)
class LinkChange:
    """A link's part in a transaction, nothing of it opened yet."""

    link: int
    choice: ProgramChoice
    expect_generation: int | None
    expect_programs: Mapping[Slot, int]


def read_transaction(file: str) -> list[LinkChange]:
    """The changes that a YAML or JSON file lists; ``-`` is standard input.

    Raises:
        UsageError: it cannot be read, or is not a list of changes of different links.
    """
    try:
        text = sys.stdin.read() if file == _STANDARD_INPUT else Path(file).read_text()
        entries = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--txn: cannot read {file}: {error}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"--txn: {file} is neither YAML nor JSON: {error}") from None
    if not isinstance(entries, list) or not 0 < len(entries) <= _MOST:
        raise UsageError(f"--txn: {file} is not a list of 1 to {_MOST} changes")
    changes = [_change(f"--txn: change {place}", entry) for place, entry in enumerate(entries, 1)]
    links = [change.link for change in changes]
    twice = next((link for link in links if links.count(link) > 1), None)
    if twice is not None:
        raise UsageError(f"--txn: link {twice} is there twice", "a transaction swaps it once")
    return changes


def _change(called: str, entry: Any) -> LinkChange:
    if not isinstance(entry, Mapping):
        raise UsageError(f"{called} is not an object", 'it begins with "link: ID"')
    given = dict(entry)
    programs: dict[str, Any] = {}
    for key, (name, several) in _program_keys().items():
        if key in given:
            texts = _texts(f"{called}: {key}", given.pop(key))
            if not several and len(texts) != 1:
                raise UsageError(f"{called}: {key} takes one value")
            programs[name] = texts if several else texts[0]
    link = _number(f"{called}: {_LINK}", given.pop(_LINK, None))
    generation = given.pop(_EXPECT_GENERATION, None)
    expected = _texts(f"{called}: {_EXPECT_PROGRAM}", given.pop(_EXPECT_PROGRAM, []))
    if given:
        known = ", ".join((_LINK, *_program_keys(), _EXPECT_GENERATION, _EXPECT_PROGRAM))
        raise UsageError(f"{called}: there is no key '{next(iter(given))}'", f"there are: {known}")
    try:
        return LinkChange(
            link,
            ProgramOptions(**programs).choice(),
            None if generation is None else _number(f"{called}: {_EXPECT_GENERATION}", generation),
            options.expected_programs(expected),
        )
    except UsageError as error:
        raise UsageError(f"{called}: {error.problem}", error.remedy) from None


def _program_keys() -> dict[str, tuple[str, bool]]:
    """Long names of the options for programs -> the member, and whether it takes several."""
    hints = get_type_hints(ProgramOptions, include_extras=True)
    keys = {}
    for field in fields(ProgramOptions):
        kind, *notes = get_args(hints[field.name])
        option = next(note for note in notes if isinstance(note, OptionInfo))
        keys[str(option.default).removeprefix("--")] = field.name, get_origin(kind) is list
    return keys


def _texts(called: str, value: Any) -> list[str]:
    """What an option gets on a command line; an object gives KEY=VALUE for each of its members."""
    if isinstance(value, Mapping):
        return [f"{key}={_scalar(called, part)}" for key, part in value.items()]
    return [_scalar(called, part) for part in (value if isinstance(value, list) else [value])]


def _scalar(called: str, value: Any) -> str:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise UsageError(f"{called}: {value!r} is neither text nor a number")
    return str(value)


def _number(called: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _HIGHEST:
        raise UsageError(f"{called} is not a number from 1 on")
    return value
