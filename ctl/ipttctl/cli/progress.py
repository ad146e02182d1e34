# SPDX-License-Identifier: GPL-2.0
"""A line that says what a command waits for, on a terminal."""

from __future__ import annotations

import sys
import time
from typing import Final

from ipttctl.escape import escape

_INTERVAL: Final = 0.2
_CLEAR: Final = "\r\033[K"


class ProgressLine:
    """The last line of standard error while it is a terminal; otherwise nothing.

    Whoever prints anything else clears it first.
    """

    def __init__(self) -> None:
        """Begin with no line."""
        self._terminal = sys.stderr.isatty()
        self._shown = ""
        self._since = 0.0

    def show(self, text: str | None) -> None:
        """Show a text in place of the one before, not more often than people can read it."""
        if text is None:
            self.clear()
        if not self._terminal or not text or text == self._shown:
            return
        now = time.monotonic()
        if self._shown and now - self._since < _INTERVAL:
            return
        self._shown, self._since = text, now
        print(f"{_CLEAR}{escape(text)}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the line."""
        if self._shown:
            self._shown = ""
            print(_CLEAR, end="", file=sys.stderr, flush=True)
