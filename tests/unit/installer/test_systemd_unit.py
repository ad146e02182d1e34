# SPDX-License-Identifier: GPL-2.0
"""systemd's units."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from installer.tree import UNITS, unit
from ipttctl.errors import OtherOwnerError, PrivilegeError, UsageError
from tests.unit.installer.support import ROOT

AGENT, APPLY, UPGRADE = UNITS


def settings(name: str, of: str = APPLY) -> list[str]:
    """The words of a setting that a unit has."""
    found = re.findall(rf"^{name}=(.*)$", unit(of, PurePosixPath("/usr")), re.MULTILINE)
    return [word for value in found for word in value.split()]


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_it(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    program = tmp_path / "sbin/ipttctl"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = tmp_path / name.replace("@", "@web")
    # a directory of its own: units of this machine are no part of the test
    text = re.sub("Documentation=.*\n", "", unit(name, PurePosixPath(tmp_path)))
    path.write_text(text)

    def verify() -> subprocess.CompletedProcess[str]:
        command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = verify()
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    # the test can fail
    for wrong in ("RestartSec=soon", "NoNewPrivileges=perhaps"):
        path.write_text(text.replace("[Service]", f"[Service]\n{wrong}"))
        assert re.search("[Ff]ailed to parse", verify().stderr), wrong


def test_what_a_restart_does_not_mend() -> None:
    assert settings("Restart") == ["on-failure"]
    lasting = (UsageError, PrivilegeError, OtherOwnerError)
    prevented = [str(error.exit_code) for error in lasting]
    assert settings("RestartPreventExitStatus") == prevented


@pytest.mark.parametrize("name", UNITS)
def test_it_runs_what_is_installed(name: str) -> None:
    assert settings("ExecStart", name)[0] == "/usr/sbin/ipttctl"
    assert "{" not in unit(name, PurePosixPath("/usr/local"))
    assert name.removesuffix(".service") in (ROOT / "docs/install.md").read_text()


def test_the_agent_says_first_what_is_wrong_with_its_configuration() -> None:
    check, run = settings("ExecStartPre", AGENT), settings("ExecStart", AGENT)
    assert [word for word in check if word != "--check"] == run
    assert settings("RestartPreventExitStatus", AGENT) == [
        str(error.exit_code) for error in (UsageError, PrivilegeError)
    ]


@pytest.mark.parametrize("of", [AGENT, APPLY])
def test_it_has_no_mounts_of_its_own(of: str) -> None:
    """Names of network namespaces are mounts: those that come later would depend on propagation."""
    own = ("Private(Tmp|Devices|Mounts)", "Protect(Home|System|Kernel.*|ControlGroups|Proc)")
    more = (".*Paths", "Bind.*", "Root(Directory|Image)", "MountFlags", "TemporaryFileSystem")
    for setting in (*own, *more, "DynamicUser", "PrivateNetwork", "RestrictNamespaces"):
        assert settings(setting, of) == [], setting


def test_the_upgrade_of_before_comes_first() -> None:
    assert UPGRADE in settings("After")
    # and at each boot if it is enabled
    assert settings("WantedBy", UPGRADE) == ["multi-user.target"]
