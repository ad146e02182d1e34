# SPDX-License-Identifier: GPL-2.0
"""The hand-written parts of manual pages."""

from __future__ import annotations

import re

from installer import manual
from tests.unit.installer.support import ROOT


def test_every_part_has_its_page() -> None:
    parts = {part.stem for part in manual.WRITTEN.glob("*.roff")}
    assert "ipttctl" in parts
    assert not parts - {page.removesuffix(".8") for page in manual.pages()}


def test_every_variable_is_explained() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "ctl").rglob("*.py"))
    used = set(re.findall(r'"((?:IPTT\w+_|BCC_KERNEL_)[A-Z]+|NO_COLOR)"', code))
    assert used >= {"IPTTRACE_KO", "IPTTCTL_CACHE", "NO_COLOR"}
    page = manual.pages()["ipttctl.8"].split(".SH ENVIRONMENT")[1].split("\n.SH ")[0]
    assert set(re.findall(r"^\.B ([A-Z_]+)$", page, re.MULTILINE)) == used


def test_examples_are_commands_that_exist() -> None:
    commands = {" ".join(command.path): command for command in manual.root().all()}
    for page in manual.pages().values():
        text = page.replace("\\-", "-")
        for line in re.findall(r"^\.B (ipttctl [a-z].*?)(?: \||$)", text, re.MULTILINE):
            if line in commands:
                continue
            name = max((known for known in commands if f"{line} ".startswith(f"{known} ")), key=len)
            assert set(re.findall(r"(?<!\S)--?[A-Za-z][\w-]*", line)) <= commands[name].options()
