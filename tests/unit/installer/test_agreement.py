# SPDX-License-Identifier: GPL-2.0
"""Help, manual page and completion of each command agree."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from installer import manual
from installer.manual import Command
from ipttctl.cli import run
from ipttctl.cli.exit_codes import EXIT_CODES

COMMANDS = {" ".join(command.path): command for command in manual.root().all()}
PAGES = manual.pages()

pytestmark = pytest.mark.parametrize("name", COMMANDS)


def shown_help(command: Command, capsys: pytest.CaptureFixture[str]) -> str:
    assert run([*command.path[1:], "--help"]) == 0
    return capsys.readouterr().out


def completed(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> set[str]:
    """The words that completion offers at the end of a line."""
    monkeypatch.setenv("_IPTTCTL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
    with pytest.raises(SystemExit):
        run([])
    return set(capsys.readouterr().out.split())


def in_help(text: str) -> set[str]:
    """The options that a help text declares at the beginning of lines."""
    options = text.split("\nOptions:\n")[1].split("\n\n", maxsplit=1)[0]
    declared = re.findall(r"^  (-.*?)(?:  |$)", options, re.MULTILINE)
    return {name for line in declared for name in re.findall(r"(?<!\S)--?[\w-]+", line)}


def section(name: str) -> str:
    """The section of a manual page on a command."""
    words = name.split()
    page = PAGES[f"{'-'.join(words[:2])}.8"].replace("\\-", "-")
    if len(words) < 3:
        return re.split(r"^\.SH (?:COMMAND |EXIT STATUS)", page, flags=re.MULTILINE)[0]
    return page.split(f"\n.SH COMMAND {words[2].upper()}\n")[1].split("\n.SH ")[0]


def in_page(name: str) -> set[str]:
    """The options that a manual page declares for a command."""
    declared = re.findall(r"^\.TP\n\.B (-.*)$", section(name), re.MULTILINE)
    return {option for line in declared for option in re.findall(r"(?<!\S)--?[\w-]+", line)}


def test_options(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = COMMANDS[name].options()
    assert "--help" in expected
    assert in_help(shown_help(COMMANDS[name], capsys)) == expected
    assert in_page(name) == expected
    assert completed(f"{name} -", monkeypatch, capsys) == expected


def test_commands(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = [command.path[-1] for command in COMMANDS[name].subcommands()]
    if not inner:
        assert "Commands:" not in shown_help(COMMANDS[name], capsys)
        return
    listed = shown_help(COMMANDS[name], capsys).split("Commands:\n")[1].split("\n\n")[0]
    assert re.findall(r"^  ([\w-]+)  ", listed, re.MULTILINE) == inner
    assert completed(f"{name} ", monkeypatch, capsys) == set(inner)
    for command in inner:
        assert section(f"{name} {command}")


def test_page_says_what_help_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(section(name).replace("\\(dq", '"').replace("\\e", "\\").split())
    for paragraph in COMMANDS[name].text.split("\n\n"):
        assert " ".join(paragraph.split()) in text.replace(" .PP ", " ")
    shown = " ".join(shown_help(COMMANDS[name], capsys).split())
    for declaration, meaning in COMMANDS[name].parameters():
        assert f".B {declaration} {' '.join(meaning.split())}".strip() in text
        assert declaration in shown


def test_page_is_well_formed(name: str, tmp_path: Path) -> None:
    page = f"{'-'.join(name.split()[:2])}.8"
    file = tmp_path / page
    file.write_text(PAGES[page])
    command = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    for status in EXIT_CODES:
        assert f"\n.B {status}\n" in PAGES[page]
