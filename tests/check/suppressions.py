# SPDX-License-Identifier: GPL-2.0
"""Find places that silence a checker without a reason on the same line."""

from __future__ import annotations

import io
import os
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ipttproto.generate import generated

_SKIPPED: Final = {".build", ".git", "__pycache__", ".clang-format"}

# Each pattern matches the suppression itself; the rest of the line must give a reason.
_PYTHON: Final = re.compile(
    r"#\s*(?:noqa(?::\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)?"
    r"|type:\s*ignore(?:\[[\w, -]*\])?"
    r"|mypy:\s*[\w-]+(?:=\S+)?"
    r"|ruff:\s*noqa(?::\s*[A-Z]+\d+)*"
    r"|fmt:\s*(?:off|skip)"
    r"|pragma:\s*no\s+(?:cover|branch)"
    r"|pylint:\s*disable=[\w,-]+)"
)
_C: Final = re.compile(
    r"(?:/[/*]\s*(?:clang-format off|NOLINT\w*)(?:\s*\*/)?"
    r"|#\s*pragma\s+(?:GCC|clang)\s+diagnostic\s+ignored\s+\S+"
    r"|\(\s*(?:\w+\s+)*__force\b[^)]*\))"
)
_SHELL: Final = re.compile(r"#\s*shellcheck\s+(?:disable=[\w,]+|source=/dev/null)")
# Whole lines of the configuration: rules that are off everywhere or for some files.
_CONFIGURED: Final = re.compile(
    r"^\s*(?:\"[A-Z]+\d+\",|\"\S+\"\s*=\s*\[\"[A-Z]+\d.*\]|ignore_\w+\s*=\s*\w+|\"ignore:\S+\",)(?=\s*(?:#|$))"
)
_REASON: Final = re.compile(r"\w{2,}")

_BY_SUFFIX: Final = {".c": _C, ".h": _C, ".sh": _SHELL, ".toml": _CONFIGURED}


def _python_comments(text: str) -> Iterator[tuple[int, str]]:
    # strings may mention such comments
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _unexplained(line: str, pattern: re.Pattern[str]) -> bool:
    end = 0
    for found in pattern.finditer(line):
        end = found.end()
    return bool(end) and not _REASON.search(line, end)


def unexplained(name: str, text: str) -> list[int]:
    """The numbers of the lines of a file that silence a checker without a reason."""
    suffix = Path(name).suffix
    if suffix == ".py":
        return [n for n, comment in _python_comments(text) if _unexplained(comment, _PYTHON)]
    pattern = _BY_SUFFIX.get(suffix) or (_SHELL if text.startswith("#!/bin/bash") else None)
    if pattern is None:
        return []
    return [n for n, line in enumerate(text.splitlines(), 1) if _unexplained(line, pattern)]


def _files(root: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if name not in _SKIPPED]
        yield from (Path(directory, name) for name in files if name not in _SKIPPED)


def complaints(root: Path) -> Iterator[str]:
    """Every place below ``root`` that silences a checker without a reason on its line."""
    made = generated()
    for path in sorted(_files(root)):
        name = str(path.relative_to(root))
        if name not in made and path.is_file():
            text = path.read_text(errors="replace")
            for number in unexplained(name, text):
                yield f"{name}:{number}: a checker is silenced without a reason on the line"
