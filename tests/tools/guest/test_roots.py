# SPDX-License-Identifier: GPL-2.0
"""Roots of suites: their archives, and when one is brought up to date."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from guest import roots, tools_root
from guest.roots import Archive, Root, SuiteError

ARCHIVES = [
    Archive("http://mirror/debian/", "bookworm", "/usr/share/keyrings/d.gpg"),
    Archive("http://mirror/debian/", "bookworm-updates"),
    Archive("http://mirror/security/", "bookworm-security"),
    Archive("http://elsewhere/tools/", "nodistro"),
]
LONG_AGO = 1_000_000_000


def test_a_suite_comes_from_the_archives_of_this_machine() -> None:
    assert roots.sources(ARCHIVES, "bookworm", "trixie-backports") == [
        "deb [signed-by=/usr/share/keyrings/d.gpg] http://mirror/debian/ trixie main",
        "deb [signed-by=/usr/share/keyrings/d.gpg] http://mirror/debian/ trixie-backports main",
        "deb http://mirror/debian/ trixie-updates main",
        "deb http://mirror/security/ trixie-security main",
    ]
    of_this = roots.sources(ARCHIVES, "bookworm", "bookworm")
    assert [line.split()[-2] for line in of_this] == [
        "bookworm",
        "bookworm-updates",
        "bookworm-security",
    ]


def test_without_an_archive_of_this_release_there_is_no_suite() -> None:
    with pytest.raises(SuiteError, match="no archive of sid to take suite trixie from"):
        roots.sources(ARCHIVES, "sid", "trixie")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("debian.sources", "Types: deb\nURIs: http://x\nSigned-By: /usr/share/keyrings/a.gpg\n"),
        ("debian.list", "deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] http://x sid main\n"),
    ],
)
def test_the_keyring_is_that_of_the_machines_sources(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(text)
    assert roots._keyring(file) == "/usr/share/keyrings/a.gpg"
    file.write_text("deb http://x sid main\n")
    assert roots._keyring(file) == ""


class Preparing:
    """A root that was made once, whose commands are only noted."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = Root(directory / "root", "sid")
        self.root.path.mkdir()
        self.complete = self.root.path / roots.COMPLETE
        self.complete.touch()
        self.ran: list[str] = []
        self.installed = 0
        monkeypatch.setattr(roots, "run", lambda *command: self.ran.append(command[-1]))

    def prepare(self, contents: str = "") -> None:
        """Bring it up to date."""
        self.root.prepare("it takes long", self._install, contents)

    def _install(self) -> None:
        self.installed += 1


@pytest.fixture(name="made")
def _made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Preparing:
    return Preparing(tmp_path, monkeypatch)


def test_a_fresh_root_is_left_alone(made: Preparing, capsys: pytest.CaptureFixture[str]) -> None:
    made.prepare()
    assert (made.ran, made.installed, capsys.readouterr().out) == ([], 0, "")


def test_an_old_root_is_brought_up_to_date(made: Preparing) -> None:
    os.utime(made.complete, (LONG_AGO, LONG_AGO))
    made.prepare()
    assert (made.ran, made.installed) == (["update"], 1)
    made.prepare()
    assert made.installed == 1


def test_a_root_gets_what_was_added_to_its_list(made: Preparing) -> None:
    made.prepare("nftables")
    assert made.installed == 1
    made.prepare("nftables")
    assert made.installed == 1
    made.prepare("nftables ufw")
    assert made.installed == 2


def test_a_root_is_used_as_it_was_without_its_archive(
    made: Preparing, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: str) -> str:
        raise SuiteError("no answer")

    os.utime(made.complete, (LONG_AGO, LONG_AGO))
    monkeypatch.setattr(roots, "run", fails)
    made.prepare("ufw")
    assert capsys.readouterr().out == "The root of sid is used as it was: no answer\n"
    # but it is tried again
    made.prepare("ufw")
    assert "no answer" in capsys.readouterr().out


def test_nothing_starts_in_the_root_of_the_tools(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = Root(tmp_path / "root", "sid")
    (made.path / "usr" / "sbin").mkdir(parents=True)
    (made.path / roots.COMPLETE).touch()
    policy = made.path / "usr" / "sbin" / "policy-rc.d"
    statuses: list[int] = []

    def installing(*command: str) -> str:
        if "install" in command:
            statuses.append(os.waitstatus_to_exitcode(os.system(str(policy))))
        return ""

    monkeypatch.setattr(tools_root, "root", lambda: made)
    monkeypatch.setattr(roots, "run", installing)
    tools_root.prepare()
    assert statuses == [101]
