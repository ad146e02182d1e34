# SPDX-License-Identifier: GPL-2.0
"""Right requests for every operation, from the attribute sets of the protocol."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final

from ipttproto.attributes import BINARY, STRING, U64, Attribute, AttributeSet
from ipttproto.family import OPERATIONS, RECORDS, Operation, Top
from tests.fuzz.request import Node, Request, nest
from tests.fuzz.world import KnownLink, World

REQUESTS: Final = tuple(operation for operation in OPERATIONS if operation.group is None)
_FAMILIES: Final = (0, 2, 10)


class Generator:
    """Makes requests that the module should take, from the schema and from what is there."""

    def __init__(self, world: World, pick: random.Random) -> None:
        self._world = world
        self._pick = pick

    def request(self, operation: Operation | None = None) -> Request:
        """A right request, of a random operation unless one is given."""
        pick = self._pick
        if operation is None:
            # those that take a program set have the most to get wrong
            weights = [4 if "programs" in o.request else 1 for o in REQUESTS]
            operation = pick.choices(REQUESTS, weights)[0]
        link = self._world.some_link(pick)
        nodes = []
        for name in operation.request:
            nodes += self.nodes(Top.by_name[name], link)
        return Request(operation.command, nodes)

    def nodes(self, attribute: Attribute, link: KnownLink | None = None) -> list[Node]:
        """The attribute with a right value; several of them if it may come several times."""
        link = link or self._world.some_link(self._pick)
        if attribute.nested is None:
            return [Node(attribute.number, self.value(attribute, link), attribute)]
        if not attribute.multi:
            return [nest(attribute.number, self._content(attribute.nested, link, {}), attribute)]
        return [
            nest(attribute.number, self._content(attribute.nested, link, key), attribute)
            for key in self._keys(attribute.nested)
        ]

    def value(
        self, attribute: Attribute, link: KnownLink | None = None, slot: int | None = None
    ) -> bytes:
        """A right value of an attribute that nests nothing."""
        pick = self._pick
        link = link or self._world.some_link(pick)
        if attribute.type is STRING:
            length = pick.randrange((attribute.max_length or 20) + 1)
            return bytes(pick.randrange(33, 127) for _ in range(length)) + b"\0"
        if attribute.type is BINARY:
            return self._binary(attribute)
        size = 8 if attribute.type is U64 else 4
        return self._number(attribute, link, slot, size).to_bytes(size, "little")

    def _content(self, space: AttributeSet, link: KnownLink, key: Mapping[str, int]) -> list[Node]:
        nodes = []
        for attribute in space.attributes:
            if attribute.name in key:
                value = key[attribute.name].to_bytes(4, "little")
                nodes.append(Node(attribute.number, value, attribute))
            elif attribute.nested:
                nodes += self.nodes(attribute, link)
            else:
                value = self.value(attribute, link, key.get("slot"))
                nodes.append(Node(attribute.number, value, attribute))
        return nodes

    def _keys(self, space: AttributeSet) -> list[dict[str, int]]:
        """What tells the items of a list apart: each its own member of an enumeration."""
        for attribute in space.attributes:
            if attribute.enum:
                members = [int(member) for member in attribute.enum]
                chosen = self._pick.sample(members, self._pick.randrange(1, len(members) + 1))
                return [{attribute.name: member} for member in chosen]
        return [{} for _ in range(self._pick.randrange(1, 4))]

    def _binary(self, attribute: Attribute) -> bytes:
        if attribute.name == "filter":
            return self._pick.choice(self._world.filters)
        if attribute.record:
            return self._pick.randbytes(RECORDS[attribute.record][0].sizeof())
        return self._pick.randbytes(self._pick.randrange((attribute.max_length or 64) + 1))

    def _number(self, attribute: Attribute, link: KnownLink, slot: int | None, size: int) -> int:
        pick = self._pick
        # what the schema does not know
        known: dict[str, Callable[[], int]] = {
            "fd": lambda: pick.choice(self._world.programs),
            "link": lambda: link.id,
            "expect-generation": lambda: link.generation,
            "id": lambda: link.programs.get(slot or 0, 0),
            "family": lambda: pick.choice(_FAMILIES),
        }
        if attribute.name in known:
            return known[attribute.name]()
        if attribute.enum:
            return int(pick.choice(list(attribute.enum)))
        least = attribute.minimum or 0
        most = attribute.maximum if attribute.maximum is not None else (1 << 8 * size) - 1
        return pick.randint(least, most)
