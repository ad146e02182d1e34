# SPDX-License-Identifier: GPL-2.0
"""Trust in the path to a file: links are followed as by the kernel."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ipttctl.bpf.private_dirs import check_private, make_private, way
from ipttctl.errors import ProgramError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a" / "b" / "file"
    path.parent.mkdir(parents=True)
    path.touch(0o644)
    return path


def below(place: Path, path: Path) -> list[tuple[str, bool]]:
    """The steps to a path that are below a place."""
    return [
        (str(step.relative_to(place)), last)
        for step, last in way(path)
        if step.is_relative_to(place) and step != place
    ]


def test_the_way_is_every_place_that_is_looked_at(file: Path, tmp_path: Path) -> None:
    assert next(iter(way(file))) == (Path("/"), False)
    assert below(tmp_path, file) == [("a", False), ("a/b", False), ("a/b/file", True)]
    (tmp_path / "down").symlink_to("a/b")
    (tmp_path / "a" / "up").symlink_to(f"../down/../b/{file.name}")
    assert below(tmp_path, tmp_path / "a" / "up") == [
        ("a", False),
        ("a/up", True),
        ("down", False),
        ("a", False),
        ("a/b", False),
        ("a/b", False),
        ("a/b/file", True),
    ]
    (tmp_path / "absolute").symlink_to(file)
    assert below(tmp_path, tmp_path / "absolute")[0] == ("absolute", True)
    assert below(tmp_path, tmp_path / "absolute")[-1] == ("a/b/file", True)


def test_a_relative_path_begins_where_we_are(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert list(way(Path(file.name))) == list(way(file))


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(OSError, match=rf"\[Errno {errno.ELOOP}\] {os.strerror(errno.ELOOP)}"):
        check_private(tmp_path / "one", follow=True)


def test_as_many_links_as_the_kernel_follows(file: Path, tmp_path: Path) -> None:
    (tmp_path / "0").symlink_to(file)
    for number in range(1, 41):
        (tmp_path / str(number)).symlink_to(str(number - 1))
    (tmp_path / "39").read_bytes()
    check_private(tmp_path / "39", follow=True)
    for read in (Path.read_bytes, lambda path: check_private(path, follow=True)):
        with pytest.raises(OSError, match="symbolic links"):
            read(tmp_path / "40")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check_private(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("mode", "trusted"), [(0o644, True), (0o600, True), (0o664, False), (0o646, False)]
)
def test_modes_of_a_file(file: Path, mode: int, trusted: bool) -> None:
    file.chmod(mode)
    if trusted:
        check_private(file)
        return
    with pytest.raises(ProgramError) as caught:
        check_private(file)
    assert caught.value.problem == f"do not trust {file}: {file} can be written to by others"
    assert caught.value.remedy == f"run: chmod go-w {file}"


def test_a_sticky_directory_is_no_place_of_ones_own_but_leads_to_some(file: Path) -> None:
    file.parent.chmod(0o1777)
    check_private(file)
    with pytest.raises(ProgramError, match=f"{file.parent} can be written to by others"):
        check_private(file.parent)


def test_a_link_in_the_place_of_a_file(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    check_private(link, follow=True)
    with pytest.raises(ProgramError, match=f"{link} is a symbolic link; run: rm {link}"):
        check_private(link)
    directory = tmp_path / "directory"
    directory.symlink_to(file.parent)
    check_private(directory / file.name)


def test_directories_are_made_for_their_owner(tmp_path: Path) -> None:
    made = tmp_path / "new" / "private"
    make_private(made)
    assert made.stat().st_mode & 0o7777 == 0o700
    make_private(made)
    made.chmod(0o770)
    with pytest.raises(ProgramError, match=f"{made} can be written to by others"):
        make_private(made)
