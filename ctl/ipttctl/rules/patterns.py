# SPDX-License-Identifier: GPL-2.0
"""Regular expressions from files, refused if a short text could keep them busy for minutes.

Python's matcher tries every way to divide a text among repeats, optional parts and alternatives. A
repeat whose body can itself match in several ways has exponentially many of these, so a body has to
be of one length. Everything else multiplies them: a repeat by the length of the text, unless what
follows cannot be its own, as in ``[^/]+/``. The product is limited. A reference
to a group counts as a repeat.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import log2
from re import _constants as op  # type: ignore[attr-defined]  # the parser has no public name
from re import _parser  # type: ignore[attr-defined]  # nor has this
from typing import Any, Final

from ipttctl.errors import UsageError

#: the length of a name or comment, of a rule's text, and the ways to divide each, as powers of two:
#: a pattern at the limit takes some 100 ms for a name and 2 s for a text, of the worst kind
_NAME_BITS: Final = 8
_TEXT_BITS: Final = 10
_MOST_BITS: Final = 18
_MOST_TEXT_BITS: Final = 14
#: what all texts begin with that match a pattern without alternatives
_BEGINNING: Final = re.compile(r"(?:[\w/-](?![*?{]))*")


@dataclass(frozen=True)
class Pattern:
    """A regular expression of a file, compiled when a text comes that it may match.

    Of hundreds most never meet one, and compiling each takes half a millisecond. ``anywhere`` is
    whether it matches part of a text, or has to match the whole.
    """

    text: str
    anywhere: bool = False

    @cached_property
    def compiled(self) -> re.Pattern[str]:
        """The compiled expression."""
        return re.compile(self.text)

    @cached_property
    def _beginning(self) -> str:
        if self.anywhere or "|" in self.text:
            return ""
        begins = _BEGINNING.match(self.text)
        return begins.group() if begins else ""

    def match(self, text: str) -> re.Match[str] | None:
        """The match in a text, if there is one."""
        if not text.startswith(self._beginning):
            return None
        return self.compiled.search(text) if self.anywhere else self.compiled.fullmatch(text)

    def check(self) -> None:
        """Check that it is a regular expression that has an end.

        Raises:
            UsageError: it is none, or one that can take too long.
        """
        try:
            tree = _parser.parse(self.text)
            _ = self.compiled
        except (re.error, RecursionError, OverflowError) as error:
            raise UsageError(f"'{self.text}' is no regular expression: {error}") from None
        length, most = (_TEXT_BITS, _MOST_TEXT_BITS) if self.anywhere else (_NAME_BITS, _MOST_BITS)
        if _ways(tree, (), length) > most:
            raise UsageError(
                f"'{self.text}' can take too long: it can divide a text in too many ways",
                "end repeats at a character that they exclude, as [^ ]+ does at a space",
            )


def _ways(items: Iterable[Any], behind: tuple[Any, ...], length: int) -> float:
    """The ways to divide a text of ``2 ** length`` characters among a sequence, as a power of two.

    ``behind`` is what follows the sequence.
    """
    sequence = [*items]
    ways = 0.0
    for position, (code, argument) in enumerate(sequence):
        following = (*sequence[position + 1 :], *behind)
        if code in _REPEATS:
            least, most, body = argument
            if most > 1:
                _check_body(body)
                if least != most and not _excludes(body, following):
                    ways += min(length, log2(most - least + 1))
            else:
                ways += (least == 0) + _ways(body, following, length)
        elif code is op.SUBPATTERN:
            ways += _ways(argument[-1], following, length)
        elif code is op.ATOMIC_GROUP:
            ways += _ways(argument, following, length)
        elif code is op.BRANCH:
            branches = argument[1]
            ways += log2(len(branches)) + max(_ways(b, following, length) for b in branches)
        elif code in {op.ASSERT, op.ASSERT_NOT}:
            ways += _ways(argument[1], (), length)
        elif code is op.GROUPREF:
            # it is compared at every place
            ways += length
        elif code is op.GROUPREF_EXISTS:
            raise UsageError("it has a condition on a group", "write both cases")
    return ways


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


def _excludes(body: Any, following: tuple[Any, ...]) -> bool:
    """Whether a repeat's body cannot match what follows, the end included, whatever that is."""
    if not following:
        return True
    if len(body) != 1:
        return False
    (code, argument), rest = following[0], following[1:]
    if code is op.LITERAL:
        return not _holds(body[0], argument)
    if code is op.SUBPATTERN:
        return _excludes(body, (*argument[-1], *rest))
    if code in _REPEATS:
        least, _, repeated = argument
        first = _excludes(body, (*repeated, *rest))
        return first and (least > 0 or _excludes(body, rest))
    return False


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


_REPEATS: Final = frozenset({op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT})

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
