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

OWN: Final = Path(__file__).with_name("owners.json")
"""The entries that come with this package, made of owners.yaml by ``make generate``.

YAML takes a hundred times as long, at each start.
"""


@dataclass(frozen=True)
class OwnerEntry:
    """An entry of a file: a rule that all ``patterns`` match belongs to ``owner``.

    ``says`` is what the rule is about, with groups of the patterns in braces. A ``fallback`` is
    used if no rule that jumps to the chain says more.
    """

    owner: str
    patterns: Mapping[str, Pattern]
    says: str
    fallback: bool = False


def entry_of(given: Mapping[str, str]) -> OwnerEntry:
    """The entry that keys and values of a file make."""
    patterns = {
        field: Pattern(given[field], anywhere=field == "text") for field in FIELDS if field in given
    }
    fallback = given.get("fallback", "false") == "true"
    return OwnerEntry(given["owner"], patterns, given["says"], fallback)


def read_own() -> tuple[OwnerEntry, ...]:
    """The entries that come with this package."""
    return tuple(map(entry_of, json.loads(OWN.read_text(encoding="utf-8"))))
