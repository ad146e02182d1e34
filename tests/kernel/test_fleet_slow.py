# SPDX-License-Identifier: GPL-2.0
"""An agent whose packets to the hub are late and lost: not every kernel has netem, guests' have."""

from __future__ import annotations

from tests.unit.ctl.fleet import test_faults
from tests.unit.ctl.fleet.test_faults import Apart

apart = test_faults.apart


def test_a_network_that_loses_packets_and_is_cut_loses_nothing(apart: Apart) -> None:
    test_faults.check_slow_and_cut(apart, "netem")
