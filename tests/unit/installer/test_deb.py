# SPDX-License-Identifier: GPL-2.0
"""Messages of `make deb` without the tools that build packages."""

from __future__ import annotations

import os
import re
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


def scripted(tmp_path: Path, script: str, *arguments: str, fits: bool = True) -> list[str]:
    """Run a script of the package in a directory of its own; returns the commands that it called.

    ``fits`` says whether the command speaks to the module that is loaded.
    """
    called = tmp_path / "called"
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("systemctl", "py3compile", "py3clean", "ipttctl"):
        status = 3 if name == "ipttctl" and not fits else 0
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{called}\nexit {status}\n')
        (programs / name).chmod(0o755)
    (tmp_path / "run/systemd/system").mkdir(parents=True, exist_ok=True)
    called.write_text("")
    text = (ROOT / "debian" / f"ipttctl.{script}").read_text()
    text = re.sub(r"(?<![\w.])/(var|run|sys|etc)/", rf"{tmp_path}/\1/", text)
    subprocess.run(
        ["sh", "-c", text, script, *arguments],
        env={"PATH": f"{programs}:/usr/bin:/bin"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return called.read_text().splitlines()


INSTANCES = "ipttctl-apply@*.service ipttctl-agent.service"


def test_removal_stops_what_would_lose_its_program(tmp_path: Path) -> None:
    assert f"systemctl stop {INSTANCES}" in scripted(tmp_path, "prerm", "remove")
    assert not any("stop" in line for line in scripted(tmp_path, "prerm", "upgrade", "9"))
    enabled = tmp_path / "etc/systemd/system/multi-user.target.wants/ipttctl-apply@web.service"
    enabled.parent.mkdir(parents=True)
    enabled.touch()
    scripted(tmp_path, "postrm", "remove")
    assert enabled.exists()
    scripted(tmp_path, "postrm", "purge")
    assert not enabled.exists()


def test_an_upgrade_restarts_what_runs_if_it_fits_the_module(tmp_path: Path) -> None:
    restart = f"systemctl try-restart {INSTANCES}"
    assert scripted(tmp_path, "postinst", "configure", "0.0.1")[-2:] == ["ipttctl links", restart]
    assert restart not in scripted(tmp_path, "postinst", "configure", "0.0.1", fits=False)
    # nothing runs yet
    assert restart not in scripted(tmp_path, "postinst", "configure", "")
