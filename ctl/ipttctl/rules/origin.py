# SPDX-License-Identifier: GPL-2.0
"""Tables and rules of iptables-nft, told apart from those that are written in nft's own syntax.

A rule is shown in the syntax of iptables only if iptables can say all of it. Otherwise iptables-nft
leaves out what it does not know, without a word, or shows the nearest value that it has words for:
another rule would be shown.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

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
#: bytes of values that are no field of a packet
_SIZES: Final = {"P": 1, "M": 4}
#: hardware type and lengths of addresses: arptables leaves these out, and others than these it
#: leaves out or shows as any
_ARP_OF_ETHERNET: Final = {"1": 1, "3": 6, "4": 4}
_NAME_SIZE: Final = 16
_DAY: Final = 24 * 60 * 60
_SMALLER_UNITS: Final = (60 * 60, 60, 1)
#: the unit of time of limits (XT_LIMIT_SCALE): so many are a second
_LIMIT_SCALE: Final = 10_000

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


class _Part(NamedTuple):
    """An expression as its letter, with what its value has to be like.

    ``value`` is compared with, is a mask, or are both ends of a range; ``size`` is that of what a
    field loads, 0 for one of any size.
    """

    letter: str
    value: bytes = b""
    size: int = 0
    equal: bool = True


def _sayable(family: int, found: list[Expression]) -> bool:
    """Whether a rule has the shape of those that iptables-nft writes, and values of such."""
    sequence: list[_Part] = []
    protocol: int | None = None
    for expression in found:
        part = _part(family, expression.name, nested(expression.data), protocol)
        if part.letter == "=" and sequence and sequence[-1].letter == "P":
            protocol = number(part.value) if part.equal else None
        sequence.append(part)
    shape = "".join(part.letter for part in sequence)
    once = all(shape.count(letter) <= 1 for letter in _FIELD_LETTERS)
    return once and _SHAPE.fullmatch(shape) is not None and all(map(_fits, _fields(sequence)))


def _part(family: int, name: str, parts: Mapping[int, memoryview], protocol: int | None) -> _Part:
    letter = _letter(family, name, parts, protocol)
    if letter in _FIELD_LETTERS:
        size = number(parts.get(4, b"")) if name == "payload" else _SIZES.get(letter, 0)
        return _Part(letter, size=size)
    operator = number(parts.get(2, b""))
    if name == "cmp":
        return _Part(letter, _value(parts, 3), equal=operator != 1)
    if name == "bitwise":
        return _Part(letter, _value(parts, 4))
    if name == "range":
        return _Part(letter, _value(parts, 3) + _value(parts, 4), equal=operator != 1)
    return _Part(letter)


def _value(parts: Mapping[int, memoryview], key: int) -> bytes:
    return bytes(nested(parts.get(key, b"")).get(1, b""))


def _fields(sequence: Iterable[_Part]) -> Iterator[tuple[_Part, list[_Part]]]:
    """The fields of a rule, each with its mask and comparisons."""
    field: tuple[_Part, list[_Part]] | None = None
    for part in sequence:
        if part.letter in _FIELD_LETTERS:
            if field:
                yield field
            field = part, []
        elif field and part.letter in "&=-<>":
            field[1].append(part)
    if field:
        yield field


def _fits(field: tuple[_Part, list[_Part]]) -> bool:
    """Whether iptables has words for what a field is compared with."""
    (letter, _, size, _), compared = field
    values = [part.value for part in compared]
    if letter in "sd" and "=" not in {part.letter for part in compared}:
        return _is_port_range(b"".join(values))
    if letter in "IOBC":
        return _is_interface(values[0])
    return (not size or all(len(value) == size for value in values)) and _is_number(
        letter, values, equal=compared[-1].equal
    )


def _is_number(letter: str, values: list[bytes], *, equal: bool) -> bool:
    """Whether iptables shows a number, and its mask before it, as they are."""
    if letter == "P":
        return any(values[0])
    if letter in _ARP_OF_ETHERNET:
        return equal and number(values[0]) == _ARP_OF_ETHERNET[letter]
    if letter == "F":
        return values == [_FRAGMENT_MASK, bytes(2)]
    # bits that the mask hides would be taken for some that are compared
    return len(values) < 2 or not number(values[1]) & ~number(values[0])


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
    """A limit of packets, not of bytes, and not inverted, of a rate that iptables can say."""
    if number(parts.get(4, b"")) or number(parts.get(5, b"")):
        return _UNKNOWN
    rate, unit = number(parts.get(1, b"")), number(parts.get(2, b""))
    return "l" if _is_rate(rate, unit) else _UNKNOWN


def _is_rate(rate: int, unit: int) -> bool:
    """Whether iptables shows packets in some seconds as they are.

    It keeps the time between two packets as a whole number, and shows the rate that follows.
    """
    if not rate or not 0 < unit <= _DAY or not (period := _LIMIT_SCALE * unit // rate):
        return False
    shown = _DAY
    for smaller in _SMALLER_UNITS:
        whole, rest = divmod(_LIMIT_SCALE * smaller, period)
        if whole < rest or not whole:
            break
        shown = smaller
    return _LIMIT_SCALE * shown // period * unit == rate * shown


def _is_interface(name: bytes) -> bool:
    """Whether a name can be one of iptables: the beginning of names, or a whole one with its NUL.

    A whole one that ends in + is shown as the beginning of others. Blanks end it.
    """
    whole = name.rstrip(b"\0")
    if len(name) > _NAME_SIZE or not whole or not all(0x20 < byte != 0x7F for byte in whole):
        return False
    return len(whole) == len(name) or not whole.endswith(b"+")


def _is_port_range(ends: bytes) -> bool:
    """Whether two ports are a range that is not all of them, which iptables leaves out."""
    low, high = number(ends[:2]), number(ends[2:])
    return len(ends) == 4 and low <= high and (low, high) != (0, 0xFFFF)


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
