# SPDX-License-Identifier: GPL-2.0
"""Parts of a right request that no schema can know: descriptors, links as they are now."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ipttproto import TABLE_SLOTS, Command, Hook, ProtocolError


@dataclass
class KnownLink:
    """A link as the module described it last."""

    id: int
    generation: int
    programs: Mapping[int, int]
    hook: int = Hook.TABLE
    family: int = 0


@dataclass
class World:
    """What is there at the moment.

    ``programs`` and ``packet_programs`` are descriptors that an attach to tables and to netfilter
    hooks may name, ``others`` descriptors that it may not, each by what it is; ``filters`` are
    right classic-BPF filters. ``payloads`` has for some of the programs the map that they use, and
    ``namespaces`` are descriptors of network namespaces.
    """

    programs: tuple[int, ...]
    others: Mapping[str, int] = field(default_factory=dict)
    filters: tuple[bytes, ...] = (b"",)
    packet_programs: tuple[int, ...] = (0,)
    payloads: Mapping[int, int] = field(default_factory=dict)
    namespaces: tuple[int, ...] = (0,)
    links: dict[int, KnownLink] = field(default_factory=dict)

    def learn(self, command: int, attributes: Mapping[str, Any]) -> None:
        """Take in what a reply says about a link."""
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
            )
        except KeyError as missing:
            raise ProtocolError(f"a reply about a link has no {missing}") from None

    def forget_links(self) -> None:
        """All links were removed."""
        self.links.clear()

    def some_link(self, pick: random.Random) -> KnownLink:
        """A link that is there; if none is, one that may be."""
        if self.links:
            return pick.choice(list(self.links.values()))
        return KnownLink(pick.randrange(1, 4), 1, dict.fromkeys(TABLE_SLOTS, 1))
