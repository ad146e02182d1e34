# SPDX-License-Identifier: GPL-2.0
"""Fixtures: a network namespace for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.ctl.rules.support import Net


@pytest.fixture
def net() -> Iterator[Net]:
    made = Net()
    yield made
    made.close()
