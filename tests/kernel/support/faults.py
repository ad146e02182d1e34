# SPDX-License-Identifier: GPL-2.0
"""Allocations that fail on request (Documentation/fault-injection/fault-injection.rst).

Needs a kernel with CONFIG_FAULT_INJECTION: ``make test-debug``.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from tests.kernel.support.kernel import MODULE, loaded_modules

T = TypeVar("T")

_DEBUGFS = Path("/sys/kernel/debug")
_FAIL_NTH = Path("/proc/thread-self/fail-nth")
_KINDS = ("failslab", "fail_page_alloc")
_SETTINGS = {
    # allocations that may sleep fail as well: nearly all of the module's
    "ignore-gfp-wait": "N",
    # an injected failure is no fault of the kernel's: no stack for it in the log
    "verbose": "0",
}
#: the first lines of the allocators' complaints about injected failures, with a stack
_COMPLAINT = re.compile(r"percpu: allocation failed|vmalloc error|page allocation failure")
_STACK_END = "</TASK>"


def without_complaints(lines: list[str]) -> list[str]:
    """The lines of the kernel's log without the allocators' complaints, stacks included."""
    kept = []
    complaining = False
    for line in lines:
        complaining = complaining or bool(_COMPLAINT.search(line))
        if not complaining:
            kept.append(line)
        complaining = complaining and _STACK_END not in line
    return kept


def available() -> bool:
    """Whether this kernel can make allocations fail."""
    return _FAIL_NTH.exists() and all((_DEBUGFS / kind).is_dir() for kind in _KINDS)


def _set(kind: str, **settings: str) -> None:
    for name, value in settings.items():
        (_DEBUGFS / kind / name.replace("_", "-")).write_text(value)


def prepare() -> None:
    """Let slab and page allocations of any kind fail on request."""
    for kind in _KINDS:
        _set(kind, **_SETTINGS)
    _set("fail_page_alloc", min_order="0")


@dataclass(frozen=True)
class Trial(Generic[T]):
    """One call of an action whose nth allocation failed, with its result or exception."""

    number: int
    result: T | None
    error: Exception | None


def each_allocation(
    action: Callable[[], T], expected: type[Exception] | tuple[type[Exception], ...]
) -> Iterator[Trial[T]]:
    """Call ``action`` with its first allocation failing, then its second, until none is left.

    Only this thread's allocations in the kernel count. An exception other than ``expected`` ends
    the loop. The last trial is a call in which nothing failed.
    """
    prepare()
    control = os.open(_FAIL_NTH, os.O_RDWR)
    try:
        for number in itertools.count(1):
            result: T | None = None
            error: Exception | None = None
            os.pwrite(control, b"%d" % number, 0)
            try:
                result = action()
            except expected as caught:
                error = caught
            finally:
                left = int(os.pread(control, 16, 0))
                os.pwrite(control, b"0", 0)
            yield Trial(number, result, error)
            if left:
                assert error is None, error
                return
    finally:
        os.close(control)


@contextmanager
def module_out_of_memory() -> Iterator[None]:
    """Make every slab allocation with the module on its stack fail, in any task."""
    prepare()
    start = int(Path(f"/sys/module/{MODULE}/sections/.text").read_text(), 16)
    size = next(
        int(line.split()[1])
        for line in Path("/proc/modules").read_text().splitlines()
        if line.split()[0] == MODULE
    )
    assert MODULE in loaded_modules()
    _set(
        "failslab",
        require_start=hex(start),
        require_end=hex(start + size),
        stacktrace_depth="32",
        times="-1",
        interval="1",
        probability="100",
    )
    try:
        yield
    finally:
        _set("failslab", probability="0", require_start="0", require_end=hex((1 << 64) - 1))
