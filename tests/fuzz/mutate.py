# SPDX-License-Identifier: GPL-2.0
"""Ways to make a request invalid, one each; all of them know the structure of attributes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from ipttproto import Command, Comparison, Flag, LinkFlag, Slot
from ipttproto.attributes import BINARY, NLA_F_NESTED, NLA_TYPE_MASK, U64, Attribute
from ipttproto.family import ATTRIBUTE_SETS, LIMITS, Condition, ProgramSet, Top
from tests.fuzz.generate import Generator
from tests.fuzz.request import Node, Request, nest
from tests.fuzz.world import World

#: deeper than the kernel follows a policy (lib/nlattr.c: MAX_POLICY_RECURSION_DEPTH is 10)
_DEEPEST: Final = 14
_NLA_F_NET_BYTEORDER: Final = 1 << 14
_INSTRUCTION: Final = 8
#: members of a condition with which it makes no sense; None is without
_SENSELESS: Final[tuple[dict[str, int | None], ...]] = (
    {"per-time": 1000, "per-packets": 10},
    {"threshold": 0, "comparison": int(Comparison.BELOW)},
    {"comparison": int(Comparison.ABOVE), "per-time": None, "per-packets": None, "window": None},
    {"threshold": None},
)
#: the ways to say which link, or which swap, a request is about: one at a time
_WAYS: Final = frozenset({"link", "name", "transaction"})
#: a request with more attributes than this is not made longer
_MANY: Final = 100
#: how often something of an earlier request is replaced by something current
_REFRESHED: Final = 0.8
#: NFPROTO_NUMPROTO, and more than the hooks of any family
_FAMILIES, _HOOKS = 13, 8
_BITS: Final = (7, 8, 15, 16, 31, 32, 63, 64)


def _extremes() -> tuple[int, ...]:
    """Numbers at which code tends to fail: around powers of two and the protocol's bounds."""
    numbers = {0, 1, 2}
    for bit in _BITS:
        numbers |= {(1 << bit) - 1, 1 << bit, (1 << bit) + 1}
    for value, _ in LIMITS.values():
        numbers |= {value - 1, value, value + 1}
    for space in ATTRIBUTE_SETS:
        for attribute in space.attributes:
            for bound in (attribute.minimum, attribute.maximum):
                if bound is not None:
                    numbers |= {max(0, bound - 1), bound, bound + 1}
    return tuple(sorted(numbers))


EXTREMES: Final = _extremes()
_KNOWN: Final = tuple(a for space in ATTRIBUTE_SETS for a in space.attributes)
_COMMANDS: Final = (0, *(int(command) for command in Command), len(Command) + 1, 127, 128, 255)
_FLAGS: Final = (
    0,
    int(Flag.ACK),
    int(Flag.REQUEST | Flag.ACK | Flag.DUMP),
    int(Flag.REQUEST | Flag.ACK | Flag.MULTI),
    0x0105,  # NLM_F_ROOT alone
    0x0205,  # NLM_F_MATCH alone
    0x0805,  # NLM_F_APPEND
    0xFFFF,
)


class Mutator:
    """Changes requests in place."""

    def __init__(self, world: World, generator: Generator, pick: random.Random) -> None:
        self._world = world
        self._generator = generator
        self._pick = pick
        self.ways: tuple[Callable[[Request], None], ...] = (
            self.drop,
            self.drop,
            self.duplicate,
            self.shuffle,
            self.extreme_number,
            self.extreme_number,
            self.other_descriptor,
            self.other_descriptor,
            self.right_value,
            self.other_member,
            self.other_member,
            self.other_flags,
            self.other_payload,
            self.other_programs,
            self.senseless_condition,
            self.wrong_size,
            self.wrong_filter,
            self.other_kind,
            self.type_bits,
            self.unknown_attribute,
            self.known_attribute,
            self.another_way,
            self.wrap,
            self.lie_about_length,
            self.cut_short,
            self.trail,
            self.header,
            self.many_programs,
            self.patch,
            self.incapable,
            self.elsewhere,
            self.elsewhere,
            self.elsewhere,
            self.dump,
        )

    def mutate(self, request: Request) -> None:
        """Make the request invalid in one way, or in a few."""
        for _ in range(self._pick.choices((1, 2, 3, 6), (45, 25, 20, 10))[0]):
            self._pick.choice(self.ways)(request)

    def refresh(self, request: Request) -> None:
        """Make an earlier request name current objects."""
        link = self._world.some_link(self._pick)
        for node in request.all_nodes():
            schema = node.schema
            if (
                schema
                and schema.name in {"link", "fd", "expect-generation"}
                and isinstance(node.payload, bytes)
                and self._pick.random() < _REFRESHED
            ):
                node.payload = self._generator.value(schema, link)

    # --- presence of attributes -------------------------------------------------------------------

    def drop(self, request: Request) -> None:
        """Remove an attribute."""
        nodes = self._some_list(request)
        if nodes:
            del nodes[self._pick.randrange(len(nodes))]

    def duplicate(self, request: Request) -> None:
        """Repeat an attribute."""
        nodes = self._some_list(request)
        if nodes:
            nodes.insert(self._pick.randrange(len(nodes) + 1), self._pick.choice(nodes))

    def shuffle(self, request: Request) -> None:
        """Put attributes in another order."""
        self._pick.shuffle(self._some_list(request))

    def unknown_attribute(self, request: Request) -> None:
        """Add an attribute that no set has."""
        pick = self._pick
        number = pick.choice((0, len(_KNOWN), 0x3FFF, 0xFFFF, pick.randrange(0x10000)))
        self._insert(request, Node(number, pick.randbytes(pick.randrange(40))))

    def known_attribute(self, request: Request) -> None:
        """Add a valid attribute, perhaps in the wrong place."""
        for node in self._generator.nodes(self._pick.choice(_KNOWN)):
            self._insert(request, node)

    def another_way(self, request: Request) -> None:
        """Say in one more way which link, or which swap, it is about."""
        given = {node.schema.name for node in request.nodes if node.schema}
        if given & _WAYS and (others := sorted(_WAYS - given)):
            request.nodes += self._generator.nodes(Top.by_name[self._pick.choice(others)])

    def many_programs(self, request: Request) -> None:
        """Add more items to a list than are allowed."""
        known = request.all_nodes()
        lists = [node for node in known if node.schema and node.schema.multi]
        if lists and len(known) < _MANY:
            node = self._pick.choice(lists)
            for nodes in request.lists():
                if any(node is other for other in nodes):
                    nodes.extend([node] * self._pick.choice((2, 3, 100, 500)))
                    return

    # --- contents of attributes -------------------------------------------------------------------

    def extreme_number(self, request: Request) -> None:
        """Set a number at the edge of some range."""
        node = self._some_scalar(request)
        if node:
            size = 8 if node.schema and node.schema.type is U64 else 4
            value = self._pick.choice(EXTREMES) & ((1 << 8 * size) - 1)
            node.payload = value.to_bytes(size, "little")

    def other_descriptor(self, request: Request) -> None:
        """Name a descriptor of something that cannot be attached, or one that is not open."""
        found = [n for n in request.all_nodes() if n.schema and n.schema.name.endswith("fd")]
        if found:
            wrong = (*self._world.others.values(), 0x7FFFFFFF, 0xFFFFFFFF, 1023, 1 << 20)
            self._pick.choice(found).payload = self._pick.choice(wrong).to_bytes(4, "little")

    def right_value(self, request: Request) -> None:
        """Set another valid value."""
        node = self._some_scalar(request)
        if node and node.schema and not node.schema.nested:
            node.payload = self._generator.value(node.schema)

    def other_member(self, request: Request) -> None:
        """Set another kind of hook, slot or mode, which the rest may not fit."""
        found = [n for n in request.all_nodes() if n.schema and n.schema.enum]
        if found:
            node = self._pick.choice(found)
            assert node.schema
            node.payload = self._generator.value(node.schema)

    def other_flags(self, request: Request) -> None:
        """Set any combination of flags of a link, most of which another kind of hook takes."""
        for node in request.nodes:
            if node.schema is Top.by_name["flags"]:
                flags = self._pick.randrange(1 << max(LinkFlag).bit_length())
                node.payload = flags.to_bytes(4, "little")

    def other_payload(self, request: Request) -> None:
        """Name another open file in place of the map for payloads."""
        others = list(self._world.others.values())
        for node in request.all_nodes():
            if others and node.schema and node.schema.name == "payload-fd":
                other = self._pick.choice(others)
                node.payload = other.to_bytes(4, "little")

    def other_programs(self, request: Request) -> None:
        """Name programs of the other kinds of hooks, in a slot of theirs."""
        programs = ProgramSet.by_name["program"]
        for node in request.all_nodes():
            if node.schema is not programs or isinstance(node.payload, bytes):
                continue
            members = {child.schema.name: child for child in node.payload if child.schema}
            slot, fd = members.get("slot"), members.get("fd")
            if slot is None or fd is None:
                continue
            packet = slot.payload == int(Slot.PACKET).to_bytes(4, "little")
            others = self._world.programs if packet else self._world.packet_programs
            if others:
                other = Slot.ENTRY if packet else Slot.PACKET
                slot.payload = int(other).to_bytes(4, "little")
                fd.payload = self._pick.choice(others).to_bytes(4, "little")

    def senseless_condition(self, request: Request) -> None:
        """Have a condition say too much, too little, or nothing; a swap gets one if it has none."""
        guard = Top.by_name["guard"]
        guarded = any(node.schema is guard for node in request.nodes)
        if not guarded and request.command in {Command.SWAP, Command.TRANSACT}:
            request.nodes += self._generator.nodes(guard)
        for node in request.nodes:
            if node.schema is not guard or isinstance(node.payload, bytes):
                continue
            members = {child.schema.name: child for child in node.payload if child.schema}
            wrong = self._pick.choice(_SENSELESS)
            for name, number in wrong.items():
                if name in members:
                    node.payload.remove(members[name])
                if number is not None:
                    attribute = Condition.by_name[name]
                    payload = number.to_bytes(4, "little")
                    node.payload.append(Node(attribute.number, payload, attribute))

    def wrong_size(self, request: Request) -> None:
        """Add or remove some bytes."""
        node = self._some_scalar(request)
        if node and isinstance(node.payload, bytes):
            size = self._pick.choice((0, 1, 2, 3, 5, 7, 9, 16, len(node.payload) + 1))
            node.payload = (node.payload + self._pick.randbytes(size))[:size]

    def wrong_filter(self, request: Request) -> None:
        """Set a filter with an invalid length or invalid instructions."""
        found = [n for n in request.all_nodes() if n.schema and self._is_long(n.schema)]
        if not found:
            return
        node, pick = self._pick.choice(found), self._pick
        most = (node.schema.max_length if node.schema else None) or 0
        right = node.payload if isinstance(node.payload, bytes) else b""
        node.payload = pick.choice(
            (
                bytes(most),
                bytes(most + _INSTRUCTION),
                (right or bytes(_INSTRUCTION)) * (most // max(_INSTRUCTION, len(right))),
                pick.randbytes(_INSTRUCTION * pick.randrange(1, 20)),
                pick.randbytes(pick.randrange(most)),
                right + b"\x06\0\0\0\0\0\0\0",
            )
        )

    @staticmethod
    def _is_long(schema: Attribute) -> bool:
        return schema.type is BINARY and (schema.max_length or 0) > 100

    # --- encoding of attributes -------------------------------------------------------------------

    def other_kind(self, request: Request) -> None:
        """Put a nest in place of a value, or bytes in place of a nest."""
        node = self._some_node(request)
        if node is None:
            return
        if isinstance(node.payload, list):
            node.payload = self._pick.randbytes(self._pick.choice((0, 1, 4, 8, 33)))
        else:
            node.payload = self._generator.nodes(self._pick.choice(_KNOWN))

    def type_bits(self, request: Request) -> None:
        """Change the flags in an attribute's type, or its number."""
        node = self._some_node(request)
        if node:
            node.number ^= self._pick.choice(
                (NLA_F_NESTED, NLA_F_NESTED, _NLA_F_NET_BYTEORDER, 1, 2, NLA_TYPE_MASK)
            )

    def wrap(self, request: Request) -> None:
        """Wrap an attribute in nests, deeper than any real one."""
        nodes = self._some_list(request)
        if not nodes:
            return
        place = self._pick.randrange(len(nodes))
        node = nodes[place]
        for _ in range(self._pick.choice((1, 2, _DEEPEST))):
            node = nest(self._pick.choice((node.number, 1, 5)), [node])
        nodes[place] = node

    def lie_about_length(self, request: Request) -> None:
        """Claim another length in an attribute's header."""
        node = self._some_node(request)
        if node:
            true = len(node.build())
            node.length = self._pick.choice((0, 1, 3, 4, true + 1, true + 4, true - 1, 0xFFFF))

    # --- headers of the message -------------------------------------------------------------------

    def cut_short(self, request: Request) -> None:
        """End the message early."""
        request.cut = self._pick.choice((1, 2, 3, 4, self._pick.randrange(1, 200)))

    def trail(self, request: Request) -> None:
        """Add bytes after the last attribute."""
        request.tail += self._pick.randbytes(self._pick.randrange(1, 12))

    def patch(self, request: Request) -> None:
        """Overwrite bytes anywhere."""
        for _ in range(self._pick.randrange(1, 4)):
            request.patches.append((self._pick.randrange(4096), self._pick.randrange(256)))

    def header(self, request: Request) -> None:
        """Set a wrong command, version, flag or length in the message's headers."""
        pick = self._pick
        match pick.randrange(5):
            case 0:
                request.command = pick.choice(_COMMANDS)
            case 1:
                request.version = pick.choice((0, 2, 255))
            case 2:
                request.flags = pick.choice(_FLAGS) | int(Flag.ACK)
            case 3:
                request.reserved = pick.choice((1, 0xFFFF))
            case _:
                request.lie = pick.choice((-20, -16, -5, -4, -1, 1, 4, 1000, 0x7FFFFFFF))

    def dump(self, request: Request) -> None:
        """Send a request for one object as a dump."""
        request.flags |= int(Flag.DUMP)

    def elsewhere(self, request: Request) -> None:
        """Set another family, or another hook of it: few numbers are valid, and few just beyond."""
        name, most = self._pick.choice((("family", _FAMILIES), ("hooknum", _HOOKS)))
        for node in request.all_nodes():
            if node.schema and node.schema.name == name:
                node.payload = self._pick.randrange(most).to_bytes(4, "little")

    def incapable(self, request: Request) -> None:
        """Send as a thread that may use the family and may not load programs."""
        request.capable = False

    # --- choosing ---------------------------------------------------------------------------------

    def _some_list(self, request: Request) -> list[Node]:
        """A list of attributes; each second time the message's own, however much is in nests."""
        own, *nested = request.lists()
        return own if not nested or self._pick.random() < 0.5 else self._pick.choice(nested)

    def _some_node(self, request: Request) -> Node | None:
        nodes = request.all_nodes()
        return self._pick.choice(nodes) if nodes else None

    def _some_scalar(self, request: Request) -> Node | None:
        nodes = [node for node in request.all_nodes() if isinstance(node.payload, bytes)]
        return self._pick.choice(nodes) if nodes else None

    def _insert(self, request: Request, node: Node) -> None:
        nodes = self._some_list(request)
        nodes.insert(self._pick.randrange(len(nodes) + 1), node)
