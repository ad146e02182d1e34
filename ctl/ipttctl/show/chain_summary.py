# SPDX-License-Identifier: GPL-2.0
"""Equal chains told once, with their number: those of the same hosts, rules, wires and ends."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from ipttctl.joins.chains import StoryChain
from ipttctl.show.chain_text import FORMAT, NO_STORY, chain_lines, chain_object, written
from ipttctl.show.group_lines import group_lines
from ipttctl.show.told_way import told_way

MOST_CHAIN_GROUPS: Final = 1 << 10
"""Most groups of equal chains that are told; the others are counted together."""

_MOST_BYTES: Final = 1 << 26
"""Most bytes of the examples."""

_Key: TypeAlias = tuple[object, ...]


@dataclass(slots=True)
class ChainGroup:
    """Equal chains: their number, and the first of them as an example."""

    example: StoryChain
    count: int = 0


class ChainSummary:
    """Counts equal chains."""

    def __init__(self) -> None:
        """Count from now on."""
        self._groups: dict[bytes, ChainGroup] = {}
        self._bytes = 0
        self.count = 0
        """Chains so far."""
        self.left_out = 0
        """Those of groups for which there was no room."""

    def add(self, chain: StoryChain) -> None:
        """Count a chain."""
        self.count += 1
        group = self._group(chain)
        if group is None:
            self.left_out += 1
        else:
            group.count += 1

    def groups(self) -> list[ChainGroup]:
        """The groups, the largest first."""
        return sorted(self._groups.values(), key=lambda group: -group.count)

    def lines(self, width: int = 80) -> list[str]:
        """Each group's number and example, and a line of totals; to be escaped."""
        groups = ((one.count, chain_lines(one.example, width - 2)) for one in self.groups())
        return list(group_lines(groups, self.left_out))

    def objects(self) -> list[dict[str, Any]]:
        """An object for each group."""
        return [
            {
                "type": "chain_group",
                "format": FORMAT,
                "count": group.count,
                "example": chain_object(group.example),
            }
            for group in self.groups()
        ]

    def json_lines(self) -> list[str]:
        """A line of JSON for each group."""
        return [written(one, one["example"]) for one in self.objects()]

    def _group(self, chain: StoryChain) -> ChainGroup | None:
        # values of hosts may be lists, which have no hash, and as long as hosts like
        key = hashlib.sha256(repr(_key_of_chain(chain)).encode(errors="backslashreplace")).digest()
        group = self._groups.get(key)
        if group is None:
            cost = sum(told.cost for told in chain.stories)
            if len(self._groups) >= MOST_CHAIN_GROUPS or self._bytes + cost > _MOST_BYTES:
                return None
            self._bytes += cost
            group = self._groups[key] = ChainGroup(chain)
        return group


def _key_of_chain(chain: StoryChain) -> _Key:
    """All that a group has in common."""
    stories = []
    for told in chain.stories:
        try:
            way = repr(tuple(told_way(told.story)))
        except NO_STORY:
            way = ""
        states = sorted(
            (one.mark.way.value, one.device, one.state.value)
            for one in told.sightings
            if not one.is_known
        )
        stories.append((told.life[0], way, tuple(states)))
    wires = sorted(
        (wire.begin, wire.end, wire.left.device, wire.came.device) for wire in chain.wires
    )
    return tuple(stories), tuple(wires)
