# SPDX-License-Identifier: GPL-2.0
"""The running kernel: its log, its modules, and possible leftovers of a test."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from ipttctl.bpf import syscalls
from ipttctl.bpf.libbpf import libbpf
from ipttctl.link.controller import Controller
from ipttproto import Walk
from tests.kernel.support.races import without_foreign_races

T = TypeVar("T")

MODULE = "ipttrace"

#: words of the kernel's error reports (kernel/panic.c, lib/, mm/, kernel/locking/)
SPLAT = re.compile(
    r"WARNING:|BUG:|Oops|Call Trace|general protection|KASAN|UBSAN|kernel BUG|"
    r"suspicious RCU|possible .* deadlock|INFO: task .* blocked|rcu.*stall|soft lockup|"
    r"refcount_t:|scheduling while atomic|leaked|stack guard|ODEBUG|inconsistent lock state|"
    r"lock held when returning|INFO: trying to register"
)

#: seconds that a command may take; they differ in a guest whose clock counts instructions
COMMAND_TIMEOUT = float(os.environ.get("IPTT_COMMAND_TIMEOUT", "60"))


def run(
    *command: str, check: bool = True, timeout: float = COMMAND_TIMEOUT, text: str | None = None
) -> str:
    """Run a command and return its output; if it fails, the error contains its stderr.

    ``text`` is its standard input.
    """
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=timeout, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def wait_for(condition: Callable[[], T], timeout: float = 20, what: str = "") -> T:
    """Poll until ``condition`` holds and return its value; AssertionError if it times out."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what or condition}")
        # the conditions are of many kinds, and most of what they look at wakes nobody
        os.sched_yield()
        time.sleep(0.02)
    return value


def settled(read: Callable[[], T]) -> T:
    """The value of ``read`` once it stays the same: softirqs have finished with all packets."""
    before = read()
    end = time.monotonic() + 10 * COMMAND_TIMEOUT
    while time.monotonic() < end:
        # nothing marks the last packet; its counters stand still for this long
        time.sleep(0.3)
        if (now := read()) == before:
            return now
        before = now
    raise AssertionError(f"it does not settle: {before}")


class KernelLog:
    """The kernel's log from a moment on."""

    def __init__(self) -> None:
        self._file = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._file, 0, os.SEEK_END)

    def close(self) -> None:
        """Stop reading."""
        os.close(self._file)

    def new_lines(self) -> list[str]:
        """The lines since the last call."""
        lines: list[str] = []
        while True:
            try:
                record = os.read(self._file, 8192).decode(errors="replace")
            except BlockingIOError:
                return lines
            except BrokenPipeError:
                # the log was overwritten meanwhile: lines that a test needs may be lost
                raise AssertionError("the kernel's log ran over") from None
            lines.append(record.partition(";")[2].split("\n")[0])


@contextmanager
def kernel_log() -> Iterator[KernelLog]:
    log = KernelLog()
    try:
        yield log
    finally:
        log.close()


def splats(lines: list[str]) -> list[str]:
    """The lines that report an error in the kernel, each with the lines that follow it."""
    lines = without_foreign_races(lines, MODULE)
    wrong = [number for number, line in enumerate(lines) if SPLAT.search(line)]
    return lines[wrong[0] : wrong[-1] + 60] if wrong else []


def mark_log(text: str) -> None:
    """Write a line to the kernel's log, to mark the place of the lines that follow."""
    Path("/dev/kmsg").write_text(f"<4>{text}\n")


def assert_kernel_content(log: KernelLog) -> None:
    """Fail with the kernel's own words if it complained since the last call."""
    wrong = splats(log.new_lines())
    assert not wrong, "\n".join(["the kernel reports:", *wrong])


def loaded_modules() -> dict[str, int]:
    """Loaded modules and their reference counts."""
    return {
        line.split()[0]: int(line.split()[2])
        for line in Path("/proc/modules").read_text().splitlines()
    }


def load_module() -> None:
    """Load the module under test; its walks count as verified."""
    run("insmod", os.environ["IPTTRACE_KO"])
    trust_walk()


def trust_walk() -> None:
    """Have the walks count as verified.

    That is shown by test_nft_differential.py, and is not to be waited for at each first trace.
    """
    with Controller() as controller:
        controller.end_verification(Walk.VERIFIED, although_not_compared=True)


def load_test_module(name: str) -> None:
    """Load a module of ``tests/kernel/modules``."""
    run("insmod", f"{os.environ['IPTT_TEST_MODULES']}/{name}.ko")


def unload_module() -> None:
    run("rmmod", MODULE)


def remove_module(name: str) -> None:
    """Unload a module that may still be used by namespaces in destruction."""

    def removed() -> bool:
        done = subprocess.run(["rmmod", name], capture_output=True, check=False)
        return done.returncode == 0

    wait_for(removed, what=f"{name} is unloaded")


@contextmanager
def ftrace_switched_off() -> Iterator[None]:
    """Switch ftrace off for a while; skip the test on a kernel (7.3) that keeps it on."""
    switch = Path("/proc/sys/kernel/ftrace_enabled")
    try:
        switch.write_text("0\n")
    except OSError as error:
        pytest.skip(f"this kernel does not let ftrace be switched off: {error.strerror}")
    try:
        yield
    finally:
        switch.write_text("1\n")


def redirected_functions() -> list[str]:
    """Functions on which ftrace has a handler of the module's."""
    text = Path("/sys/kernel/tracing/enabled_functions").read_text()
    return [line for line in text.splitlines() if MODULE in line]


def wait_for_no_redirection() -> None:
    """Wait until ftrace has no handler of the module's: they are removed after the last link."""
    wait_for(lambda: not redirected_functions(), what="no function is redirected")


def kernel_version() -> tuple[int, int]:
    """The first two numbers of the kernel's release."""
    major, minor = re.findall(r"\d+", os.uname().release)[:2]
    return int(major), int(minor)


def refused_dumps_are_explained() -> bool:
    """Whether the kernel supports a sentence for a refused dump; 6.1 does not.

    Its genl_start() gets the extack of the request, but does not pass it to the family.
    """
    return not os.uname().release.startswith("6.1.")


def probes() -> list[str]:
    """Probes that are registered."""
    return Path("/sys/kernel/debug/kprobes/list").read_text().splitlines()


def _programs() -> frozenset[int]:
    """The ids of all BPF programs, from the system call: bpftool takes longer than many a test."""
    found: list[int] = []
    last = ctypes.c_uint32(0)
    while libbpf().bpf_prog_get_next_id(last, ctypes.byref(last)) == 0:
        found.append(last.value)
    return frozenset(found)


def _pinned_programs() -> frozenset[int]:
    """The ids of the pinned BPF programs, which are kept on purpose."""
    found: list[int] = []
    for path in Path("/sys/fs/bpf").rglob("*"):
        if path.is_file():
            fd = syscalls.open_pinned(path)
            if syscalls.object_kind(fd) == syscalls.ObjectKind.PROGRAM:
                found.append(syscalls.program_info(fd).id)
            os.close(fd)
    return frozenset(found)


@dataclass(frozen=True)
class Remains:
    """The objects in the kernel that a test could leave there."""

    programs: frozenset[int]
    functions: tuple[str, ...]
    probes: tuple[str, ...]
    namespaces: frozenset[str]
    references: int

    @classmethod
    def now(cls) -> Remains:
        """The current objects."""
        netns = Path("/run/netns")
        return cls(
            _programs() - _pinned_programs(),
            # only the name: the rest of the line also tells of former handlers
            tuple(line.split()[0] for line in redirected_functions()),
            tuple(probes()),
            frozenset(p.name for p in netns.iterdir()) if netns.is_dir() else frozenset(),
            loaded_modules().get(MODULE, 0),
        )

    def since(self, before: Remains) -> list[str]:
        """The objects that are new, in words; pinned ones are kept on purpose."""
        left = []
        if new := self.programs - before.programs:
            left.append(f"programs {sorted(new)}")
        # those of an earlier link may have been on their way out
        if new_functions := set(self.functions) - set(before.functions):
            left.append(f"functions {sorted(new_functions)}")
        if self.probes != before.probes:
            left.append(f"probes {self.probes}")
        if new_namespaces := self.namespaces - before.namespaces:
            left.append(f"network namespaces {sorted(new_namespaces)}")
        if self.references > before.references:
            left.append(f"{self.references - before.references} references to the module")
        return left
