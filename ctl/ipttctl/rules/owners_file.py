# SPDX-License-Identifier: GPL-2.0
"""A user's file of owners, in YAML, with the checks of its entries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Any, Final

import yaml

from ipttctl.bpf.private_dirs import check_private
from ipttctl.errors import ProgramError, UsageError, os_reason
from ipttctl.rules.owner_entries import CONDITIONS, FIELDS, OwnerEntry, entry_of
from ipttctl.yaml_text import StrictConstructor, parse

_KNOWN: Final = ("owner", *FIELDS, "says", *CONDITIONS)
#: most characters of a file
_LONGEST: Final = 1 << 20


class _Loader(StrictConstructor, yaml.BaseLoader):
    """A loader that takes every value literally."""


def read_trusted(file: Path) -> tuple[OwnerEntry, ...]:
    """The entries of somebody's file, which nobody but its owner and root can have written.

    Raises:
        UsageError: it cannot be read or trusted, or an entry is not valid.
    """
    try:
        check_private(file, follow=True)
    except ProgramError as error:
        raise UsageError(error.problem, error.remedy) from None
    except OSError as error:
        raise UsageError(f"cannot read {file}: {os_reason(error)}") from None
    entries = []
    for number, given in enumerate(_read(file), 1):
        _check_keys(given, called := f"{file}: entry {number}")
        entries.append(_checked(entry_of(given), f"{called} ({given['owner']})"))
    return tuple(entries)


def _read(file: Path) -> list[Any]:
    called = str(file)
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(_LONGEST + 1)
        if len(text) > _LONGEST:
            raise UsageError(f"{called} is longer than {_LONGEST} characters")
    except OSError as error:
        raise UsageError(f"cannot read {called}: {os_reason(error)}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{called} is no text in UTF-8: {error.reason}") from None
    content = parse(text, called, _Loader, "no YAML").content
    if content is None:
        return []
    if not isinstance(content, list):
        raise UsageError(f"{called} is no list of entries", 'each begins with "- owner: NAME"')
    return content


def _check_keys(given: Any, called: str) -> None:
    if not isinstance(given, Mapping):
        raise UsageError(f"{called} is no object", 'it begins with "- owner: NAME"')
    if isinstance(given.get("owner"), str):
        called += f" ({given['owner']})"
    for key, value in given.items():
        if key not in _KNOWN:
            raise UsageError(
                f"{called}: there is no key '{key}'", f"there are: {', '.join(_KNOWN)}"
            )
        if not isinstance(value, str):
            raise UsageError(f"{called}: {key} is no text")
    for key in ("owner", "says"):
        if not given.get(key):
            raise UsageError(f"{called}: there is no {key}", "every entry has owner and says")
    for key in CONDITIONS:
        if given.get(key, "false") not in {"true", "false"}:
            raise UsageError(f"{called}: {key} is neither true nor false")


def _checked(entry: OwnerEntry, called: str) -> OwnerEntry:
    for field, pattern in entry.patterns.items():
        try:
            pattern.check()
        except UsageError as error:
            raise UsageError(f"{called}: {field}: {error.problem}", error.remedy) from None
    if not entry.patterns:
        raise UsageError(f"{called} matches every rule", f"give one of: {', '.join(FIELDS)}")
    _check_says(entry, called)
    return entry


def _check_says(entry: OwnerEntry, called: str) -> None:
    """Check that a template has no other names in braces than groups, each in one pattern."""
    says = entry.says
    groups = [group for one in entry.patterns.values() for group in one.compiled.groupindex]
    twice = next((group for group in groups if groups.count(group) > 1), None)
    if twice:
        raise UsageError(f"{called}: the group '{twice}' is in two patterns")
    try:
        parts = [*Formatter().parse(says)]
    except ValueError as error:
        raise UsageError(f"{called}: says '{says}' is no template: {error}") from None
    for _, name, form, conversion in parts:
        if name is not None and (name not in groups or form or conversion):
            known = ", ".join(groups) or "none"
            raise UsageError(
                f"{called}: says has '{{{name}}}', which is no group of its patterns",
                f"there are: {known}",
            )
