# SPDX-License-Identifier: GPL-2.0
"""The machine, mounted for as long as the tests of one boot run."""

from __future__ import annotations

import os
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
