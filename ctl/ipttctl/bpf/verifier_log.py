# SPDX-License-Identifier: GPL-2.0
"""The log of the kernel's verifier: find the line that says why it refuses a program."""

from __future__ import annotations

import re
from typing import Final

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
