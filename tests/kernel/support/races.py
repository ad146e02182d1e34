# SPDX-License-Identifier: GPL-2.0
"""KCSAN's reports of data races in the module; the kernel accepts many races of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable

_REPORT = re.compile(r"BUG: KCSAN: ")
_REPORT_END = re.compile(r"^=+$")
#: entry of an interrupt: the functions below it in a stack were only interrupted
_INTERRUPT = re.compile(r"^\s*asm_(sysvec_|common_interrupt|exc_)")
#: functions of the kernel that race on purpose, with any caller
_ON_PURPOSE = re.compile(
    r"ktime_get_mono_fast_ns"  # a latch: a value written meanwhile is read again (timekeeping.c)
)


def without_foreign_races(lines: Iterable[str], module: str) -> list[str]:
    """The lines of a kernel log without the reports of races outside ``module``.

    A race is the module's if one of the two accesses happened in it or in a function it called.
    """
    kept: list[str] = []
    report: list[str] = []
    for line in lines:
        if not report and not _REPORT.search(line):
            kept.append(line)
            continue
        report.append(line)
        if _REPORT_END.match(line):
            kept += report if _is_of(module, report) else []
            report = []
    # a truncated report has too little to be passed over
    return kept + report


def _is_of(module: str, report: list[str]) -> bool:
    if _ON_PURPOSE.search(report[0]):
        return False
    interrupted = False
    for line in report:
        if not line.strip():
            # the next stack
            interrupted = False
        interrupted |= bool(_INTERRUPT.match(line))
        if f"[{module}]" in line and not interrupted:
            return True
    return False
