# SPDX-License-Identifier: GPL-2.0
"""systemd's unit for ``apply --watch``."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from installer.tree import unit
from ipttctl.errors import OtherOwnerError, PrivilegeError, UsageError
from tests.unit.installer.support import ROOT


def setting(name: str) -> str:
    """The value of a setting that the unit has once."""
    [value] = re.findall(rf"^{name}=(.*)$", unit(PurePosixPath("/usr")), re.MULTILINE)
    return str(value)


def test_systemd_takes_it(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    program = tmp_path / "sbin/ipttctl"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = tmp_path / "ipttctl-apply@web.service"
    # a directory of its own: units of this machine are no part of the test
    text = unit(PurePosixPath(tmp_path)).replace("Documentation=man:ipttctl-apply(8)\n", "")
    path.write_text(text)

    def verify() -> subprocess.CompletedProcess[str]:
        command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = verify()
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    # the test can fail
    path.write_text(text.replace("RestartSec=5", "RestartSec=soon"))
    assert "Failed to parse" in verify().stderr


def test_what_a_restart_does_not_mend() -> None:
    assert setting("Restart") == "on-failure"
    lasting = (UsageError, PrivilegeError, OtherOwnerError)
    prevented = [str(error.exit_code) for error in lasting]
    assert setting("RestartPreventExitStatus").split() == prevented


def test_it_runs_what_is_installed() -> None:
    assert setting("ExecStart").split()[0] == "/usr/sbin/ipttctl"
    assert "{" not in unit(PurePosixPath("/usr/local"))
    assert "ipttctl-apply@" in (ROOT / "docs/install.md").read_text()
