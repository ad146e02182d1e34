# SPDX-License-Identifier: GPL-2.0
"""Queues that programs listen to, as the kernel lists them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipttctl.system import netns
from ipttctl.system.nf_queues import any_listener


@pytest.mark.parametrize(
    ("listed", "found"),
    [("    5  31621     0 2 65531     0     0        0  1\n", True), ("", False), (None, False)],
)
def test_a_line_is_a_listener(tmp_path: Path, listed: str | None, found: bool) -> None:
    file = tmp_path / "nfnetlink_queue"
    if listed is not None:
        file.write_text(listed)
    namespace = os.open(netns.OWN, os.O_RDONLY)
    try:
        assert any_listener(namespace, file) == found
    finally:
        os.close(namespace)
