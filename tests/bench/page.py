# SPDX-License-Identifier: GPL-2.0
"""docs/performance.md, of what ``make bench`` has measured.

    python -m tests.bench.page DIRECTORY        # prints the page

The directory holds the output of each bench on each kernel, as BENCH.KERNEL; the text around it is
in page.md beside this file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from textwrap import indent
from typing import Final

_PLACE: Final = re.compile(r"^<(\w+)>$", re.MULTILINE)


def tables(directory: Path, bench: str) -> Iterator[str]:
    """The output of a bench on each kernel, with the day."""
    for file in sorted(directory.glob(f"{bench}.*"), key=_version):
        day = datetime.fromtimestamp(file.stat().st_mtime, UTC).date()
        yield indent(f"{file.read_text().rstrip()}\n{day}", "    ")


def _version(file: Path) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", file.name)]


def page(template: str, directory: Path) -> str:
    """The page: each line ``<BENCH>`` of the template stands for that bench's tables."""
    return _PLACE.sub(lambda place: "\n\n".join(tables(directory, place[1])), template)


def main() -> int:
    """Print the page."""
    template = Path(__file__).with_suffix(".md").read_text()
    print(page(template, Path(sys.argv[1])), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
