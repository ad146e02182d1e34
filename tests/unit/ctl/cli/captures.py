# SPDX-License-Identifier: GPL-2.0
"""Recordings with bytes of packets."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from ipttctl.recordings.writer import VERSION, RecordingWriter
from ipttproto import EventBatch, parse_batch
from tests.unit.ctl.stories.packets import Traveller
from tests.unit.ctl.support import batch_payload

#: an IPv4 packet of UDP, 192.0.2.1:7 > 192.0.2.2:9, of 4 bytes
DATAGRAM = bytes.fromhex("4500002000000000401176c8c0000201c000020200070009000c000061626364")


def with_bytes(traveller: Traveller, **members: Any) -> EventBatch:
    """The events of a packet, with its bytes."""
    events = [{**one, "link": 12, **members} for one in traveller.events]
    batch = parse_batch(batch_payload(events))
    capture = struct.pack("<II", 32, len(DATAGRAM)) + DATAGRAM
    return replace(batch, payloads=dict.fromkeys(range(1, len(events)), capture))


def write_capture(path: Path, *batches: EventBatch, snaplen: int = 64) -> Path:
    """Write a recording with bytes of packets."""
    begin = {"version": VERSION, "stories": True, "links": [12], "patience_ns": 1}
    with RecordingWriter(path, "web", "boot", 1 << 30, replace=True) as writer:
        writer.note({"about": "recording", **begin, "snaplen": snaplen})
        writer.write_events(batches)
        writer.end({"about": "end"})
    return path
