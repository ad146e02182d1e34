# SPDX-License-Identifier: GPL-2.0
"""Fixtures: a network namespace for each test, and rulesets that a thread works on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ipttctl.rules.rulesets import Rulesets
from tests.unit.ctl.rules.support import Net


@pytest.fixture
def net() -> Iterator[Net]:
    made = Net()
    yield made
    made.close()


@pytest.fixture
def rulesets() -> Iterator[Rulesets]:
    with Rulesets() as made:
        made.start()
        yield made
