# SPDX-License-Identifier: GPL-2.0
"""The machine, mounted while the tests of one boot run, and traffic to trace on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.install.machine import InstalledMachine, machine


@pytest.fixture(scope="session", name="machine")
def _machine() -> Iterator[InstalledMachine]:
    assert os.environ.get("IPTT_STATE"), "these tests run in guests: make test-install"
    with machine() as installed:
        yield installed


@pytest.fixture(scope="session")
def releases() -> tuple[str, str]:
    """The kernels of the two boots."""
    first, second = os.environ["IPTT_RELEASES"].split()
    return first, second


@pytest.fixture(scope="module")
def traffic() -> Iterator[None]:
    """A rule, and a ping that matches it, until the tests are done."""
    rule = ("OUTPUT", "-p", "icmp", "-j", "ACCEPT")
    subprocess.run(["iptables-legacy", "-A", *rule], check=True)
    ping = subprocess.Popen(["ping", "-q", "-i", "0.5", "127.0.0.1"], stdout=subprocess.DEVNULL)
    yield
    ping.kill()
    ping.wait()
    subprocess.run(["iptables-legacy", "-D", *rule], check=True)
