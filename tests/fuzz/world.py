# SPDX-License-Identifier: GPL-2.0
"""The parts of a valid request that no schema can have: descriptors, and current links."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ipttproto import TABLE_SLOTS, Command, Hook, ProtocolError


@dataclass
class KnownLink:
    """A link in the module's most recent description."""

    id: int
    generation: int
    programs: Mapping[int, int]
    hook: int = Hook.TABLE
    family: int = 0
    name: str = ""
    shadow: int = 0


@dataclass
class World:
    """The current objects.

    ``programs`` and ``packet_programs`` are descriptors that an attach to tables and to netfilter
    hooks may name, ``others`` descriptors that it may not, each by what it is; ``filters`` are
    valid classic-BPF filters. ``payloads`` has for some of the programs the map that they use, and
    ``namespaces`` are descriptors of network namespaces. ``sequence`` is the number of the last
    change of a link; links are ``restoring`` after they were parked.
    """

    programs: tuple[int, ...]
    others: Mapping[str, int] = field(default_factory=dict)
    filters: tuple[bytes, ...] = (b"",)
    packet_programs: tuple[int, ...] = (0,)
    payloads: Mapping[int, int] = field(default_factory=dict)
    namespaces: tuple[int, ...] = (0,)
    links: dict[int, KnownLink] = field(default_factory=dict)
    sequence: int = 0
    restoring: bool = False

    def learn(self, command: int, attributes: Mapping[str, Any]) -> None:
        """Store the description of a link from a reply."""
        self.sequence = attributes.get("links-sequence", self.sequence)
        link = attributes.get("link")
        if link is None:
            return
        if command == Command.DETACH:
            self.links.pop(link, None)
            return
        programs = attributes.get("programs", {}).get("program", [])
        try:
            self.links[link] = KnownLink(
                link,
                attributes["generation"],
                {p["slot"]: p["id"] for p in programs},
                attributes.get("hook", Hook.TABLE),
                attributes.get("family", 0),
                attributes.get("name", ""),
                attributes.get("shadow", {}).get("number", 0),
            )
        except KeyError as missing:
            raise ProtocolError(f"a reply about a link has no {missing}") from None

    def done(self, command: int) -> None:
        """Note that a command was carried out."""
        if command in {Command.PARK, Command.RESTORED}:
            self.restoring = command == Command.PARK

    def forget_links(self) -> None:
        """Forget all links: they were removed."""
        self.links.clear()
        self.restoring = False

    def some_link(self, pick: random.Random) -> KnownLink:
        """An existing link; if there is none, one that may exist."""
        if self.links:
            return pick.choice(list(self.links.values()))
        return KnownLink(pick.randrange(1, 4), 1, dict.fromkeys(TABLE_SLOTS, 1))
