# SPDX-License-Identifier: GPL-2.0
"""Compiled specs on disk: hits, misses, and trust in their owners."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ipttctl.bpf import bpfcc, tools
from ipttctl.bpf.files_read import FilesRead
from ipttctl.bpf.spec_cache import SpecCache, source_key
from ipttctl.bpf.specs import CollectionSpec, const_marker
from ipttctl.errors import ProgramError
from tests.unit.ctl.bpf.support import EXIT, compiled, wide

SOURCE = """
IPTTRACE_CONST(__u16, port);
  IPTTRACE_CONST( struct in_addr , address );
IPTTRACE_FIELD(const char *, name, sk_buff, a.b);
"""


class Compiler:
    """Stands in for bpfcc's process: counts its calls, and has read a header besides the source."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, source: Path, _text: bytes, cflags: list[str]) -> dict[str, object]:
        """Answer like the process."""
        self.calls.append(cflags)
        return compiled() | {"read": [str(source.with_name("x.h"))]}


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    compiler = Compiler()
    monkeypatch.setattr(bpfcc, "compile_source", compiler)
    return compiler


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "cache"
    monkeypatch.setenv("IPTTCTL_CACHE", str(directory))
    return directory


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source" / "x.c"
    path.parent.mkdir()
    path.write_text(SOURCE)
    path.with_name("x.h").touch()
    return path


def test_a_second_process_does_not_compile(cache: Path, source: Path, compiler: Compiler) -> None:
    announced: list[int] = []
    first = CollectionSpec.from_source(source, on_compile=lambda: announced.append(1))
    first.set_constants({"port": 7})
    second = CollectionSpec.from_source(source, on_compile=lambda: announced.append(2))
    assert compiler.calls == [[f"-I{source.parent}"]]
    assert announced == [1]
    assert second.values == {}
    first.values.clear()
    assert second == first
    assert second.constants == {"port": 16, "address": 64}
    assert second.fields == ["sk_buff.a.b"]
    assert second.programs["second"].maps == {1: "m"}
    assert second.programs["second"].instructions == EXIT + wide(0, register=1, source=1) + EXIT
    assert cache.stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in cache.iterdir()] == [0o600]


def test_of_two_that_begin_together_one_compiles(
    cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, begun, calls = threading.Event(), threading.Event(), []

    def compile_source(*_: object) -> dict[str, object]:
        calls.append(1)
        begun.set()
        assert waiting.wait(10)
        return compiled() | {"read": [str(source.with_name("x.h"))]}

    monkeypatch.setattr(bpfcc, "compile_source", compile_source)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(CollectionSpec.from_source, source)
        assert begun.wait(10)
        second = pool.submit(CollectionSpec.from_source, source, on_compile=waiting.set)
        assert first.result(10) == second.result(10)
    assert len(calls) == 1
    assert [file.suffix for file in cache.iterdir()] == [".json"], "no lock is left"


def test_who_dies_in_its_turn_keeps_nobody_waiting(
    cache: Path, source: Path, compiler: Compiler
) -> None:
    cache.mkdir(0o700)
    key = source_key(source.read_bytes(), [source.parent], [])
    if (child := os.fork()) == 0:
        with SpecCache(cache).turn(key):
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert [file.name for file in cache.iterdir()] == [f".{key}.lock"]
    CollectionSpec.from_source(source)
    assert len(compiler.calls) == 1
    assert [file.suffix for file in cache.iterdir()] == [".json"]


def test_the_result_used_last_is_looked_at_first(
    cache: Path, source: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one, of headers as they were once, costs reading all of them."""
    header = source.with_name("x.h")
    for content in ("", "// a", "// b"):
        header.write_text(content)
        CollectionSpec.from_source(source)
    header.write_text("// a")
    CollectionSpec.from_source(source)
    assert (len(compiler.calls), len([*cache.iterdir()])) == (3, 3)
    looked: list[FilesRead] = []
    real = FilesRead.are_the_same

    def are_the_same(files: FilesRead, directories: Sequence[Path]) -> bool:
        looked.append(files)
        return real(files, directories)

    monkeypatch.setattr(FilesRead, "are_the_same", are_the_same)
    CollectionSpec.from_source(source)
    assert (len(compiler.calls), len(looked)) == (3, 1)


def test_what_others_can_write_to_is_refused(cache: Path, source: Path, compiler: Compiler) -> None:
    CollectionSpec.from_source(source)
    (stored,) = cache.iterdir()
    stored.chmod(0o620)
    with pytest.raises(ProgramError, match=rf"{stored} can be written to by others; run: chmod"):
        CollectionSpec.from_source(source)
    stored.chmod(0o600)
    cache.chmod(0o777)
    with pytest.raises(ProgramError, match=f"do not trust {cache}: {cache} can be written to"):
        CollectionSpec.from_source(source)
    cache.chmod(0o700)
    cache.parent.chmod(0o777)
    with pytest.raises(ProgramError, match=f"do not trust {cache}: {cache.parent} can be written"):
        CollectionSpec.from_source(source)
    cache.parent.chmod(0o700)
    CollectionSpec.from_source(source)
    assert len(compiler.calls) == 1


def test_what_somebody_else_put_there_is_refused(
    cache: Path, source: Path, compiler: Compiler, tmp_path: Path
) -> None:
    CollectionSpec.from_source(source)
    (stored,) = cache.iterdir()
    stored.rename(tmp_path / "elsewhere")
    stored.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ProgramError, match=rf"{stored} is a symbolic link; run: rm {stored}"):
        CollectionSpec.from_source(source)
    stored.unlink()
    if os.geteuid() == 0:
        stored.write_text((tmp_path / "elsewhere").read_text())
        os.chown(stored, 65534, 65534)
        with pytest.raises(ProgramError, match=rf"{stored} belongs to uid 65534; run: chown"):
            CollectionSpec.from_source(source)
    assert len(compiler.calls) == 1


def test_an_entry_that_cannot_be_replaced_leaves_nothing_behind(
    cache: Path, source: Path, compiler: Compiler
) -> None:
    CollectionSpec.from_source(source)
    (stored,) = cache.iterdir()
    stored.unlink()
    (stored / "full").mkdir(parents=True)
    CollectionSpec.from_source(source)
    assert list(cache.iterdir()) == [stored]
    assert len(compiler.calls) == 2


@pytest.mark.parametrize("content", ["", "\xff", "[]", "{}", '{"programs": {}}'])
def test_a_broken_entry_is_compiled_again(
    cache: Path, source: Path, compiler: Compiler, content: str
) -> None:
    CollectionSpec.from_source(source)
    (stored,) = cache.iterdir()
    good = stored.read_text()
    stored.write_text(content)
    CollectionSpec.from_source(source)
    assert len(compiler.calls) == 2
    assert json.loads(stored.read_text()) == json.loads(good)
    assert list(cache.iterdir()) == [stored]


@pytest.mark.parametrize("part", ["spec", "read", "absent"])
def test_an_entry_that_is_broken_in_parts(
    cache: Path, source: Path, compiler: Compiler, part: str
) -> None:
    CollectionSpec.from_source(source)
    (stored,) = cache.iterdir()
    for nonsense in (None, 7, [7], {"7": 7}):
        stored.write_text(json.dumps({**json.loads(stored.read_text()), part: nonsense}))
        before = len(compiler.calls)
        CollectionSpec.from_source(source)
        assert len(compiler.calls) == before + 1


def test_without_a_place_to_write_it_still_compiles(
    source: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPTTCTL_CACHE", "/proc/nowhere/cache")
    CollectionSpec.from_source(source)
    CollectionSpec.from_source(source)
    assert len(compiler.calls) == 2


def test_a_missing_source_is_named(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=f"cannot read BPF source {tmp_path / 'no.c'}"):
        CollectionSpec.from_source(tmp_path / "no.c")
    assert not cache.exists()


def test_maps_of_maps_are_refused(
    cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = compiled()
    answer["maps"]["m"]["type"] = 12
    monkeypatch.setattr(bpfcc, "compile_source", lambda *_: answer)
    with pytest.raises(ProgramError, match="m is a map of maps"):
        CollectionSpec.from_source(source)
    assert list(cache.iterdir()) == []


# --- the compiler's process ----------------------------------------------------------------------


def answer_with(monkeypatch: pytest.MonkeyPatch, status: int, stderr: str) -> None:
    done = subprocess.CompletedProcess[str]([], status, "", stderr)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(bpfcc, "_has_kernel_headers", lambda: True)


@pytest.mark.parametrize(
    ("status", "stderr", "message"),
    [
        (3, "No module named 'bcc'\n", "apt install python3-bpfcc"),
        (1, "Unable to find kernel headers. Try ...\n", "apt install linux-headers-"),
        (
            1,
            "/virtual/main.c:3:2: warning: w\n/virtual/main.c:4:1: error: unknown type\nException",
            r"x\.c: x\.c:4:1: error: unknown type$",
        ),
        (-9, "", "no message"),
    ],
)
@pytest.mark.usefixtures("cache")
def test_failures_say_what_to_do(
    source: Path, monkeypatch: pytest.MonkeyPatch, status: int, stderr: str, message: str
) -> None:
    answer_with(monkeypatch, status, stderr)
    with pytest.raises(ProgramError, match=message):
        CollectionSpec.from_source(source)


def test_the_compiler_is_told_nothing_of_where_the_caller_is(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "compiler.py"
    script.write_text(
        "import json, os\n"
        "print(json.dumps({'directory': os.getcwd(), 'PATH': os.environ['PATH']}))\n"
    )
    monkeypatch.setattr(bpfcc, "COMPILER", script)
    monkeypatch.setattr(bpfcc, "_has_kernel_headers", lambda: True)
    monkeypatch.chdir(source.parent)
    monkeypatch.setenv("PATH", "")
    said = bpfcc.compile_source(source, b"", [])
    assert said == {"directory": "/proc/sys", "PATH": tools.search_path()}


@pytest.mark.usefixtures("cache")
def test_missing_headers_are_found_before_compiling(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpfcc, "_has_kernel_headers", lambda: False)
    with pytest.raises(ProgramError, match="apt install linux-headers-"):
        CollectionSpec.from_source(source)


@pytest.mark.usefixtures("cache")
def test_a_map_of_another_source_is_refused(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = compiled()
    answer["maps"] = {}
    monkeypatch.setattr(bpfcc, "compile_source", lambda *_: answer)
    with pytest.raises(ProgramError, match="program second uses a map of another source"):
        CollectionSpec.from_source(source)


@pytest.mark.usefixtures("cache", "compiler")
def test_constants_that_cannot_be_told_apart_are_refused(source: Path) -> None:
    one, two = "port_99540", "port_383166"
    assert const_marker(one) == const_marker(two)
    source.write_text(f"IPTTRACE_CONST(__u16, {one});\nIPTTRACE_CONST(__u16, {two});\n")
    with pytest.raises(ProgramError, match="two constants' names have one hash; rename one"):
        CollectionSpec.from_source(source)


def test_importing_everything_does_not_import_bpfcc() -> None:
    command = "import sys, ipttctl.programs.trace; sys.exit('bcc' in sys.modules)"
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    assert subprocess.run([sys.executable, "-c", command], env=path, check=False).returncode == 0
