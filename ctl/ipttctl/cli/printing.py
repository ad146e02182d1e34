# SPDX-License-Identifier: GPL-2.0
"""Lines of standard output and of standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TextIO

from ipttctl.escape import escape


def note(text: str) -> None:
    """Print a remark that is not data, on one line of standard error, escaped."""
    print(escape(text), file=sys.stderr, flush=True)


def lines(texts: Iterable[str], to: TextIO | None = None) -> None:
    """Print lines, to standard output by default, and flush them.

    They are escaped here, unless they are ``Escaped``: no text from outside ends a line or gets
    to the terminal as a command.
    """
    file = to or sys.stdout
    # one text costs a third of what many cost
    if whole := "\n".join(map(escape, texts)):
        file.write(f"{whole}\n")
    file.flush()
