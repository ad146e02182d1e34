# SPDX-License-Identifier: GPL-2.0
"""Fixtures: a module that lives in user space."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.ctl.support import FakeModule


@pytest.fixture
def module() -> Iterator[FakeModule]:
    fake = FakeModule()
    yield fake
    fake.close()
