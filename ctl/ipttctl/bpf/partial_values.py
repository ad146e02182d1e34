# SPDX-License-Identifier: GPL-2.0
"""Numbers of 32 bits of which only some bits are known, and what classic BPF computes of them."""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

U32_MAX: Final = (1 << 32) - 1


class Alu(enum.IntEnum):
    """Operations (linux/bpf_common.h)."""

    ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR = range(0, 0xB0, 0x10)


class Test(enum.IntEnum):
    """Tests, and the jump without one."""

    JA, JEQ, JGT, JGE, JSET = range(0, 0x50, 0x10)


class PartialValue(NamedTuple):
    """A number: its bits that are known to be set, and which are known.

    ``transport``: whatever it is, it is where the transport header begins.
    """

    bits: int
    known: int
    transport: bool = False

    @property
    def whole(self) -> bool:
        """Whether all bits are known."""
        return self.known == U32_MAX

    @property
    def most(self) -> int:
        """The greatest number that it can be; ``bits`` is the least."""
        return self.bits | (~self.known & U32_MAX)


UNKNOWN: Final = PartialValue(0, 0)


def whole(value: int) -> PartialValue:
    """A number that is known, cut to 32 bits."""
    return PartialValue(value & U32_MAX, U32_MAX)


def computed(operation: int, a: PartialValue, b: PartialValue) -> PartialValue:
    """The result of an operation. A division by zero is none: nobody asks for it."""
    if (bitwise := _BITWISE.get(operation)) is not None:
        return bitwise(a, b)
    if operation in {Alu.LSH, Alu.RSH} and b.whole:
        return _shifted(operation, a, b.bits & 31)
    if operation in _ARITHMETIC and a.whole and (b.whole or operation == Alu.NEG):
        return whole(_ARITHMETIC[operation](a.bits, b.bits))
    return UNKNOWN


def tested(test: int, a: PartialValue, b: PartialValue) -> bool | None:
    """The outcome of a test; None if bits that are not known decide it."""
    return _TESTS[test](a, b)


def _and(a: PartialValue, b: PartialValue) -> PartialValue:
    zero = (a.known & ~a.bits) | (b.known & ~b.bits)
    return PartialValue(a.bits & b.bits, (a.known & b.known) | zero)


def _or(a: PartialValue, b: PartialValue) -> PartialValue:
    return PartialValue(a.bits | b.bits, (a.known & b.known) | a.bits | b.bits)


def _xor(a: PartialValue, b: PartialValue) -> PartialValue:
    known = a.known & b.known
    return PartialValue((a.bits ^ b.bits) & known, known)


def _shifted(operation: int, a: PartialValue, by: int) -> PartialValue:
    """A number that was shifted; the bits that come in are zero."""
    if operation == Alu.LSH:
        known = (a.known << by | ((1 << by) - 1)) & U32_MAX
        return PartialValue((a.bits << by) & U32_MAX, known)
    return PartialValue(a.bits >> by, a.known >> by | (U32_MAX & ~(U32_MAX >> by)))


def _equal(a: PartialValue, b: PartialValue) -> bool | None:
    if (a.bits ^ b.bits) & a.known & b.known:
        return False
    return True if a.whole and b.whole else None


def _have_common_bit(a: PartialValue, b: PartialValue) -> bool | None:
    if a.bits & b.bits:
        return True
    return None if a.most & b.most else False


def _is_greater(a: PartialValue, b: PartialValue) -> bool | None:
    if a.bits > b.most:
        return True
    return False if a.most <= b.bits else None


def _is_at_least(a: PartialValue, b: PartialValue) -> bool | None:
    less = _is_greater(b, a)
    return None if less is None else not less


_BITWISE: Final[Mapping[int, Callable[[PartialValue, PartialValue], PartialValue]]] = {
    Alu.AND: _and,
    Alu.OR: _or,
    Alu.XOR: _xor,
}
_ARITHMETIC: Final[Mapping[int, Callable[[int, int], int]]] = {
    Alu.ADD: operator.add,
    Alu.SUB: operator.sub,
    Alu.MUL: operator.mul,
    Alu.DIV: operator.floordiv,
    Alu.MOD: operator.mod,
    Alu.NEG: lambda a, _: -a,
}
_TESTS: Final[Mapping[int, Callable[[PartialValue, PartialValue], bool | None]]] = {
    Test.JEQ: _equal,
    Test.JSET: _have_common_bit,
    Test.JGT: _is_greater,
    Test.JGE: _is_at_least,
}
