# SPDX-License-Identifier: GPL-2.0
"""Examples of rulesets whose owners are known, and how they are written down.

A file is a list of rulesets. The lines of ``rules`` are ``*TABLE`` and ``-A CHAIN ...`` as
iptables-save writes them, or ``table FAMILY NAME``, ``chain NAME`` and rules as nft writes them. A
line ``= OWNER: WHAT`` below a rule or chain is what it is named; ``= none`` is nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from ipttctl.rules.owners import Place

EXAMPLES = tuple(sorted(Path(__file__).with_name("examples").glob("*.yaml")))


@dataclass(frozen=True)
class Example:
    """A rule, and the naming of it that is expected."""

    place: Place
    expected: str


def read_examples(file: Path) -> list[list[Example]]:
    """The examples of a file, for each of its rulesets."""
    rulesets = yaml.safe_load(file.read_text())
    return [
        [*_examples(ruleset["rules"], ruleset["backend"], ruleset["family"])]
        for ruleset in rulesets
    ]


def _examples(rules: str, backend: str, family: str) -> Iterator[Example]:
    table = chain = ""
    place: Place | None = None
    for line in rules.splitlines():
        match line.split():
            case ["=", *_]:
                assert place, line
                yield Example(place, line.removeprefix("= "))
                place = None
                continue
            case [start] if start.startswith("*"):
                table = start[1:]
            case ["table", family, table]:
                pass
            case ["chain", chain]:
                place = Place(backend, family, table, chain)
            case ["-A", appended, *_]:
                place = Place(backend, family, table, appended, line)
            case _:
                place = Place(backend, family, table, chain, line)
