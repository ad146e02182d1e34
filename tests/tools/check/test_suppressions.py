# SPDX-License-Identifier: GPL-2.0
"""Reasons for silencing a checker, and the check that finds missing ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.check.suppressions import complaints, unexplained

ROOT = Path(__file__).parents[3]


def test_every_suppression_here_has_its_reason() -> None:
    assert list(complaints(ROOT)) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.py", "x = f()  # noqa"),
        ("a.py", "x = f()  # noqa: E501"),
        ("a.py", "x = f()  # noqa: E501, W291"),
        ("a.py", "x = f()  # noqa: E501 -"),
        ("a.py", "x = f()  # type: ignore"),
        ("a.py", "x = f()  # type: ignore[arg-type, misc]"),
        ("a.py", "x = f()  # the reason stands before it  # type: ignore[misc]"),
        ("a.py", "# mypy: ignore-errors"),
        ("a.py", "# ruff: noqa"),
        ("a.py", "# ruff: noqa: E501"),
        ("a.py", "if never:  # pragma: no cover"),
        ("a.py", "x = [1]  # fmt: skip"),
        ("a.py", "import x  # pylint: disable=import-error,other"),
        ("a.c", "/* clang-format off */"),
        ("a.h", "// clang-format off"),
        ("a.c", "x(); // NOLINTNEXTLINE"),
        ("a.c", '#pragma GCC diagnostic ignored "-Wall"'),
        ("a.c", "x = (__force int)y;"),
        ("a.c", "x = (unsigned int __force)y;"),
        ("a.sh", "# shellcheck disable=SC2086"),
        ("a.sh", "# shellcheck source=/dev/null"),
        ("a.toml", '    "D105",'),
        ("a.toml", '"tests/**" = ["D103", "PLR0915"]'),
        ("a.toml", "ignore_missing_imports = true"),
        ("a.toml", '    "ignore::DeprecationWarning",'),
    ],
)
def test_silence_needs_a_reason(name: str, line: str) -> None:
    assert unexplained(name, f"\n{line}\n") == [2]
    explained = f"{line} /* told here */" if name[-1] in "ch" else f"{line} # told here"
    assert unexplained(name, f"\n{explained}\n") == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", 'x = "# noqa"\n'),
        ("a.py", '"""\n# type: ignore\n"""\n'),
        ("a.py", "# an ordinary comment\n"),
        ("a.c", "/* clang-format on */\n"),
        ("a.c", "#pragma clang loop unroll(disable)\n"),
        ("a.sh", "# shellcheck source=guest/prepare.sh\n"),
        ("a.toml", '"*" = ["py.typed"]\n'),
        ("a.txt", "# noqa\n"),
    ],
)
def test_what_silences_nothing_needs_none(name: str, text: str) -> None:
    assert unexplained(name, text) == []


def test_scripts_without_a_suffix_are_known_by_their_first_line() -> None:
    text = "#!/bin/bash\n# shellcheck disable=SC2086\n"
    assert unexplained("run", text) == [2]


def test_a_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.py").write_text("import os\nx = 1  # noqa: E501\n")
    [complaint] = complaints(tmp_path)
    assert complaint.startswith("below/a.py:2: ")
