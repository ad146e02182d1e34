# SPDX-License-Identifier: GPL-2.0
"""Lines that ran and lines that did not, file by file, as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_HEADING = ("file", "lines", "not run", "%", "which")


@dataclass(frozen=True)
class FileLines:
    """The lines of a file that are code."""

    name: str
    ran: frozenset[int]
    missed: frozenset[int]

    @property
    def count(self) -> int:
        """The number of these lines."""
        return len(self.ran) + len(self.missed)


def percentage(files: Iterable[FileLines]) -> float:
    """The percentage of lines that ran."""
    listed = list(files)
    count = sum(file.count for file in listed)
    return 100 * sum(len(file.ran) for file in listed) / count if count else 0.0


def ranges(file: FileLines) -> str:
    """The lines that did not run: ``7, 12-15``. Lines without code do not split a range."""
    parts: list[list[int]] = []
    for line in sorted(file.ran | file.missed):
        if line in file.ran:
            parts.append([])
        elif not parts:
            parts.append([line])
        else:
            parts[-1].append(line)
    pairs = ((part[0], part[-1]) for part in parts if part)
    return ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in pairs)


def table(title: str, files: Sequence[FileLines]) -> str:
    """A table of all files, with their total."""
    rows = [_HEADING]
    for file in sorted(files, key=lambda file: file.name):
        share = f"{percentage([file]):.0f}"
        rows.append((file.name, f"{file.count}", f"{len(file.missed)}", share, ranges(file)))
    count, missed = (sum(file.count for file in files), sum(len(file.missed) for file in files))
    rows.append((title, f"{count}", f"{missed}", f"{percentage(files):.1f}", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  "
        f"{row[3]:>{widths[3]}}  {row[4]}".rstrip()
        for row in rows
    )
