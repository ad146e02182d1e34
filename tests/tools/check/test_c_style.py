# SPDX-License-Identifier: GPL-2.0
"""The check of C files accepts good style and reports bad style."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.check.c_style import complaints
from tests.check.linux_scripts import linux_scripts

ROOT = Path(__file__).parents[3]
GOOD = "// SPDX-License-Identifier: GPL-2.0\n\nint answer(void)\n{\n\treturn 42;\n}\n"


@pytest.fixture(scope="module")
def scripts() -> Path:
    return linux_scripts(ROOT / ".build" / "check")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one C file, which has no finding."""
    (tmp_path / "kmod_netlink").mkdir()
    (tmp_path / "kmod_netlink" / "answer.c").write_text(GOOD)
    shutil.copy(ROOT / ".clang-format", tmp_path)
    return tmp_path


def test_good_code_passes(project: Path, scripts: Path) -> None:
    assert list(complaints(project, scripts)) == []


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("return 42;", "return  42;", "clang-format"),
        ("// SPDX-License-Identifier: GPL-2.0\n\n", "", "SPDX_LICENSE_TAG"),
        ("\treturn 42;", "\tBUG_ON(1);\n\treturn 42;", "AVOID_BUG"),
        ("\treturn 42;", "\tint theAnswer = 42;\n\n\treturn theAnswer;", "CAMELCASE"),
    ],
)
def test_bad_code_is_named(project: Path, scripts: Path, good: str, bad: str, said: str) -> None:
    (project / "kmod_netlink" / "answer.c").write_text(GOOD.replace(good, bad))
    found = list(complaints(project, scripts))
    assert any(said in line and "answer.c" in line for line in found), found


def test_the_configuration_is_the_kernels(project: Path, scripts: Path) -> None:
    with (project / ".clang-format").open("a") as configuration:
        configuration.write("# ours\n")
    [complaint] = complaints(project, scripts)
    assert complaint.startswith(".clang-format: not the kernel's")
