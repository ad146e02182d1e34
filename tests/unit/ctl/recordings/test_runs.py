# SPDX-License-Identifier: GPL-2.0
"""Runs of sources that are asked together."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipttctl.errors import UsageError
from ipttctl.recordings.runs import ENDLESS, Run, Runs


def test_parts_of_a_run_that_follow_each_other_are_of_several_sources() -> None:
    """A hub may be exported every hour."""
    runs = Runs()
    runs.add(Path("one"), [Run("web", "b", "r", 10, 19), Run("db", "b", "r", 10, 50)])
    runs.add(Path("two"), [Run("web", "b", "r", 20, 29)])
    runs.add(Path("three"), [Run("web", "other", "r", 10, ENDLESS)])
    for began, ended in ((0, 10), (12, 13), (29, 40), (0, ENDLESS)):
        with pytest.raises(UsageError, match=r"four and (one|two) both have run r of host web"):
            runs.add(Path("four"), [Run("web", "b", "r", began, ended)])
    runs.add(Path("five"), [Run("web", "b", "r", 30, ENDLESS)])
