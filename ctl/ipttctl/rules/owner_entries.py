# SPDX-License-Identifier: GPL-2.0
"""Entries that say whose a rule is, by names, comments and text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ipttctl.rules.patterns import Pattern

FIELDS: Final = ("backend", "family", "table", "chain", "comment", "text")
"""The fields that an entry can look at; the whole of each but the text has to match."""

CONDITIONS: Final = ("fallback", "called")
"""The keys of an entry that are ``true`` or ``false``."""

OWN: Final = Path(__file__).with_name("owners.json")
"""The entries that come with this package, made of owners.yaml by ``make generate``.

YAML takes a hundred times as long, at each start.
"""


@dataclass(frozen=True)
class OwnerEntry:
    """An entry of a file: a rule that all ``patterns`` match belongs to ``owner``.

    ``says`` is what the rule is about, with groups of the patterns in braces. A ``fallback`` is
    used if no rule that jumps to the chain says more. One that is ``called`` counts only if a rule
    of the same owner is known to jump to the chain: others may use its name.
    """

    owner: str
    patterns: Mapping[str, Pattern]
    says: str
    fallback: bool = False
    called: bool = False


def entry_of(given: Mapping[str, str]) -> OwnerEntry:
    """The entry that keys and values of a file make."""
    patterns = {
        field: Pattern(given[field], anywhere=field == "text") for field in FIELDS if field in given
    }
    fallback, called = (given.get(key, "false") == "true" for key in CONDITIONS)
    return OwnerEntry(given["owner"], patterns, given["says"], fallback, called)


def read_own() -> tuple[OwnerEntry, ...]:
    """The entries that come with this package."""
    return tuple(map(entry_of, json.loads(OWN.read_text(encoding="utf-8"))))
