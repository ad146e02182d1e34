# SPDX-License-Identifier: GPL-2.0
"""First boot: installation of the package, then of another kernel."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ipttctl.paths import VERSION
from tests.install.machine import InstalledMachine, bring

Releases = tuple[str, str]


def test_nothing_of_it_is_there_yet(machine: InstalledMachine) -> None:
    assert not machine.path("/usr/sbin/ipttctl").exists()
    assert not machine.path("/usr/lib/ipttctl").exists()


def test_install_builds_the_module_for_this_kernel(
    machine: InstalledMachine, releases: Releases
) -> None:
    assert os.uname().release == releases[0]
    # The machine has these two kernels: DKMS would build for the newest one too.
    for image in machine.path("/boot").glob("*-6.*"):
        if not image.name.endswith(releases):
            image.unlink()
    bring(Path(os.environ["IPTT_PACKAGE"]), machine.path("/root/ipttctl.deb"))
    machine.run("dpkg", "--install", "/root/ipttctl.deb")
    assert machine.dkms_has(releases[0])
    assert not machine.dkms_has(releases[1])


def test_programs_pages_and_completion_are_there(machine: InstalledMachine) -> None:
    assert machine.run("ipttctl", "--version").startswith(f"ipttctl {VERSION}, protocol ")
    assert "ipttctl-trace" in machine.run("man", "--where", "ipttctl-trace")
    script = "source /usr/share/bash-completion/completions/ipttctl; complete -p ipttctl"
    assert "_ipttctl_completion" in machine.run("bash", "-c", script)


def test_the_library_is_importable_by_scripts(machine: InstalledMachine) -> None:
    script = "import ipttctl; print(ipttctl.Controller.__name__, ipttctl.__file__)"
    printed = machine.run("/usr/lib/ipttctl/bin/python3", "-c", script)
    assert printed.startswith("Controller /usr/lib/ipttctl/")


def test_doctor_finds_no_failure(machine: InstalledMachine, releases: Releases) -> None:
    lines = machine.run("ipttctl", "doctor", "-o", "json").splitlines()
    found = {finding["check"]: finding for finding in map(json.loads, lines)}
    assert {finding["state"] for finding in found.values()} <= {"ok", "warning"}
    for check in ("privilege", "kernel", "configuration", "symbols", "ftrace", "btf", "headers"):
        assert found[check]["state"] == "ok", found[check]
    for check in ("compiler", "bpfcc", "libraries", "python", "lockdown", "signature", "bpffs"):
        assert found[check]["state"] == "ok", found[check]
    # the kernel that is installed next has no module yet
    assert releases[1] in found["module file"]["text"]
    assert found["module"]["text"] == "not loaded"


def test_the_module_loads_and_unloads(machine: InstalledMachine, releases: Releases) -> None:
    loaded = machine.run("ipttctl", "module", "load")
    assert loaded.startswith(f"loaded /lib/modules/{releases[0]}/updates/dkms/ipttrace.ko")
    doctor = machine.run("ipttctl", "doctor")
    assert f"ok      module         loaded, version {VERSION}" in doctor
    machine.run("ipttctl", "module", "unload")


def test_installing_another_kernel_builds_the_module_for_it(
    machine: InstalledMachine, releases: Releases
) -> None:
    # dpkg runs this when it configures that kernel's headers
    script = f"/var/lib/dpkg/info/linux-headers-{releases[1]}.postinst"
    machine.run(script, "configure")
    assert machine.dkms_has(releases[1])
    doctor = machine.run("ipttctl", "doctor")
    assert f"ok      module file    /lib/modules/{releases[0]}/" in doctor
