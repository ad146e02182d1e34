# SPDX-License-Identifier: GPL-2.0
"""Regular expressions from files, refused if a short text could keep them busy for minutes.

Python's matcher tries every way to divide a text among repeats. A repeat whose body can itself
match in several ways has exponentially many of these; each further repeat multiplies them by the
length of the text. So a body has to be of one length, and only a few repeats may overlap with what
follows them. A repeat that ends where the next character cannot be its own, as in ``[^/]+/``, is
divided in one way only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _constants as op  # type: ignore[attr-defined]  # the parser has no public name
from re import _parser  # type: ignore[attr-defined]
from typing import Any, Final

from ipttctl.errors import UsageError

#: repeats that run until the text ends, or as good as that
_LONG: Final = 64
#: most repeats that overlap with what follows: 256 characters take 30 ms then, 1 KiB 2 s
_MOST_OVERLAPS: Final = 3
_MOST_OVERLAPS_IN_TEXT: Final = 2


def compile_pattern(pattern: str, *, anywhere: bool = False) -> re.Pattern[str]:
    """Compile an expression for ``fullmatch``, or ``search`` if it may match ``anywhere``.

    Raises:
        UsageError: it is no regular expression, or one that can take too long.
    """
    try:
        compiled = re.compile(pattern)
        tree = _parser.parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"'{pattern}' is no regular expression: {error}") from None
    most = _MOST_OVERLAPS_IN_TEXT if anywhere else _MOST_OVERLAPS
    if _overlaps(tree, ()) > most:
        raise UsageError(
            f"'{pattern}' can take too long: more than {most} repeats may end anywhere",
            "end them at a character that they exclude, as [^ ]+ does at a space",
        )
    return compiled


def _overlaps(items: Iterable[Any], behind: tuple[Any, ...]) -> int:
    """The number of repeats in a sequence that may overlap with what follows them.

    ``behind`` is what follows the sequence. Nothing follows the last repeat of all: it takes the
    rest, or what is left over decides at once.
    """
    sequence = [*items]
    count = 0
    for position, (code, argument) in enumerate(sequence):
        following = (*sequence[position + 1 :], *behind)
        if code in {op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT}:
            least, most, body = argument
            if most > 1:
                _check_body(body)
            if most == 1:
                count += _overlaps(body, following)
            elif least != most and most > _LONG and code is not op.POSSESSIVE_REPEAT:
                count += bool(following) and not _excludes(body, following[0])
        elif code is op.SUBPATTERN:
            count += _overlaps(argument[-1], following)
        elif code is op.ATOMIC_GROUP:
            count += _overlaps(argument, following)
        elif code is op.BRANCH:
            count += max(_overlaps(branch, following) for branch in argument[1])
        elif code in {op.ASSERT, op.ASSERT_NOT}:
            count += _overlaps(argument[1], (*argument[1], *following))
        elif code in {op.GROUPREF, op.GROUPREF_EXISTS}:
            raise UsageError("it refers to a group of its own", "write what it repeats")
    return count


def _check_body(body: Any) -> None:
    """Check that a repeat's body is of one length and has no alternatives."""
    shortest, longest = body.getwidth()
    if shortest != longest or any(code is op.BRANCH for code, _ in _all(body)):
        raise UsageError(
            "a repeat in it has a body of several lengths, or with alternatives: it can take too "
            "long",
            "repeat one character of a class, as [a-z/]+ does",
        )


def _all(items: Iterable[Any]) -> Iterable[Any]:
    """The items of a sequence, those in groups included."""
    for code, argument in items:
        yield code, argument
        if code is op.SUBPATTERN:
            yield from _all(argument[-1])
        elif code is op.ATOMIC_GROUP:
            yield from _all(argument)


def _excludes(body: Any, following: Any) -> bool:
    """Whether a repeat's body cannot match the character that follows."""
    code, argument = following
    if code is op.SUBPATTERN and len(argument[-1]):
        return _excludes(body, argument[-1][0])
    if code is op.AT:
        return argument in {op.AT_END, op.AT_END_STRING}
    if code is not op.LITERAL or len(body) != 1:
        return False
    return not _holds(body[0], argument)


def _holds(item: Any, character: int) -> bool:
    """Whether an item of one character can match a character; true if that is unclear."""
    code, argument = item
    if code is op.LITERAL:
        return bool(argument == character)
    if code is op.NOT_LITERAL:
        return bool(argument != character)
    if code is not op.IN:
        return True
    negated = argument[0][0] is op.NEGATE
    return negated is not any(_in_set(member, character) for member in argument)


def _in_set(member: Any, character: int) -> bool:
    code, argument = member
    if code is op.LITERAL:
        return bool(argument == character)
    if code is op.RANGE:
        return bool(argument[0] <= character <= argument[1])
    if code is op.CATEGORY:
        return bool(_CATEGORIES[argument](chr(character)))
    return False


_CATEGORIES: Final = {
    category: re.compile(text).match
    for category, text in (
        (op.CATEGORY_DIGIT, r"\d"),
        (op.CATEGORY_NOT_DIGIT, r"\D"),
        (op.CATEGORY_SPACE, r"\s"),
        (op.CATEGORY_NOT_SPACE, r"\S"),
        (op.CATEGORY_WORD, r"\w"),
        (op.CATEGORY_NOT_WORD, r"\W"),
    )
}
