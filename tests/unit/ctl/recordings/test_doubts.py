# SPDX-License-Identifier: GPL-2.0
"""Packets in doubt: what is kept of them while a recording is read."""

from __future__ import annotations

import pytest

from ipttctl.bpf.filter_run import FilterRun
from ipttctl.bpf.filters import compile_filter
from ipttctl.programs.trace import TraceOptions
from ipttctl.recordings.doubts import Doubts
from ipttctl.recordings.packet_pattern import PacketPattern
from tests.unit.ctl.stories.packets import flood, joined


@pytest.mark.parametrize(
    ("expression", "doubtful"), [("tcp[4:4] = 5", True), ("udp port 53", False)]
)
def test_of_packets_that_ended_a_bit_is_kept(expression: str, doubtful: bool) -> None:
    pattern = PacketPattern(TraceOptions(), FilterRun(compile_filter(expression), expression))
    doubts = Doubts(pattern)
    *ended, last = flood(50)
    for packet in ended:
        events = joined(packet.events)
        doubts.learn(events, pattern.answers(events), set())
    assert not doubts._open
    events = joined(last.events[:-1])
    doubts.learn(events, pattern.answers(events), set())
    assert [*doubts._open] == [50]
    assert doubts.packets() == (set(range(1, 51)) if doubtful else set())
