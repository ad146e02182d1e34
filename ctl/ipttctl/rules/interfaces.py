# SPDX-License-Identifier: GPL-2.0
"""Interfaces in rules of nftables by their index, which is what the kernel compares.

nft shows ``iif 5`` with the name that interface 5 has while it lists. An interface may get another
name, and another one that name, without a change of the ruleset.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from ipttctl.escape import Escaped
from ipttctl.rules.expressions import Expression, expressions
from ipttctl.rules.messages import MalformedError, nested, number

#: keys of meta that are an index
_META: Final = {4: "iif", 5: "oif", 33: "sdif"}
_FIB_OIF: Final = 1
_FIB_PRESENT: Final = 1 << 5
#: expressions that take an index from a register
_TO_DEVICE: Final = frozenset({"fwd", "dup"})
_COMPARED: Final = re.compile(r'(?<!\S)(iif|oif|sdif) (!= )?(?:"\S+"|\d+)(?!\S)')


class _Comparison(NamedTuple):
    """A comparison of an index, as nft words it: ``iif != 5``."""

    key: str
    operator: str
    number: int

    def __str__(self) -> str:
        return f"{self.key} {self.operator}{self.number}"


def by_index(text: Escaped, data: bytes) -> Escaped | None:
    """The text of a rule in nft's syntax with indexes for names; ``data`` are its expressions.

    Returns None where a name is in another place than a comparison, as in a set.
    """
    try:
        compared = [*_comparisons(expressions(data))]
    except MalformedError:
        return None
    found = [*_COMPARED.finditer(text)] if compared else []
    if None in compared or [(c.key, c.operator) for c in compared if c] != [
        (match[1], match[2] or "") for match in found
    ]:
        return None
    words = iter(compared)
    return Escaped(_COMPARED.sub(lambda _: str(next(words)), text)) if compared else text


def _comparisons(found: list[Expression]) -> Iterator[_Comparison | None]:
    """The comparisons of indexes; None for each other use."""
    key, register = "", -1
    for expression in found:
        parts = nested(expression.data)
        if key:
            yield _comparison(key, register, expression.name, parts)
        elif expression.name in _TO_DEVICE and (expression.name == "fwd" or 2 in parts):
            yield None
        key, register = _loaded(expression.name, parts), number(parts.get(1, b""))
    if key:
        yield None


def _loaded(name: str, parts: Mapping[int, memoryview]) -> str:
    """The word for the index that an expression loads; empty if it loads none."""
    what = number(parts.get(2, b""))
    if name == "meta" and 3 not in parts:
        return _META.get(what, "")
    present = number(parts.get(3, b"")) & _FIB_PRESENT
    return "oif" if name == "fib" and what == _FIB_OIF and not present else ""


def _comparison(
    key: str, register: int, name: str, parts: Mapping[int, memoryview]
) -> _Comparison | None:
    """The comparison right after an index was loaded, of all of it with another one."""
    operator = {0: "", 1: "!= "}.get(number(parts.get(2, b"")))
    index = bytes(nested(parts.get(3, b"")).get(1, b""))
    if (
        name != "cmp"
        or operator is None
        or number(parts.get(1, b"")) != register
        or len(index) != 4
    ):
        return None
    return _Comparison(key, operator, int.from_bytes(index, sys.byteorder))
