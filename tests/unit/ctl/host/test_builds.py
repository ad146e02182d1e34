# SPDX-License-Identifier: GPL-2.0
"""Builds of the module: build ids in files, and the copy of the file that is loaded."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import pytest

from ipttctl.errors import ModuleError
from ipttctl.host import builds, unfinished

HEAD = bytes.fromhex("04000000 14000000 03000000") + b"GNU\0"
BUILD, OTHER = bytes(range(20)), bytes(range(1, 21))
CONTENT = b"\x7fELF..." + HEAD + BUILD + b"..."
# without the time of day: contents are part of names of tests, which each process makes up itself
PACKED = gzip.compress(CONTENT, mtime=0)


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the copy, below one that others cannot write to."""
    tmp_path.chmod(0o700)
    directory = tmp_path / "kept"
    monkeypatch.setattr(builds, "KEPT", directory)
    return directory


@pytest.mark.parametrize(
    ("name", "content", "build"),
    [
        ("x.ko", CONTENT, BUILD),
        ("x.ko.xz", lzma.compress(CONTENT), BUILD),
        ("x.ko.gz", PACKED, BUILD),
        ("x.ko.xz", CONTENT, None),
        ("x.ko.gz", PACKED[:-10], None),
        ("x.ko", b"no note", None),
        ("x.ko", CONTENT[: CONTENT.index(HEAD) + len(HEAD) + 19], None),
        ("x.ko.zst", CONTENT, None),
    ],
)
def test_build_of_a_file(tmp_path: Path, name: str, content: bytes, build: bytes | None) -> None:
    (tmp_path / name).write_bytes(content)
    assert builds.of_file(tmp_path / name) == build


def test_no_file_has_no_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert builds.of_file(tmp_path / "x.ko") is None
    monkeypatch.setattr(builds, "_NOTE", tmp_path / "note")
    assert builds.running() is None
    (tmp_path / "note").write_bytes(HEAD + BUILD)
    assert builds.running() == BUILD


def test_the_copy_of_the_last_file_is_kept(tmp_path: Path, kept: Path) -> None:
    plain, packed = tmp_path / "x.ko", tmp_path / "x.ko.xz"
    plain.write_bytes(CONTENT)
    packed.write_bytes(lzma.compress(CONTENT.replace(BUILD, OTHER)))
    assert builds.keep(plain) == kept / "x.ko"
    assert builds.keep(packed) == kept / "x.ko.xz"
    assert [path.name for path in kept.iterdir()] == ["x.ko.xz"]
    assert builds.keep(kept / "x.ko.xz") == kept / "x.ko.xz"
    assert builds.find(BUILD, [tmp_path / "none.ko", plain]) == plain
    assert builds.find(OTHER, [plain]) == kept / "x.ko.xz"
    assert builds.find(bytes(20), [plain, packed]) is None


def test_a_file_that_others_can_write_is_not_found(tmp_path: Path) -> None:
    plain = tmp_path / "x.ko"
    plain.write_bytes(CONTENT)
    plain.chmod(0o666)
    assert builds.find(BUILD, [plain]) is None


def test_what_cannot_be_kept_is_told(tmp_path: Path, kept: Path) -> None:
    with pytest.raises(ModuleError, match=r"cannot keep .*: No such file"):
        builds.keep(tmp_path / "none.ko")
    kept.chmod(0o777)
    with pytest.raises(ModuleError, match="can be written to by others"):
        builds.keep(tmp_path / "none.ko")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"boot": "another"}'])
def test_other_journals_are_of_no_upgrade(tmp_path: Path, content: str) -> None:
    journal = tmp_path / "journal.json"
    assert not unfinished.unfinished(journal)
    journal.write_text(content)
    assert not unfinished.unfinished(journal)
    unfinished.require_finished(journal)


def test_an_upgrade_of_this_boot_is_unfinished(tmp_path: Path) -> None:
    journal = tmp_path / "journal.json"
    journal.write_text(json.dumps({"boot": unfinished.boot()}))
    assert unfinished.unfinished(journal)
    with pytest.raises(ModuleError, match="stands unfinished; run `ipttctl module upgrade`"):
        unfinished.require_finished(journal)
