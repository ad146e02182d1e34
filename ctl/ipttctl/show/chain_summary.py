# SPDX-License-Identifier: GPL-2.0
"""Equal chains told once, with their number: those of the same hosts, rules, wires and ends."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from ipttctl.joins.chains import StoryChain
from ipttctl.show.chain_text import FORMAT, NO_STORY, chain_lines, chain_object, written
from ipttctl.show.group_lines import group_lines

MOST_CHAIN_GROUPS: Final = 1 << 10
"""Most groups of equal chains that are told; the others are counted together."""

_MOST_BYTES: Final = 1 << 26
"""Most bytes of the examples."""

_Key: TypeAlias = tuple[object, ...]

#: what equal steps have in common, by their kind; the others only have to be there
_OF_STEPS: Final[Mapping[str, Sequence[str]]] = {
    "hook": ("hook_family", "hook", "netns", "verdict", "errno"),
    "route": ("device", "rerouted"),
    "sent": ("device", "netns"),
    "received": ("device", "netns"),
}
_OF_CONSULTED: Final = ("backend", "table_family", "table", "chain", "connection_known", "verdict")
_OF_RULES: Final = ("kind", "chain", "rulenum", "rule_handle", "decision", "target", "rule")
_OF_ENDS: Final = ("kind", "hook", "function", "module", "drop_reason_number", "device", "queue")


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
            way = repr(tuple(_parts(told.story)))
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


def _parts(story: Mapping[str, Any]) -> Iterator[object]:
    """The parts of a story that equal ones share."""
    yield story["netns"], story["in_device"]
    for step in story["steps"]:
        kind = step["step"]
        if kind == "branch":
            if not step["folded"]:
                yield tuple(_parts(step["story"]))
            continue
        yield kind, *(step[name] for name in _OF_STEPS.get(kind, ()))
        for call in step["functions"] if kind == "hook" else ():
            yield call["function"], call["verdict"]
            for consulted in call["consulted"]:
                yield tuple(consulted[name] for name in _OF_CONSULTED)
                for rule in consulted["rules"]:
                    yield tuple(rule[name] for name in _OF_RULES)
    end = story["end"]
    yield tuple(end.get(name) for name in _OF_ENDS)
    yield tuple((end.get("rule") or {}).get(name) for name in _OF_RULES)
