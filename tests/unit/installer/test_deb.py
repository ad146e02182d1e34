# SPDX-License-Identifier: GPL-2.0
"""Messages of `make deb` without the tools that build packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from installer import deb
from tests.unit.installer.support import ROOT

CONTROL = """Source: x
Maintainer: x <x@localhost>
Build-Depends: debhelper-compat (= 999), no-such-package (>= 1), {}

Package: x
Architecture: all
Description: x
"""


def test_without_the_tools_it_says_so_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "installer", "deb", tmp_path / "dist"],
        cwd=ROOT,
        env={"PATH": str(tmp_path), "PYTHONPATH": f"{ROOT / 'ctl'}:{ROOT / 'proto'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = "installer: missing; run: apt install build-essential debhelper dh-dkms\n"
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.skipif(not os.access("/usr/bin/dpkg-checkbuilddeps", os.X_OK), reason="not Debian")
def test_what_the_control_file_asks_for_is_named(tmp_path: Path) -> None:
    (tmp_path / "debian").mkdir()
    (tmp_path / "debian" / "control").write_text(CONTROL.format("dpkg"))
    with pytest.raises(deb.ToolsMissingError) as missing:
        deb.check_tools(tmp_path)
    assert str(missing.value) == "missing; run: apt install debhelper no-such-package"
