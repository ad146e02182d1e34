# SPDX-License-Identifier: GPL-2.0
"""Classic filters run on packets of which only some bits are known.

A filter takes such a packet, or does not, or the bits that are known do not tell. No bit is
guessed: where a test depends on one that is not known, the run goes on both ways.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from ipttctl.bpf.filters import instructions
from ipttctl.bpf.partial_values import (
    U32_MAX,
    UNKNOWN,
    Alu,
    PartialValue,
    Test,
    computed,
    tested,
    whole,
)
from ipttctl.errors import ProgramError


# the parts of an instruction's code (linux/bpf_common.h)
class _Class(enum.IntEnum):
    LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)


class _Mode(enum.IntEnum):
    IMM, ABS, IND, MEM, LEN, MSH = range(0, 0xC0, 0x20)


_X: Final = 0x08
_RET_A: Final = 0x10
_TXA: Final = 0x80
_SIZES: Final = {0x00: 4, 0x08: 2, 0x10: 1}
_MODES: Final[Mapping[int, set[_Mode]]] = {
    _Class.LD: {_Mode.IMM, _Mode.ABS, _Mode.IND, _Mode.MEM, _Mode.LEN},
    _Class.LDX: {_Mode.IMM, _Mode.MEM, _Mode.LEN, _Mode.MSH},
}
_CELLS: Final = 16
_WORD: Final = 32
_LEAST_HEADER: Final = 20
_ELSEWHERE: Final = 0xFFE00000
"""Offsets from here on are no places behind the IP header (SKF_LL_OFF and the like)."""

_NEGATIVE: Final = 1 << 31
"""Numbers from here on are meant to be less than 0: offsets and jumps that lead back."""

_MOST_STEPS: Final = 1 << 14
"""Most instructions of a run; of one that would take more, the outcome is not told."""

_TRANSPORT: Final = PartialValue(0, 0, transport=True)
_ZERO: Final = whole(0)


@dataclass(frozen=True)
class PartlyKnown:
    """A packet of ``length`` bytes, from its IP header on.

    The first of them are ``bits``, of which those in ``known``, which is as long, are known.
    ``behind`` are bits of the transport header, and which are known, where the length of the
    header of IPv4 before it is not known.
    """

    length: int
    bits: bytes
    known: bytes
    behind: tuple[bytes, bytes] | None = None


@dataclass(slots=True)
class _State:
    """The place of the next instruction, the registers, and the cells of memory."""

    at: int = 0
    a: PartialValue = _ZERO
    x: PartialValue = _ZERO
    cells: tuple[PartialValue, ...] = (_ZERO,) * _CELLS

    def put(self, value: PartialValue, *, x: bool) -> None:
        """Load a register."""
        if x:
            self.x = value
        else:
            self.a = value


class _Instruction(NamedTuple):
    code: int
    yes: int
    no: int
    k: int


class FilterRun:
    """A classic filter, to be run on any number of packets."""

    def __init__(self, code: bytes, text: str) -> None:
        """Take an array of ``struct sock_filter`` that was made of a text.

        Raises:
            ProgramError: the kernel would not take it.
        """
        self._code = [_Instruction(*one) for one in instructions(code)]
        for at, one in enumerate(self._code):
            left = len(self._code) - at - 1
            if _goes_back(one):
                raise ProgramError(
                    f"filter '{text}' has a loop, which no kernel takes",
                    "name the headers without 'protochain'",
                )
            if not _makes_sense(one, left):
                raise ProgramError(
                    f"filter '{text}': the kernel does not take instruction {at} ({_words(one)})",
                    "see: man 7 pcap-filter",
                )
        if not self._code or self._code[-1].code & 7 != _Class.RET:
            raise ProgramError(
                f"filter '{text}' does not end with a return", "end it with one, such as 6 0 0 1"
            )

    def takes(self, packet: PartlyKnown) -> bool | None:
        """Whether the filter takes a packet; None: what is known of it does not tell."""
        run = _Run(packet)
        states = [_State()]
        left = _MOST_STEPS
        while states and len(run.outcomes) < 2:
            state = states.pop()
            while left and run.step(self._code[state.at], state, states):
                left -= 1
            if not left:
                return None
        return run.outcomes.pop() if len(run.outcomes) == 1 else None


def _goes_back(one: _Instruction) -> bool:
    return one.code == _Class.JMP | Test.JA and one.k >= _NEGATIVE


def _words(one: _Instruction) -> str:
    return " ".join(map(str, one))


def _makes_sense(one: _Instruction, left: int) -> bool:
    """Whether an instruction is one, with ``left`` others behind it."""
    kind, operation = one.code & 7, one.code & 0xF0
    match kind:
        case _Class.LD | _Class.LDX:
            mode = one.code & 0xE0
            cell = mode != _Mode.MEM or one.k < _CELLS
            return mode in _MODES[kind] and one.code & 0x18 in _SIZES and cell
        case _Class.ST | _Class.STX:
            return one.k < _CELLS
        case _Class.ALU:
            by_zero = operation in {Alu.DIV, Alu.MOD} and not one.code & _X and not one.k
            shift = operation in {Alu.LSH, Alu.RSH} and not one.code & _X and one.k >= _WORD
            return operation <= Alu.XOR and not by_zero and not shift
        case _Class.JMP:
            far = one.k if operation == Test.JA else max(one.yes, one.no)
            return operation <= Test.JSET and far < left
    return True


class _Run:
    """A run of a filter on a packet, with the outcomes that it has had so far."""

    def __init__(self, packet: PartlyKnown) -> None:
        self._packet = packet
        self._parted: set[tuple[object, ...]] = set()
        self.outcomes: set[bool] = set()

    def step(self, one: _Instruction, state: _State, others: list[_State]) -> bool:
        """Go on by an instruction, unless it is the last.

        If nobody knows which way a jump goes, the other one is added to ``others``.
        """
        state.at += 1
        match one.code & 7:
            case _Class.LD | _Class.LDX as kind:
                loaded = self._loaded(one, state)
                if loaded is None:
                    self.outcomes.add(False)
                    return False
                state.put(loaded, x=kind == _Class.LDX)
            case _Class.ST | _Class.STX as kind:
                value = state.a if kind == _Class.ST else state.x
                state.cells = (*state.cells[: one.k], value, *state.cells[one.k + 1 :])
            case _Class.ALU:
                return self._compute(one, state)
            case _Class.JMP:
                return self._jump(one, state, others)
            case _Class.RET:
                self._return(state.a if one.code & 0x18 == _RET_A else whole(one.k))
                return False
            case _ if one.code & 0xF8 == _TXA:
                state.a = state.x
            case _:
                state.x = state.a
        return True

    def _return(self, value: PartialValue) -> None:
        if value.most:
            self.outcomes.add(True)
        if not value.bits:
            self.outcomes.add(False)

    def _compute(self, one: _Instruction, state: _State) -> bool:
        operation, operand = one.code & 0xF0, _operand(one, state)
        if operation in {Alu.DIV, Alu.MOD} and not operand.bits:
            # what divides by zero takes no packet
            self.outcomes.add(False)
            if operand.whole:
                return False
        state.a = computed(operation, state.a, operand)
        return True

    def _jump(self, one: _Instruction, state: _State, others: list[_State]) -> bool:
        test = one.code & 0xF0
        if test == Test.JA:
            state.at += one.k
            return True
        answer = tested(test, state.a, _operand(one, state))
        if answer is None:
            # ways that meet again go on alike
            here = (state.at, state.a, state.x, state.cells)
            if here in self._parted:
                return False
            self._parted.add(here)
            others.append(replace(state, at=state.at + one.no))
        state.at += one.no if answer is False else one.yes
        return True

    def _loaded(self, one: _Instruction, state: _State) -> PartialValue | None:
        """The value that is loaded; None if it is not in the packet, which ends the run."""
        match one.code & 0xE0:
            case _Mode.IMM:
                return whole(one.k)
            case _Mode.MEM:
                return state.cells[one.k]
            case _Mode.LEN:
                return whole(self._packet.length)
            case _Mode.MSH:
                return self._header_length(one.k)
        return self._bytes(one, state)

    def _header_length(self, at: int) -> PartialValue | None:
        if at == 0 and self._packet.behind is not None:
            return _TRANSPORT
        first = self._at(at, 1)
        low = first and computed(Alu.AND, first, whole(0xF))
        return low and computed(Alu.LSH, low, whole(2))

    def _bytes(self, one: _Instruction, state: _State) -> PartialValue | None:
        size = _SIZES[one.code & 0x18]
        if one.code & 0xE0 == _Mode.ABS:
            return self._at(one.k, size)
        if state.x.transport and self._packet.behind is not None:
            return self._behind(self._packet.behind, one.k, size)
        if state.x.whole:
            return self._at((state.x.bits + one.k) & U32_MAX, size)
        return self._perhaps()

    def _at(self, at: int, size: int) -> PartialValue | None:
        packet = self._packet
        if at >= _ELSEWHERE:
            return self._perhaps()
        if at + size > packet.length:
            return None
        return _value(packet.bits, packet.known, at, size)

    def _behind(self, header: tuple[bytes, bytes], at: int, size: int) -> PartialValue | None:
        """Bytes of the transport header, which may begin anywhere behind the least IP header."""
        if at >= _NEGATIVE:
            # it may lie before that header: sums have 32 bits
            return self._perhaps()
        if at + size > self._packet.length - _LEAST_HEADER:
            return None
        if at + size > len(header[0]):
            return self._perhaps()
        return _value(*header, at, size)

    def _perhaps(self) -> PartialValue:
        """A value that may be in the packet, or not."""
        self.outcomes.add(False)
        return UNKNOWN


def _value(bits: bytes, known: bytes, at: int, size: int) -> PartialValue:
    """Some bytes; those that are not there are not known."""
    found, which = (int.from_bytes(one[at : at + size].ljust(size, b"\0")) for one in (bits, known))
    # a register has zeros above them
    above = U32_MAX & ~((1 << 8 * size) - 1)
    return PartialValue(found & which, which | above)


def _operand(one: _Instruction, state: _State) -> PartialValue:
    return state.x if one.code & _X else whole(one.k)
