# SPDX-License-Identifier: GPL-2.0
"""The line of a C source that an instruction comes from.

Needed only when the verifier refuses a program: it takes another compilation, in which bpfcc prints
clang's debug information.
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

#: after these a #line directive is safe anywhere; bpfcc's own lines would shift the numbers
_ENDS: Final = (b";", b"{", b"}")
#: a function's head with the bracket, and code on the same line; bpfcc adds lines in front of both
_WITH_CODE: Final = re.compile(rb"""(\w[\w\s*]*\([^(){};"'/#]*\)\s*\{)(.*\S.*)""")
_PROGRAM: Final = re.compile(r"^Disassembly of function (\w+)$")
_LINE: Final = re.compile(r"^;.* // Line\s+(\d+)$")
_INSTRUCTION: Final = re.compile(r"^\s+(\d+):\t")


@dataclass(frozen=True)
class SourceLine:
    """A line of a source: its number and its text."""

    number: int
    text: str


def line_of(
    source: Path, include: Sequence[Path], program: str, instruction: int
) -> SourceLine | None:
    """The line that an instruction of a program comes from; None if it is unknown.

    For code from an inline function of a header it is a source line near the call.
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
    """The source with #line directives, as far as they can be placed without parsing."""
    lines: list[bytes] = []
    in_comment = in_macro = False
    for number, line in enumerate(text.split(b"\n"), 1):
        with_code = None if in_comment or in_macro else _WITH_CODE.fullmatch(line)
        if with_code:
            lines += [with_code[1], b"#line %d" % number, with_code[2]]
        else:
            lines.append(line)
        in_macro = line.endswith(b"\\")
        begins, ends = line.rfind(b"/*"), line.rfind(b"*/")
        if begins != ends:
            in_comment = begins > ends
        if not in_comment and line.rstrip().endswith(_ENDS):
            lines.append(b"#line %d" % (number + 1))
    return b"\n".join(lines)


def _numbers(printed: str, program: str) -> Iterator[tuple[int, int]]:
    """(instruction, line) for the first instruction of each line of a program, in order."""
    inside, number = False, None
    for line in printed.splitlines():
        if match := _PROGRAM.match(line):
            inside, number = match[1] == program, None
        elif inside and (match := _LINE.match(line)):
            number = int(match[1])
        elif inside and number is not None and (match := _INSTRUCTION.match(line)):
            yield int(match[1]), number
            number = None
