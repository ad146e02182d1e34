# SPDX-License-Identifier: GPL-2.0
"""Fixtures of the kernel tests: they run as root in a guest that may crash.

Around each test: no new line in the kernel's log that reports an error, and no link, program,
probe, redirected function or module reference left. After each file: no memory lost, as far as
the kernel can tell. At the end the module unloads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from guest import kernel_list
from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.errors import LinkGoneError
from ipttctl.link.controller import Controller
from ipttctl.programs.trace import remove_trace_pins
from tests.kernel.support import assembler, detectors
from tests.kernel.support.kernel import (
    MODULE,
    KernelLog,
    Remains,
    assert_kernel_content,
    kernel_log,
    load_module,
    loaded_modules,
    mark_log,
    trust_walk,
    unload_module,
    wait_for,
)
from tests.kernel.support.network import Network, network
from tests.kernel.support.sharing import taken

#: columns of a terminal with room for the name of a test and its message
WIDE = 200

MakeProgram = Callable[..., Program]


@cache
def _kernel() -> kernel_list.ListedKernel:
    """This guest's kernel, with its share of the tests."""
    dealt = os.environ.get("IPTT_DEALT_AMONG")
    among = None if dealt is None else dealt.split()
    return kernel_list.named(os.environ["IPTT_KERNEL"], among)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out files that the make target does not run on this kernel, unless they are named."""
    target = os.environ.get("IPTT_TARGET")
    if not target or not collection_path.name.startswith("test_"):
        return None
    return None if _kernel().runs(collection_path.name, target) else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that the make target does not run on this kernel, unless they are named.

    The files that the list of kernels has as late ones come last.
    """
    target = os.environ.get("IPTT_TARGET")
    if not target or any("::" in argument for argument in config.args):
        return
    kernel = _kernel()
    cpus = os.cpu_count() or 1
    left_out = [
        item for item in items if not kernel.runs_test(item.path.name, item.name, target, cpus)
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: item.path.name in kernel.late)


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the files that no other guest has taken, if several share a run."""
    shared = os.environ.get("IPTT_SHARED")
    if not shared or session.config.option.collectonly or session.testsfailed:
        return None
    items = taken(session.items, Path(shared))
    item = next(items, None)
    while item is not None:
        following = next(items, None)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, Any]:
    """Report a failure at once: a guest that is killed would lose it."""
    report = yield
    if report.failed:
        terminal = item.config.get_terminal_writer()
        terminal.line(f"\n{report.nodeid}\n{report.longreprtext}")
        # the summary needs its sentence
        terminal.fullwidth = max(terminal.fullwidth, WIDE)
    return report


def pytest_runtest_logstart(nodeid: str) -> None:
    """Name the test in the kernel's log: only the console is left of a guest that dies."""
    mark_log(f"test: {nodeid}")


@pytest.fixture(scope="session")
def session_log() -> Iterator[KernelLog]:
    with kernel_log() as log:
        yield log


@pytest.fixture(scope="session", autouse=True)
def module(session_log: KernelLog) -> Iterator[None]:
    """The module under test, loaded for the session; it must unload at the end."""
    assert os.environ.get("IPTTRACE_KO"), "kernel tests run in a guest: make test-kernel"
    if MODULE in loaded_modules():
        trust_walk()
    else:
        load_module()
    detectors.switch_on()
    yield
    remove_trace_pins()
    unload_module()
    assert MODULE not in loaded_modules()
    assert_kernel_content(session_log)
    assert not detectors.gave_up()
    leaked = detectors.leaks()
    assert not leaked, f"after unloading, the kernel reports:\n{leaked}"


@pytest.fixture(scope="module", autouse=True)
def nothing_leaked(module: None) -> Iterator[None]:  # noqa: ARG001 - order
    """Fail if a file's tests lost memory; once per file, since a scan takes seconds."""
    yield
    leaked = detectors.leaks()
    assert not leaked, f"the kernel reports:\n{leaked}"


@pytest.fixture(autouse=True)
def nothing_left(module: None, session_log: KernelLog) -> Iterator[None]:  # noqa: ARG001 - order
    """Fail the test that left something behind or caused a complaint of the kernel."""
    before = Remains.now()
    yield
    # the kernel frees programs and namespaces in the background
    with suppress(AssertionError):
        wait_for(lambda: not Remains.now().since(before))
    assert not Remains.now().since(before)
    assert_kernel_content(session_log)


@pytest.fixture
def controller() -> Iterator[Controller]:
    with Controller() as opened:
        yield opened


@pytest.fixture
def no_links() -> Iterator[None]:
    """Remove persistent links, which a test that fails half-way would leave to the next one."""
    yield
    with Controller() as controller:
        for link in controller.links():
            with suppress(LinkGoneError):
                controller.detach(link.id)


@pytest.fixture
def make_program() -> Iterator[MakeProgram]:
    """Loads programs from instructions: ``make_program(instructions=returning(1))``."""
    made: list[Program] = []

    def make(
        instructions: bytes | None = None,
        *,
        name: str = "test",
        type: ProgramType = ProgramType.KPROBE,  # noqa: A002 - as the kernel calls it
    ) -> Program:
        code = assembler.returning(1) if instructions is None else instructions
        program = Program.load(code, name=name, type=type)
        made.append(program)
        return program

    yield make
    for program in made:
        program.close()


@pytest.fixture
def packet(make_program: MakeProgram) -> Program:
    """A program for the slot of that name."""
    return make_program(type=ProgramType.SOCKET_FILTER, name="packet")


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made
