# SPDX-License-Identifier: GPL-2.0
"""Packets with their copies and parts, which are in one story."""

from __future__ import annotations

from ipttproto import JoinedBatches, Kind


class Families:
    """Which packets are copies or parts of which."""

    def __init__(self) -> None:
        """Begin with none."""
        self._originals: dict[int, int] = {}

    def learn(self, events: JoinedBatches) -> None:
        """Look at events."""
        kinds = events.values("kind")
        copies = [place for place, kind in enumerate(kinds) if kind == Kind.JOURNEY_COPY]
        # in the order of the record
        for original, packet in events.rows(("rule_handle", "packet"), copies):
            self._originals.setdefault(packet, original)

    def first(self, packet: int) -> int:
        """The packet that all of a family began with."""
        seen = set()
        # a recording may be made up, and go round
        while packet in self._originals and packet not in seen:
            seen.add(packet)
            packet = self._originals[packet]
        return packet
