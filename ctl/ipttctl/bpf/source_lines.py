# SPDX-License-Identifier: GPL-2.0
"""Which line of a C source an instruction of its programs comes from.

Asked only of a program that the verifier refuses: it takes another compilation, with which bpfcc
prints clang's debug information.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ipttctl.bpf import bpfcc
from ipttctl.errors import ProgramError

#: behind these a line can be numbered anew, whatever it is part of: bpfcc adds lines of its own
_ENDS: Final = (b";", b"{", b"}")
_PROGRAM: Final = re.compile(r"^Disassembly of function (\w+)$")
_LINE: Final = re.compile(r"^;.* // Line\s+(\d+)$")
_INSTRUCTION: Final = re.compile(r"^\s+(\d+):\t")


@dataclass(frozen=True)
class SourceLine:
    """A line of a source, by its number, and what stands there."""

    number: int
    text: str


def line_of(
    source: Path, include: Sequence[Path], program: str, instruction: int
) -> SourceLine | None:
    """The line that an instruction of a program comes from; None where nothing tells.

    For what an inline function of a header does it is a line of the source near its call.
    """
    with suppress(OSError, ProgramError):
        text = source.read_bytes()
        options = [f"-I{directory.absolute()}" for directory in (source.parent, *include)]
        printed = bpfcc.debug_information(source, _numbered(text), options)
        found = [number for at, number in _numbers(printed, program) if at <= instruction]
        lines = text.decode(errors="replace").splitlines()
        if found and 0 < found[-1] <= len(lines):
            return SourceLine(found[-1], lines[found[-1] - 1].strip())
    return None


def _numbered(text: bytes) -> bytes:
    """A source that says the numbers of its lines, as far as that can be done without parsing."""
    lines, in_comment = [], False
    for number, line in enumerate(text.split(b"\n"), 1):
        lines.append(line)
        begins, ends = line.rfind(b"/*"), line.rfind(b"*/")
        if begins != ends:
            in_comment = begins > ends
        if not in_comment and line.rstrip().endswith(_ENDS):
            lines.append(b"#line %d" % (number + 1))
    return b"\n".join(lines)


def _numbers(printed: str, program: str) -> Iterator[tuple[int, int]]:
    """The instructions of a program with which lines begin, in order, and the lines' numbers."""
    inside, number = False, None
    for line in printed.splitlines():
        if match := _PROGRAM.match(line):
            inside, number = match[1] == program, None
        elif inside and (match := _LINE.match(line)):
            number = int(match[1])
        elif inside and number is not None and (match := _INSTRUCTION.match(line)):
            yield int(match[1]), number
            number = None
