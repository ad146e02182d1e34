# SPDX-License-Identifier: GPL-2.0
"""The packets of the tests with real tools."""

from __future__ import annotations

from pathlib import Path

from tests.kernel.tools.packets import table

ROOT = Path(__file__).resolve().parents[3]


def test_the_document_of_owners_has_the_table() -> None:
    document = ROOT / "docs" / "owners.md"
    assert table() in document.read_text(), f"{document.name} should say:\n{table()}"
