# SPDX-License-Identifier: GPL-2.0
"""Escaping of text from outside: the only place where it is done.

Unprivileged users choose names of devices, chains, namespaces and commands, and the kernel accepts
nearly any byte in them. Unescaped, they could send escape sequences to the reader's terminal, or
forge lines.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_BYTES: Final = range(0xDC80, 0xDD00)
#: a part of a path (see ``part``), and what is escaped in it
_PART: Final = re.compile(rb"(?:[^\\\0]|\\\\|\\x(?!00)[0-9a-fA-F]{2})*")
_IN_PART: Final = re.compile(rb"\\(?:x(..)|\\)")


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


def quoted(text: str) -> str:
    r"""A text of people, for fields with spaces between them: in quotes unless it is one word.

    A backslash becomes two, and a quote gets one, so that no two texts look alike.
    """
    if text and " " not in text and '"' not in text:
        return word(text)
    backslash = "\\"
    text = text.replace(backslash, 2 * backslash).replace('"', f'{backslash}"')
    return f'"{escape(text)}"'


def name_bytes(name: str) -> bytes:
    """The bytes that a name has in the kernel, of any bytes.

    Raises:
        ValueError: it has none: there is a lone surrogate in it.
    """
    return name.encode(errors="surrogateescape")


@lru_cache(maxsize=4096)
def part(name: str | bytes) -> str:
    r"""A name as one part of a path, and one word: ``\x2f`` for a slash, ``\x20`` for a space.

    ``part_name`` is the reverse, for any bytes.
    """
    text = name if isinstance(name, str) else name.decode(errors="surrogateescape")
    return "".join(c if c.isprintable() and c not in r"\/ " else _bytes(c) for c in text)


def _bytes(character: str) -> str:
    if character == "\\":
        return r"\\"
    return "".join(rf"\x{byte:02x}" for byte in name_bytes(character))


def part_name(text: str) -> str | None:
    r"""The name that a part of a path stands for: ``\x2f`` is a slash, ``\\`` a backslash.

    None if it stands for none: a backslash begins something else, or no name can hold it.
    """
    try:
        raw = name_bytes(text)
    except ValueError:
        return None
    if not _PART.fullmatch(raw):
        return None
    raw = _IN_PART.sub(lambda at: bytes.fromhex(at[1].decode()) if at[1] else b"\\", raw)
    return raw.decode(errors="surrogateescape")


def code(character: str) -> str:
    r"""A character by its number: ``\x1b``, ``\u202e``; or ``\n`` and the like."""
    number = ord(character)
    if number in _BYTES:
        return rf"\x{number & 0xFF:02x}"
    return character.encode("unicode_escape").decode("ascii")
