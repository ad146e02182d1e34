# SPDX-License-Identifier: GPL-2.0
"""The document of owners has the table of the examples, and its own example works."""

from __future__ import annotations

import re
from pathlib import Path

from ipttctl.rules.generate import generated
from ipttctl.rules.owner_entries import OWN, read_own
from ipttctl.rules.owners import Owner, Owners, Place
from ipttctl.rules.owners_file import read_trusted
from tests.unit.ctl.rules.owners_table import owners_table

ROOT = Path(__file__).parents[4]
DOCUMENT = (ROOT / "docs/owners.md").read_text()


def test_the_document_has_the_table() -> None:
    assert owners_table() in DOCUMENT


def test_the_example_of_the_document_works(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert example
    file = tmp_path / "owners.yaml"
    file.write_text(example[1])
    file.chmod(0o600)
    place = Place("nft", "inet", "office", "guests", 'ip saddr 192.0.2.7 drop comment "ticket 17"')
    assert Owners.load(file).of(place) == Owner("office", "guests, ticket 17")


def test_what_is_loaded_is_what_the_file_says() -> None:
    assert OWN.read_text() == generated(), "run `make generate`"


def test_our_own_file_passes_the_checks_of_a_users(tmp_path: Path) -> None:
    copy = tmp_path / "owners.yaml"
    copy.write_text(OWN.with_suffix(".yaml").read_text())
    copy.chmod(0o600)
    entries = read_trusted(copy)
    assert len(entries) > 200
    assert entries == read_own()
