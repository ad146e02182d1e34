# SPDX-License-Identifier: GPL-2.0
"""The package on Debian 13: installed, its module built and loaded, used, removed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ipttctl.paths import VERSION
from tests.install.machine import InstalledMachine, bring


def test_install_builds_the_module(machine: InstalledMachine) -> None:
    assert 'VERSION_ID="13"' in machine.path("/etc/os-release").read_text()
    bring(Path(os.environ["IPTT_PACKAGE"]), machine.path("/root/ipttctl.deb"))
    machine.run("dpkg", "--install", "/root/ipttctl.deb")
    assert machine.dkms_has(os.uname().release)
    assert machine.run("ipttctl", "--version").startswith(f"ipttctl {VERSION}, protocol ")


@pytest.mark.usefixtures("traffic")
def test_doctor_finds_no_failure(machine: InstalledMachine) -> None:
    lines = machine.run("ipttctl", "doctor", "-o", "json").splitlines()
    found = {finding["check"]: finding for finding in map(json.loads, lines)}
    assert not [finding for finding in found.values() if finding["state"] == "failure"]
    assert found["module file"]["state"] == "ok"
    assert found["legacy tables"]["text"] == "initial: ip filter, 1 rules"


@pytest.mark.usefixtures("traffic")
def test_load_and_trace(machine: InstalledMachine) -> None:
    machine.run("ipttctl", "module", "load")
    traced = machine.run("ipttctl", "trace", "--lines", "-c", "5", "icmp").splitlines()
    assert len(traced) == 6, "a header and five events"
    assert any("chain=OUTPUT" in line and "rulenum=1" in line for line in traced[1:])
    machine.run("ipttctl", "module", "unload")


def test_removal_leaves_nothing(machine: InstalledMachine) -> None:
    machine.run("dpkg", "--purge", "ipttctl")
    for place in ("/usr/sbin/ipttctl", "/usr/lib/ipttctl", "/var/lib/dkms/ipttrace"):
        assert not machine.path(place).exists(), place
