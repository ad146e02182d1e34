# SPDX-License-Identifier: GPL-2.0
"""Digests that programs must have."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ipttctl.bpf import syscalls
from ipttctl.cli import run
from ipttctl.errors import ProgramError, UsageError
from ipttctl.programs.digests import check_file, check_loaded, parse_digest
from ipttctl.programs.sources import FromObject, open_sources, source_digests
from ipttctl.state.file import read_state, state_object
from ipttproto import Slot

SHA = "sha256:" + "ab" * 32
TAG = "tag:" + "0f" * 8


def test_spelling() -> None:
    assert parse_digest(SHA.upper(), of_file=True) == SHA
    assert parse_digest(TAG, of_file=False) == TAG
    for text in ("", "ab" * 32, "md5:" + "ab" * 16, SHA[:-1], TAG + "0", "tag:" + "xx" * 8):
        with pytest.raises(UsageError, match="is no digest"):
            parse_digest(text, of_file=text.startswith("sha"))
    with pytest.raises(UsageError, match="sha256: is not the digest of a loaded program"):
        parse_digest(SHA, of_file=False)
    with pytest.raises(UsageError, match="tag: is not the digest of a file"):
        parse_digest(TAG, of_file=True)


def test_both_values_are_named(tmp_path: Path) -> None:
    file = tmp_path / "x.o"
    file.write_bytes(b"content")
    found = f"sha256:{hashlib.sha256(b'content').hexdigest()}"
    check_file(str(file), {Slot.EXIT: found})
    check_file(str(tmp_path / "none"), {})
    for data in (None, b"content"):
        with pytest.raises(ProgramError) as caught:
            check_file(str(file), {Slot.EXIT: SHA}, data)
        assert str(caught.value).startswith(
            f"slot exit: {file} has the digest {found}, not {SHA}; "
        )
    with pytest.raises(ProgramError, match="cannot read"):
        check_file(str(tmp_path / "none"), {Slot.EXIT: SHA})


def test_a_loaded_program(monkeypatch: pytest.MonkeyPatch) -> None:
    found = syscalls.LoadedProgram(id=5, type="kprobe", tag="0f" * 8, name="x")
    monkeypatch.setattr(syscalls, "program_info", lambda _: found)
    check_loaded(Slot.EXIT, 3, {Slot.EXIT: TAG})
    check_loaded(Slot.ENTRY, 3, {Slot.EXIT: SHA})
    with pytest.raises(ProgramError, match=f"program 5 has the digest {TAG}, not tag:1{'0' * 15}"):
        check_loaded(Slot.EXIT, 3, {Slot.EXIT: f"tag:1{'0' * 15}"})


def test_a_file_of_another_digest_is_not_loaded(object_file: Path) -> None:
    sources = {Slot.PACKET: FromObject(str(object_file), "drop")}
    right = {Slot.PACKET: f"sha256:{hashlib.sha256(object_file.read_bytes()).hexdigest()}"}
    assert source_digests(sources, expected=right) == source_digests(sources)
    with pytest.raises(ProgramError, match=f"not {SHA}"):
        source_digests(sources, expected={Slot.PACKET: SHA})
    with (
        pytest.raises(ProgramError, match=f"not {SHA}"),
        open_sources(sources, expected={Slot.PACKET: SHA}),
    ):
        pass


def test_in_a_file(tmp_path: Path) -> None:
    declared = {
        "links": {
            "a": {
                "hook": "table",
                "object": {"exit": "/x.o:x"},
                "pinned": {"entry": "/y"},
                "digest": {"exit": SHA, "entry": TAG},
            }
        }
    }
    path = tmp_path / "state.yaml"
    path.write_text(str(declared))
    state = read_state(str(path))
    assert state.links[0].programs.digests == {Slot.EXIT: SHA, Slot.ENTRY: TAG}
    assert state_object(state) == declared


@pytest.mark.parametrize(
    ("digest", "told"),
    [
        (f"exit={SHA}", "sha256: is not the digest of a loaded program; give tag:"),
        (f"rule={TAG}", "slot rule has no program"),
        ("exit=x", "'x' is no digest"),
        (TAG, "is not SLOT=VALUE"),
    ],
)
def test_on_the_command_line(digest: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["attach", "--id", "exit=7", "--digest", digest]) == 2
    assert f"--digest: {told}" in capsys.readouterr().err.replace("exit: ", "").replace(
        f"'{TAG}' ", ""
    )
