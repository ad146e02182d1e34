# SPDX-License-Identifier: GPL-2.0
"""Escaping of text from outside: the only place where it is done.

Unprivileged users choose names of devices, chains, namespaces and commands, and the kernel accepts
nearly any byte in them. Unescaped, they could send escape sequences to the reader's terminal, or
forge lines.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

_BYTES: Final = range(0xDC80, 0xDD00)


class Escaped(str):
    """Text in which everything from outside is escaped: it can be shown as it is."""

    __slots__ = ()


def escape(text: str) -> Escaped:
    r"""Text as one line of printable characters; others become ``\x1b``, ``\n``, ``\u202e``.

    A byte that is not UTF-8, a lone surrogate in Python, becomes ``\xff``.
    """
    if isinstance(text, Escaped):
        return text
    if not text.isprintable():
        text = "".join(c if c.isprintable() else code(c) for c in text)
    return Escaped(text)


@lru_cache(maxsize=4096)
def word(text: str | bytes) -> str:
    r"""A name as one word, for fields with spaces between them: ``\x20`` for a space.

    A backslash becomes two, so that no two names look alike.
    """
    if isinstance(text, bytes):
        text = text.decode(errors="surrogateescape")
    return escape(text.replace("\\", "\\\\")).replace(" ", r"\x20")


def code(character: str) -> str:
    r"""A character by its number: ``\x1b``, ``\u202e``; or ``\n`` and the like."""
    number = ord(character)
    if number in _BYTES:
        return rf"\x{number & 0xFF:02x}"
    return character.encode("unicode_escape").decode("ascii")
