# SPDX-License-Identifier: GPL-2.0
"""A namespace, a file of declared links for it, and programs for these."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ipttctl.bpf.programs import Program
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.declared import File
from tests.kernel.support.network import Namespace, namespace
from tests.kernel.support.nf import socket_filter
from tests.kernel.support.objects import BPF, compile_object


@pytest.fixture(scope="session")
def blocklist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object of bpf/blocklist.c."""
    return compile_object(BPF / "blocklist.c", tmp_path_factory.mktemp("objects"))


@pytest.fixture
def place() -> Iterator[Namespace]:
    """A namespace for the links."""
    with namespace("declared") as made:
        yield made


@pytest.fixture
def accept(make_program: MakeProgram) -> Program:
    """A program that lets every packet pass."""
    return socket_filter(make_program, asm.returning(1), name="accept")


@pytest.fixture
def other(make_program: MakeProgram) -> Program:
    """Another one that does."""
    return socket_filter(make_program, asm.mov(asm.R3, 5) + asm.returning(1), name="other")


@pytest.fixture
def file(tmp_path: Path) -> File:
    """The file, which is not written yet."""
    return File(tmp_path / "state.json")
