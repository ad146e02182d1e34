# SPDX-License-Identifier: GPL-2.0
"""Foundations of the coexistence test: functions that take a packet, and the table in the docs."""

from __future__ import annotations

import re
from pathlib import Path

from tests.kernel.support.btf import Types
from tests.kernel.support.kernel_btf import functions_taking
from tests.kernel.support.tracers import TRACERS

SUPPORT = Path(__file__).resolve().parents[3] / "docs" / "support.md"


def test_functions_that_take_a_struct() -> None:
    types = Types()
    packet = types.struct("sk_buff", 8, [("len", types.u32, 0)])
    other = types.struct("net_device", 8, [("mtu", types.u32, 0)])
    to_packet, to_other = types.pointer(packet), types.pointer(other)
    types.function("first", [("skb", to_packet)])
    types.function("none", [("dev", to_other), ("length", types.u32)])
    types.function("last", [("dev", to_other), ("skb", to_packet)])
    types.function("pointer_to_it", [("skbs", types.pointer(to_packet))])
    assert functions_taking("sk_buff", types.blob()) == {"first", "last"}


def test_every_tracer_is_in_the_documents() -> None:
    row = re.compile(r"^\| ([^|]+) (?:\| [^|]+ ){3}\|$", re.MULTILINE)
    named = {name for cells in row.findall(SUPPORT.read_text()) for name in cells.split(", ")}
    missing = [t.name for t in TRACERS if t.name.removesuffix(", filtered") not in named]
    assert not missing
