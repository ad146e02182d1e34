# SPDX-License-Identifier: GPL-2.0
"""The file of ``ipttctl swap --txn``: the options of swap for each link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ipttctl.cli.keep import Kept, PartOptions
from ipttctl.errors import ProgramError, UsageError
from ipttctl.link.names import LabelOptions, LinkRef, parse_link
from ipttctl.programs.choice import ProgramChoice
from ipttctl.programs.options import ProgramOptions
from ipttctl.programs.slots import Expectations
from ipttctl.state.option_files import Options, directory_of, keep_names, read_file
from ipttctl.system.inherited import Inherited
from ipttproto import Slot
from ipttproto.family import limit

_OPTION: Final = "--txn"
_MOST: Final = limit("MAX_CHANGES")


@dataclass(frozen=True)
class LinkSwap:
    """One link's part in a transaction; nothing of it is opened yet."""

    link: LinkRef
    choice: ProgramChoice
    expect_generation: int | None
    expect_programs: Mapping[Slot, int]
    labels: Mapping[str, str] | None
    kept: Kept


def read_transaction(file: str, inherited: Inherited) -> list[LinkSwap]:
    """Read the list of changes in a YAML or JSON file; ``-`` is standard input.

    ``inherited`` are the descriptors that it may name.

    Raises:
        UsageError: it cannot be read, or is not a list of changes to different links.
        ProgramError: it names a descriptor that was not left open.
    """
    entries = read_file(file, _OPTION)
    if not isinstance(entries, list) or not 0 < len(entries) <= _MOST:
        raise UsageError(f"{_OPTION}: {file} is not a list of 1 to {_MOST} changes")
    directory = directory_of(file)
    changes = [
        _change(f"{_OPTION}: change {place}", entry, directory, inherited)
        for place, entry in enumerate(entries, 1)
    ]
    links = [change.link for change in changes]
    twice = next((link for link in links if links.count(link) > 1), None)
    if twice is not None:
        raise UsageError(f"{_OPTION}: link {twice} is there twice", "a transaction swaps it once")
    return changes


def _change(called: str, entry: Any, directory: Path, inherited: Inherited) -> LinkSwap:
    given = Options(called, entry, "link: ID")
    text = given.text("link", "the id or the name of a link")
    programs = given.group(ProgramOptions)
    expected, labels = given.group(Expectations), given.group(LabelOptions)
    maps, parts = keep_names(given, "keep-maps"), given.group(PartOptions)
    given.finish()
    try:
        return LinkSwap(
            parse_link(text),
            programs.choice(inherited).relative_to(directory),
            expected.expect_generation,
            expected.programs(),
            labels.labels(),
            Kept(maps, parts.parts()),
        )
    except (UsageError, ProgramError) as error:
        raise type(error)(f"{called}: {error.problem}", error.remedy) from None
