# SPDX-License-Identifier: GPL-2.0
"""The command lines that the documents print."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
DOCUMENTS: Final = (
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
)
SOURCES: Final = sorted((REPOSITORY / "bpf").glob("*.[ch]"))

_COMPILERS: Final = {"clang", "cc", "gcc", "bpftool"}
_PROGRAM: Final = "ipttctl"


@dataclass(frozen=True)
class Line:
    """A printed line: its text, and the file that it is in."""

    file: Path
    text: str

    def __str__(self) -> str:
        return f"{self.file.name}: {self.text}"

    @property
    def words(self) -> list[str]:
        """The words of the command, without comments, redirections and a final ``&``."""
        words = shlex.split(self.text, comments=True)
        return [word for word in words if word != "&" and not word.startswith((">", "<"))]


def of_ipttctl() -> list[Line]:
    """The lines of ``ipttctl``."""
    return [line for line in _lines() if line.words[0] == _PROGRAM]


def of_compilers() -> list[Line]:
    """The lines that make programs."""
    return [line for line in _lines() if line.words[0] in _COMPILERS]


def _lines() -> Iterator[Line]:
    for document in DOCUMENTS:
        for text in _code(document.read_text()):
            if re.match(r"[a-z0-9]+( |$)", text):
                yield Line(document, text)
    for source in SOURCES:
        for text in re.findall(r"^ \*\t(.+)$", source.read_text(), re.MULTILINE):
            if text.split()[0] in _COMPILERS:
                yield Line(source, text)


def _code(text: str) -> Iterator[str]:
    """The lines of code in a document: indented ones, and those between fences of a shell."""
    fence = None
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fence = line.strip().removeprefix("```") if fence is None else None
        elif fence in {"", "sh", "console"} or (fence is None and line.startswith("    ")):
            code = line.strip()
            yield code.removeprefix("$ ")
