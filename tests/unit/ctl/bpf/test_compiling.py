# SPDX-License-Identifier: GPL-2.0
"""Real compilations, for a kernel of nearly empty headers, and the reuse of stored results."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ipttctl.bpf import bpfcc, spec_cache
from ipttctl.bpf.specs import CollectionSpec
from ipttctl.errors import ProgramError

#: the parts of a kernel's headers that bpfcc's own headers need
HEADERS = {
    "include/linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1",
    "include/linux/version.h": """
        #define KERNEL_VERSION(a, b, c) ((a) << 16 | (b) << 8 | (c))
        #define LINUX_VERSION_CODE KERNEL_VERSION(6, 1, 0)""",
    "include/linux/types.h": """
        typedef unsigned char u8, __u8;
        typedef signed char s8, __s8;
        typedef unsigned short u16, __u16, __be16, __le16, __sum16;
        typedef short s16, __s16;
        typedef unsigned int u32, __u32, __be32, __le32, __wsum;
        typedef int s32, __s32;
        typedef unsigned long long u64, __u64, __be64, __le64, __aligned_u64;
        typedef long long s64, __s64;
        typedef unsigned long size_t, uintptr_t;
        typedef _Bool bool;""",
    "include/linux/bpf_common.h": "",
    "include/linux/log2.h": "",
    "include/uapi/linux/bpf.h": "",
    "include/uapi/linux/if_packet.h": "",
    "include/asm/page.h": "",
}
SOURCE = """
#include "lib/a.h"
#if __has_include("lib/optional.h")
#include "lib/optional.h"
#endif
int entry(void *context) { return VALUE; }
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "kernel"
    for name, text in HEADERS.items():
        write(place / name, text)
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(place))
    return place


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPTTCTL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path, kernel: Path, cache: Path) -> Path:
    """x.c, which includes lib/a.h, which includes lib/b.h, which defines the return value: 7."""
    del kernel, cache
    place = tmp_path / "source"
    write(place / "x.c", SOURCE)
    write(place / "lib/a.h", '#include "b.h"\n')
    write(place / "lib/b.h", "#define VALUE 7\n")
    return place / "x.c"


def returned(source: Path, include: Sequence[Path] = ()) -> tuple[int, bool]:
    """The return value of a source's program, and whether this call compiled it."""
    compiled: list[bool] = []
    spec = CollectionSpec.from_source(
        source, include=include, on_compile=lambda: compiled.append(True)
    )
    code, _, _, value = struct.unpack_from("=BBhi", spec.programs["entry"].instructions)
    assert code == 0xB7, "it begins with the value"
    return value, bool(compiled)


def test_a_header_of_a_header_changes(source: Path) -> None:
    assert returned(source) == (7, True)
    assert returned(source) == (7, False)
    write(source.parent / "lib/b.h", "#define VALUE 9\n")
    assert returned(source) == (9, True)
    assert returned(source) == (9, False)
    write(source.parent / "lib/b.h", "#define VALUE 7\n")
    assert returned(source) == (7, False), "both are kept"


def test_bytecode_is_not_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not below /usr: on an overlay the headers there would seem to change while they are read."""
    if importlib.util.find_spec("bcc") is None:
        pytest.skip("the system's Python runs isolated, and writes where it is not to")
    bytecode = tmp_path / "bytecode"
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(bytecode))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    assert returned(source) == (7, True)
    assert not bytecode.exists()


def test_the_source_changes(source: Path) -> None:
    assert returned(source) == (7, True)
    write(source, SOURCE.replace("VALUE;", "VALUE + 1;"))
    assert returned(source) == (8, True)
    assert returned(source) == (8, False)


def test_a_header_of_the_kernel_changes(source: Path, kernel: Path) -> None:
    assert returned(source) == (7, True)
    write(kernel / "include/linux/log2.h", "#define NEW 1\n")
    assert returned(source) == (7, True)


def test_a_header_that_is_asked_for_appears(source: Path) -> None:
    assert returned(source) == (7, True)
    write(source.parent / "lib/optional.h", "#undef VALUE\n#define VALUE 5\n")
    assert returned(source) == (5, True)
    (source.parent / "lib/optional.h").unlink()
    assert returned(source) == (7, False)


def test_a_header_appears_before_another(source: Path, tmp_path: Path) -> None:
    far = tmp_path / "far"
    (source.parent / "lib/b.h").rename(source.parent / "b.h")
    write(far / "b.h", "#define VALUE 3\n")
    (source.parent / "b.h").unlink()
    assert returned(source, [far]) == (3, True)
    assert returned(source, [far]) == (3, False)
    write(source.parent / "b.h", "#define VALUE 4\n")
    assert returned(source, [far]) == (4, True)
    write(source.parent / "lib/b.h", "#define VALUE 5\n")
    assert returned(source, [far]) == (5, True)


def test_a_header_goes(source: Path) -> None:
    assert returned(source) == (7, True)
    (source.parent / "lib/b.h").unlink()
    with pytest.raises(ProgramError, match=r"'b\.h' file not found"):
        returned(source)


def test_a_header_of_the_current_directory_is_none(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "here/lib/a.h", "#define VALUE 666\n")
    monkeypatch.chdir(tmp_path / "here")
    assert returned(source) == (7, True)


def test_names_that_makefiles_write_in_their_own_way(source: Path) -> None:
    name = "lib/b #1 $x 'é \".h"
    write(source.parent / "lib/a.h", f"#include <{name}>\n")
    write(source.parent / name, "#define VALUE 3\n")
    assert returned(source) == (3, True)
    assert returned(source) == (3, False)
    write(source.parent / name, "#define VALUE 4\n")
    assert returned(source) == (4, True)


def test_a_source_tree_may_move(source: Path, tmp_path: Path) -> None:
    assert returned(source) == (7, True)
    source.parent.rename(tmp_path / "elsewhere")
    assert returned(tmp_path / "elsewhere" / "x.c") == (7, False)
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "copy")
    assert returned(tmp_path / "copy" / "x.c") == (7, False)
    write(tmp_path / "copy/lib/b.h", "#define VALUE 8\n")
    assert returned(tmp_path / "copy" / "x.c") == (8, True)
    assert returned(tmp_path / "elsewhere" / "x.c") == (7, False)


def test_a_source_that_is_not_utf8(source: Path) -> None:
    source.write_bytes(b"/* \xe9 */" + SOURCE.encode())
    assert returned(source) == (7, True)
    assert returned(source) == (7, False)


def test_declarations_in_headers_of_headers(source: Path) -> None:
    write(
        source.parent / "lib/b.h",
        "#define IPTTRACE_CONST(type, name)\n#define VALUE 7\nIPTTRACE_CONST(__u16, port);\n",
    )
    for _ in range(2):
        assert CollectionSpec.from_source(source).constants == {"port": 16}


# --- changes while it is compiled ----------------------------------------------------------------


def overwrite(place: Path) -> None:
    write(place / "lib/b.h", "#define VALUE 9\n")


def replace_by_an_old_file(place: Path) -> None:
    (place / "old.h").replace(place / "lib/b.h")


def replace_the_directory(place: Path) -> None:
    (place / "lib").rename(place / "lib-before")
    (place / "old-lib").rename(place / "lib")


def change_a_link(place: Path) -> None:
    (place / "new").symlink_to("old-lib")
    (place / "new").replace(place / "linked")


def put_another_first(place: Path) -> None:
    write(place / "lib/optional.h", "#undef VALUE\n#define VALUE 9\n")


@pytest.mark.parametrize("late", [False, True], ids=["before it is read", "after it was read"])
@pytest.mark.parametrize(
    "change",
    [
        overwrite,
        replace_by_an_old_file,
        replace_the_directory,
        change_a_link,
        put_another_first,
    ],
)
def test_a_header_changes_while_it_is_compiled(
    source: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], late: bool
) -> None:
    place = source.parent
    write(place / "old.h", "#define VALUE 9\n")
    write(place / "old-lib/a.h", '#include "b.h"\n')
    write(place / "old-lib/b.h", "#define VALUE 9\n")
    if change is change_a_link:
        (place / "lib").rename(place / "first-lib")
        (place / "linked").symlink_to("first-lib")
        write(source, SOURCE.replace("lib/a.h", "linked/a.h"))
    compile_really = bpfcc.compile_source

    def compile_and_change(*request: Any) -> dict[str, Any]:
        if not late:
            change(place)
        answer = compile_really(*request)
        if late:
            change(place)
        return answer

    monkeypatch.setattr(bpfcc, "compile_source", compile_and_change)
    assert returned(source) == (7 if late else 9, True)
    monkeypatch.setattr(bpfcc, "compile_source", compile_really)
    assert returned(source) == (9, True), "nobody knows what the first one has read"
    assert returned(source) == (9, False)


def test_the_source_changes_while_it_is_compiled(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_really = bpfcc.compile_source

    def change_and_compile(*request: Any) -> dict[str, Any]:
        write(source, SOURCE.replace("VALUE;", "VALUE + 1;"))
        return compile_really(*request)

    monkeypatch.setattr(bpfcc, "compile_source", change_and_compile)
    assert returned(source) == (7, True)
    monkeypatch.setattr(bpfcc, "compile_source", compile_really)
    assert returned(source) == (8, True)
    write(source, SOURCE)
    assert returned(source) == (7, False)


# --- pruning -------------------------------------------------------------------------------------


def variants(source: Path, values: Sequence[int]) -> None:
    for value in values:
        write(source.parent / "lib/b.h", f"#define VALUE {value}\n")
        assert returned(source) == (value, True)


def test_what_was_not_used_for_long_goes(source: Path, cache: Path) -> None:
    variants(source, [1])
    (old,) = cache.iterdir()
    for name in ("0" * 32 + ".json", f".{old.name}.123.0123abcd", "notes.json"):
        (cache / name).touch()
    long_ago = old.stat().st_mtime - spec_cache.DAYS_KEPT * 86400
    for path in cache.iterdir():
        os.utime(path, (long_ago - 60, long_ago - 60))
    variants(source, [2])
    assert {path.name for path in cache.iterdir() if path != old} == {
        "notes.json",
        *(path.name for path in cache.glob(f"{old.name[:32]}-*") if path != old),
    }
    assert not old.exists()


def test_the_least_recently_used_go_first(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.count(1_000_000_000)
    monkeypatch.setattr(spec_cache, "DAYS_KEPT", 36500)

    def age() -> None:
        for path in cache.iterdir():
            if path.stat().st_mtime > 1.1e9:
                os.utime(path, (0, next(seconds)))

    for value in (1, 2, 3):
        variants(source, [value])
        age()
    write(source.parent / "lib/b.h", "#define VALUE 1\n")
    assert returned(source) == (1, False)
    age()
    size = max(path.stat().st_size for path in cache.iterdir())
    monkeypatch.setattr(spec_cache, "BYTES_KEPT", 2 * size)
    variants(source, [4])
    for value, gone in ((3, False), (1, False), (4, False), (2, True)):
        write(source.parent / "lib/b.h", f"#define VALUE {value}\n")
        assert returned(source) == (value, gone)
