# SPDX-License-Identifier: GPL-2.0
"""Second boot: the other kernel, with nothing but the disk of the first boot."""

from __future__ import annotations

import json
import os

import pytest

from tests.install.machine import InstalledMachine

Releases = tuple[str, str]


def test_this_is_the_other_kernel_and_the_module_is_there(
    machine: InstalledMachine, releases: Releases
) -> None:
    assert os.uname().release == releases[1]
    assert machine.dkms_has(releases[1])
    assert not machine.path("/var/lib/ipttctl").exists()


@pytest.mark.usefixtures("traffic")
def test_doctor_sees_the_rules(machine: InstalledMachine) -> None:
    lines = machine.run("ipttctl", "doctor", "-o", "json").splitlines()
    found = {finding["check"]: finding for finding in map(json.loads, lines)}
    assert not [finding for finding in found.values() if finding["state"] == "failure"]
    assert found["module file"]["state"] == "ok"
    assert found["legacy tables"]["text"] == "initial: ip filter, 1 rules"


@pytest.mark.usefixtures("traffic")
def test_load_and_trace(machine: InstalledMachine, releases: Releases) -> None:
    loaded = machine.run("ipttctl", "module", "load")
    assert loaded.startswith(f"loaded /lib/modules/{releases[1]}/updates/dkms/ipttrace.ko")
    traced = machine.run("ipttctl", "trace", "--lines", "-c", "5", "icmp").splitlines()
    assert len(traced) == 6, "a header and five events"
    assert any("chain=OUTPUT" in line and "rulenum=1" in line for line in traced[1:])
    machine.run("ipttctl", "module", "unload")


def test_removal_leaves_nothing(machine: InstalledMachine, releases: Releases) -> None:
    machine.run("dpkg", "--purge", "ipttctl")
    for place in ("sbin/ipttctl", "lib/ipttctl", "src/ipttrace-0.1.0", "share/doc/ipttctl"):
        assert not machine.path(f"/usr/{place}").exists(), place
    for place in ("/var/lib/dkms/ipttrace", "/var/lib/ipttctl", "/var/cache/ipttctl"):
        assert not machine.path(place).exists(), place
    for release in releases:
        assert not list(machine.path(f"/lib/modules/{release}").rglob("ipttrace.ko*"))
