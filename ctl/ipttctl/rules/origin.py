# SPDX-License-Identifier: GPL-2.0
"""Tables and rules of iptables-nft, told apart from those that are written in nft's own syntax.

A rule is shown in the syntax of iptables only if iptables can say all of it. Otherwise iptables-nft
leaves out what it does not know, without a word: another rule would be shown.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from ipttctl.families import HOOKS, NfFamily
from ipttctl.rules.expressions import Expression, expressions
from ipttctl.rules.messages import BaseHook, MalformedError, RawChain, nested, number


class Syntax(enum.Enum):
    """The syntax of a rule's text."""

    IPTABLES = "iptables"
    """That of iptables and its kin: ``-A INPUT -p tcp -j ACCEPT``."""
    NFT = "nft"
    """That of nft: ``tcp dport 22 accept``."""
    RAW = "raw"
    """The kernel's expressions, where no program lists them."""


def _base(family: NfFamily, **priorities: int) -> Mapping[str, BaseHook]:
    return {
        name: BaseHook(HOOKS[family][name.lower()], priority)
        for name, priority in priorities.items()
    }


_IPV4: Final = NfFamily.IPV4

_IP: Final[Mapping[str, Mapping[str, BaseHook]]] = {
    "filter": _base(_IPV4, INPUT=0, FORWARD=0, OUTPUT=0),
    "nat": _base(_IPV4, PREROUTING=-100, INPUT=100, OUTPUT=-100, POSTROUTING=100),
    "mangle": _base(
        _IPV4, PREROUTING=-150, INPUT=-150, FORWARD=-150, OUTPUT=-150, POSTROUTING=-150
    ),
    "raw": _base(_IPV4, PREROUTING=-300, OUTPUT=-300),
    "security": _base(_IPV4, INPUT=50, FORWARD=50, OUTPUT=50),
}
_BRIDGE: Final[Mapping[str, Mapping[str, BaseHook]]] = {
    "filter": _base(NfFamily.BRIDGE, INPUT=-200, FORWARD=-200, OUTPUT=-200),
    "nat": _base(NfFamily.BRIDGE, PREROUTING=-300, OUTPUT=100, POSTROUTING=300),
    "broute": {"BROUTING": BaseHook(0, -470)},
}
_TABLES: Final[Mapping[int, Mapping[str, Mapping[str, BaseHook]]]] = {
    NfFamily.IPV4: _IP,
    NfFamily.IPV6: _IP,
    NfFamily.BRIDGE: _BRIDGE,
    NfFamily.ARP: {"filter": {"INPUT": BaseHook(0, 0), "OUTPUT": BaseHook(1, 0)}},
}


def of_iptables(family: int, table: str, chains: Iterable[RawChain]) -> bool:
    """Whether a table is one of iptables-nft (or ip6tables, arptables, ebtables).

    It has the name of one, all its base chains are those of iptables in name, hook and priority,
    and there is at least one.
    """
    known = _TABLES.get(family, {}).get(table)
    base = [chain for chain in chains if chain.hook is not None]
    return known is not None and bool(base) and all(known.get(c.name) == c.hook for c in base)


# --- rules ----------------------------------------------------------------------------------------
#
# A rule becomes a letter for each expression, and has to be what iptables-nft writes: each field at
# most once, compared in the way of its kind; matches and limits; a counter; what it does.

_SHAPE: Final = re.compile(
    r"(?:[IOBCP]=|[SDM123456789]&?=|F&=|T&=|[sd](?:=|-|><)|x|l)*"
    r"c(?:g|t|v)?"
)
_FIELD_LETTERS: Final = "IOBCPSDMFTsd123456789"

_META: Final = {6: "I", 7: "O", 16: "P", 3: "M", 17: "B", 18: "C"}
_PORTS: Final = {(2, 0, 2): "s", (2, 2, 2): "d"}
_TCP_FLAGS: Final = {(2, 13, 1): "T"}
_TCP: Final = 6
_UDP: Final = 17
_FRAGMENT_MASK: Final = b"\x1f\xff"

#: header, offset -> most bytes, letter; a prefix of an address is compared with fewer bytes
_FIELDS: Final[Mapping[int, Mapping[tuple[int, int], tuple[int, str]]]] = {
    NfFamily.IPV4: {(1, 6): (2, "F"), (1, 9): (1, "P"), (1, 12): (4, "S"), (1, 16): (4, "D")},
    NfFamily.IPV6: {(1, 8): (16, "S"), (1, 24): (16, "D")},
    NfFamily.BRIDGE: {(0, 0): (6, "D"), (0, 6): (6, "S"), (0, 12): (2, "P")},
    NfFamily.ARP: {
        (1, 0): (2, "1"),
        (1, 2): (2, "2"),
        (1, 4): (1, "3"),
        (1, 5): (1, "4"),
        (1, 6): (2, "5"),
        (1, 8): (6, "6"),
        (1, 14): (4, "7"),
        (1, 18): (6, "8"),
        (1, 24): (4, "9"),
    },
}
_WHOLE: Final = frozenset("FP12345")
_COMPARISONS: Final = {0: "=", 1: "=", 3: "<", 5: ">"}
_OTHERS: Final = {"match": "x", "target": "t", "counter": "c", "range": "-"}
_UNKNOWN: Final = "?"


def syntaxes(family: int, data: bytes, *, of_iptables: bool) -> tuple[Syntax, ...]:
    """The syntaxes that say all of a rule, the best first; ``of_iptables`` is its table's.

    nft has no words for matches and targets of xtables, and translates some of them wrongly.
    """
    try:
        found = expressions(data)
        ours = (Syntax.IPTABLES,) if of_iptables and _sayable(family, found) else ()
    except MalformedError:
        return (Syntax.RAW,)
    names = {e.name for e in found}
    nft = () if names & {"match", "target"} else (Syntax.NFT,)
    return (*ours, *nft, Syntax.RAW)


def _sayable(family: int, found: list[Expression]) -> bool:
    """Whether a rule has the shape of those that iptables-nft writes."""
    shape = ""
    protocol: int | None = None
    for expression in found:
        parts = nested(expression.data)
        letter = _letter(family, expression.name, parts, protocol)
        if letter == "=" and shape.endswith("P"):
            protocol = _compared(parts)
        elif letter == "&" and shape.endswith("F"):
            mask = bytes(nested(parts.get(4, b"")).get(1, b""))
            letter = "&" if mask == _FRAGMENT_MASK else _UNKNOWN
        shape += letter
    once = all(shape.count(letter) <= 1 for letter in _FIELD_LETTERS)
    return once and _SHAPE.fullmatch(shape) is not None


def _letter(family: int, name: str, parts: Mapping[int, memoryview], protocol: int | None) -> str:
    """The letter of an expression; another one of the same name may be unknown."""
    if name == "payload" and 5 not in parts:
        return _field(family, parts, protocol)
    write = _LETTERS.get(name)
    return write(parts) if write else _OTHERS.get(name, _UNKNOWN)


def _meta(parts: Mapping[int, memoryview]) -> str:
    return _UNKNOWN if 3 in parts else _META.get(number(parts.get(2, b"")), _UNKNOWN)


def _cmp(parts: Mapping[int, memoryview]) -> str:
    return _COMPARISONS.get(number(parts.get(2, b"")), _UNKNOWN)


def _bitwise(parts: Mapping[int, memoryview]) -> str:
    """A mask, and nothing else."""
    more = number(parts.get(6, b"")) or any(nested(parts.get(5, b"")).get(1, b""))
    return _UNKNOWN if more else "&"


def _limit(parts: Mapping[int, memoryview]) -> str:
    """A limit of packets, not of bytes, and not inverted."""
    return _UNKNOWN if number(parts.get(4, b"")) or number(parts.get(5, b"")) else "l"


def _log(parts: Mapping[int, memoryview]) -> str:
    """A log to a group: the target NFLOG."""
    return "g" if 1 in parts else _UNKNOWN


def _immediate(parts: Mapping[int, memoryview]) -> str:
    return "v" if 2 in nested(parts.get(2, b"")) else _UNKNOWN


_LETTERS: Final[Mapping[str, Callable[[Mapping[int, memoryview]], str]]] = {
    "meta": _meta,
    "cmp": _cmp,
    "bitwise": _bitwise,
    "limit": _limit,
    "log": _log,
    "immediate": _immediate,
}


def _field(family: int, parts: Mapping[int, memoryview], protocol: int | None) -> str:
    """The letter of a field of a packet; ports are fields only where the protocol has some."""
    header, offset, size = (number(parts.get(key, b"")) for key in (2, 3, 4))
    if protocol in {_TCP, _UDP} and (letter := _PORTS.get((header, offset, size))):
        return letter
    if protocol == _TCP and (letter := _TCP_FLAGS.get((header, offset, size))):
        return letter
    most, letter = _FIELDS.get(family, {}).get((header, offset), (0, _UNKNOWN))
    fits = size == most if letter in _WHOLE else 0 < size <= most
    return letter if fits else _UNKNOWN


def _compared(parts: Mapping[int, memoryview]) -> int | None:
    """The number that a comparison for equality compares with."""
    if number(parts.get(2, b"")):
        return None
    return number(nested(parts.get(3, b"")).get(1, b""))
