# SPDX-License-Identifier: GPL-2.0
"""The log of the kernel's verifier: why it refuses a program, and where."""

from __future__ import annotations

import re
from typing import Final

LOG_SIZE: Final = 1 << 20
"""Bytes of a log that are asked for."""

#: a source line; newer kernels append file and number
_LINE: Final = re.compile(r"^; (.+)$", re.MULTILINE)
#: an instruction, with its code in hex
_INSTRUCTION: Final = re.compile(r"^(\d+): \([0-9a-f]{2}\) ", re.MULTILINE)

_STEP: Final = re.compile(r"\d+: |from \d+ to \d+\b")
"""An instruction that was looked at, or the state in front of it."""

_ASIDE: Final = re.compile(
    r"""
    ;                               # a line of the source
    | processed\ \d | verification\ time | stack\ depth      # figures
    | func\#\d | Func\#\d | Validating\ | caller: | callee: | returning\ from | frame\d+:\s
    | last_idx | regs= | parent\ | mark_precise | propagating | R\d+(_\w+)?=
    | (cur|old)\ state:
    | arg\#\d+\ reference\ type | reg\ type\ unsupported    # of BTF, harmless
    """,
    re.VERBOSE,
)
"""Beginnings of lines about the verifier's progress, not its findings."""


_ADVICE: Final = "\nVerification failed:"
"""The beginning of the advice that 7.3 adds, a page long."""


def verifier_reason(log: str) -> str:
    """The reason that a verifier log gives; empty if there is none.

    It is the first remark after the last instruction that the verifier looked at. Newer kernels
    add states and advice, in lines of their own.
    """
    said, _, _ = log.partition(_ADVICE)
    lines = [line.strip() for line in said.splitlines()]
    steps = [number for number, line in enumerate(lines) if _STEP.match(line)]
    after = lines[steps[-1] + 1 :] if steps else lines
    return next((line for line in after if line and not _ASIDE.match(line)), "")


def refused_instruction(log: str) -> int | None:
    """The index of the last instruction that the verifier looked at; None if it is unknown."""
    found = _INSTRUCTION.findall(log)
    return int(found[-1]) if found else None


def refused_line(log: str) -> str:
    """The source line that the verifier reached last; empty without line information in BTF."""
    found = _LINE.findall(log)
    return str(found[-1]).strip() if found else ""
