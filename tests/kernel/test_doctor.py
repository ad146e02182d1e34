# SPDX-License-Identifier: GPL-2.0
"""``ipttctl doctor`` on a real kernel: rules of both back ends, in different namespaces.

legacy: a rule in filter, a process inside           native: a table of nft, no process inside
quiet: no rules
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipttctl.cli.exit_codes import FAILED
from ipttctl.host import doctor, module
from ipttctl.host.doctor import Finding, Health
from ipttproto import FINGERPRINT, MINOR, VERSION
from tests.kernel.support.cli import IPTTCTL, ipttctl
from tests.kernel.support.kernel import ftrace_switched_off, wait_for
from tests.kernel.support.network import namespace


@pytest.fixture
def rules() -> Iterator[None]:
    with namespace("legacy") as legacy, namespace("native") as native, namespace("quiet"):
        legacy.iptables("-A", "INPUT", "-j", "ACCEPT")
        legacy.ip6tables("-t", "raw", "-A", "OUTPUT", "-p", "udp")
        native.run("nft", "add", "table", "inet", "mine")
        resident = legacy.start(signal.pause)
        wait_for(lambda: inside(resident.pid) == legacy.inode, what="the resident moved in")
        yield
        resident.terminate()
        resident.join()


def inside(pid: int | None) -> int:
    """The network namespace of a process."""
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


def examined() -> dict[str, Finding]:
    return {finding.check: finding for finding in doctor.examine()}


@pytest.mark.usefixtures("rules")
def test_this_kernel_has_what_is_needed_and_rules_are_found() -> None:
    before = Path("/proc/modules").read_text()
    found = examined()
    for check in ("kernel", "configuration", "symbols", "ftrace", "btf", "headers", "bpffs"):
        assert found[check].state is Health.OK, found[check]
    for check in ("privilege", "bpfcc", "libraries", "python", "lockdown", "signature"):
        assert found[check].state is Health.OK, found[check]
    assert found["module"].text.endswith(f"protocol {VERSION}.{MINOR}, build {FINGERPRINT:08x}")
    assert os.uname().release in found["kernel"].text

    rules = found["rules"]
    assert rules.state is Health.OK
    assert "iptables-legacy ip filter (up to 1 rules)" in rules.text
    assert "iptables-legacy ip6 raw (up to 1 rules)" in rules.text
    assert "native: nft inet mine (no rules)" in rules.text
    assert "quiet" not in rules.text
    assert rules.text.endswith("trace sees both back ends")
    assert found["walk"].state is Health.OK
    names = {line.split()[0] for line in before.splitlines()}
    assert {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()} == names


def test_ftrace_that_is_switched_off_is_a_failure() -> None:
    with ftrace_switched_off():
        assert examined()["ftrace"].remedy == "sysctl kernel.ftrace_enabled=1"


def test_the_command_ends_as_its_findings_say() -> None:
    done = ipttctl("doctor", "-o", "json")
    states = [json.loads(line)["state"] for line in done.stdout.splitlines()]
    assert len(states) == len(doctor.CHECKS)
    assert done.returncode == (FAILED if "failure" in states else 0)


@pytest.mark.usefixtures("rules")
def test_hidden_tables_are_not_taken_for_none() -> None:
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    command = (*nobody, "--", *IPTTCTL, "doctor", "-o", "json")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = {finding["check"]: finding for finding in map(json.loads, done.stdout.splitlines())}
    assert found["rules"]["text"].startswith("cannot tell: "), (found["rules"], done.stderr)
    assert found["rules"]["remedy"] == "run it as root"


def test_a_module_that_insmod_loaded_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUILT", Path("/nowhere"))
    monkeypatch.setattr(module, "own_file", lambda *_: Path("/nowhere"))
    found = examined()
    assert found["module"].state is Health.OK
    assert found["module file"].state is Health.WARNING
    assert "the module that is loaded works" in found["module file"].text


def test_without_privilege_it_says_so_and_goes_on() -> None:
    powerless = ("setpriv", "--bounding-set", "-all", "--", *IPTTCTL, "doctor", "-o", "json")
    done = subprocess.run(powerless, capture_output=True, text=True, check=False)
    found = {finding["check"]: finding for finding in map(json.loads, done.stdout.splitlines())}
    assert len(found) == len(doctor.CHECKS), done.stderr
    assert found["privilege"]["state"] == "failure"
    assert found["module"]["state"] == "warning"
    assert done.returncode == FAILED
