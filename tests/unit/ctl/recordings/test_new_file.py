# SPDX-License-Identifier: GPL-2.0
"""Files that are made whole or not at all: what was there before stays until then."""

from __future__ import annotations

import errno
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from ipttctl.errors import UsageError
from ipttctl.recordings.new_file import new_file, new_files
from ipttctl.recordings.tables import parquet_of
from ipttctl.recordings.writer import RecordingError


def names(directory: Path) -> list[str]:
    """The names of what is in a directory."""
    return sorted(one.name for one in directory.iterdir())


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with new_file(path, replace=True, read=None) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
        [other] = [one for one in tmp_path.iterdir() if one != path]
        assert stat.S_IMODE(other.stat().st_mode) == 0o600
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_what_was_there(
    error: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def begin() -> None:
        with new_file(path, replace=True, read=None) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        begin()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_file_that_comes_meanwhile_stays_and_none_is_made(tmp_path: Path) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    with (
        pytest.raises(UsageError, match="two is there already"),
        new_files(paths, replace=False, read=None),
    ):
        paths[1].write_text("of somebody else")
    assert names(tmp_path) == ["two"]
    assert paths[1].read_text() == "of somebody else"


def test_of_a_link_the_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("of somebody else")
    path = tmp_path / "link"
    path.symlink_to("other")
    with pytest.raises(UsageError, match="already"), new_file(path, replace=False, read=None):
        pass
    with new_file(path, replace=True, read=None) as file:
        file.write(b"new")
    assert not path.is_symlink()
    assert (tmp_path / "other").read_text() == "of somebody else"
    os.mkfifo(tmp_path / "fifo")
    with (
        pytest.raises(UsageError, match="is not a file"),
        new_file(tmp_path / "fifo", replace=True, read=None),
    ):
        pass


def test_file_systems_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no hard links")

    def break_off(*_: Any) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    path = tmp_path / "file"
    with new_file(path, replace=False, read=None) as file:
        file.write(b"new")
    assert path.read_text() == "new"
    with (
        pytest.raises(UsageError, match="is there already"),
        new_file(tmp_path / "late", replace=False, read=None) as file,
    ):
        (tmp_path / "late").write_text("of somebody else")
    assert (tmp_path / "late").read_text() == "of somebody else"
    monkeypatch.setattr(Path, "replace", break_off)
    with (
        pytest.raises(OSError, match="broken"),
        new_file(tmp_path / "other", replace=False, read=None),
    ):
        pass
    assert names(tmp_path) == ["file", "late"]


def test_a_name_that_is_too_long_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="too long"),
        new_file(tmp_path / ("x" * 300), replace=False, read=None),
    ):
        pytest.fail("it was begun")


def test_all_files_get_their_names_whatever_signal_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.replace

    def interrupted(path: Path, target: Path) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        return real(path, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    paths = [tmp_path / name for name in ("one", "two")]
    with pytest.raises(KeyboardInterrupt), new_files(paths, replace=True, read=None):
        pass
    assert names(tmp_path) == ["one", "two"]


@pytest.mark.parametrize("error", [RecordingError, KeyboardInterrupt, OSError])
def test_tables_that_cannot_be_had_leave_no_directory(
    error: type[BaseException], tmp_path: Path
) -> None:
    def write(*_: Any) -> None:
        raise error("no connection")

    made = tmp_path / "tables"
    with pytest.raises((RecordingError, KeyboardInterrupt)):
        parquet_of(write, made, replace=False)
    assert not made.exists()
    made.mkdir()
    (made / "drops.parquet").write_text("old")
    with pytest.raises((RecordingError, KeyboardInterrupt)):
        parquet_of(write, made, replace=True)
    assert names(made) == ["drops.parquet"]
    assert (made / "drops.parquet").read_text() == "old"


def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / ".ipttctl-0123456789abcdef").write_text("a part")
    parquet_of(lambda *_: None, tmp_path, replace=False)
    assert len(names(tmp_path)) == 7
