# SPDX-License-Identifier: GPL-2.0
"""The log of the kernel's verifier: which of its lines says why a program is refused."""

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
"""Beginnings of lines that tell what the verifier did, not what it found."""


_ADVICE: Final = "\nVerification failed:"
"""Where 7.3 begins to explain, over a page."""


def verifier_reason(log: str) -> str:
    """The reason that a verifier log gives, or nothing.

    It is what the verifier says first after the last instruction that it looked at: newer kernels
    go on with states and with advice, in lines of their own.
    """
    said, _, _ = log.partition(_ADVICE)
    lines = [line.strip() for line in said.splitlines()]
    steps = [number for number, line in enumerate(lines) if _STEP.match(line)]
    after = lines[steps[-1] + 1 :] if steps else lines
    return next((line for line in after if line and not _ASIDE.match(line)), "")
