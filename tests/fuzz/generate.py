# SPDX-License-Identifier: GPL-2.0
"""Valid requests for every operation, from the attribute sets of the protocol."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from typing import Final

from ipttctl.families import HOOKS, NfFamily
from ipttproto import (
    SPINE_SLOTS,
    TABLE_SLOTS,
    Command,
    Comparison,
    Counter,
    Hook,
    LinkFlag,
    NfMode,
    Slot,
)
from ipttproto.attributes import BINARY, STRING, U64, Attribute, AttributeSet, ScalarType
from ipttproto.family import (
    RECORDS,
    Change,
    Condition,
    Labels,
    Past,
    Program,
    ProgramSet,
    Top,
    limit,
)
from ipttproto.operations import OPERATIONS, Operation
from tests.fuzz.request import Node, Request, nest
from tests.fuzz.world import KnownLink, World

REQUESTS: Final = tuple(operation for operation in OPERATIONS if operation.group is None)
_TABLE_FAMILIES: Final = (0, 2, 10)
_EMITTING: Final = (Slot.RULE, Slot.FUNCTION, Slot.EXIT, Slot.PACKET, Slot.STEP)
#: the loopback device of every namespace
_LOOPBACK: Final = 1
#: how often a swap has a rollback, a set a payload, and a request the flag of a dump
_SOMETIMES: Final = 0.2
#: what a request need not have
_OPTIONAL: Final = (
    "rollback-after",
    "labels",
    "reason-text",
    "flags",
    "force",
    "guard",
    "expect-shadow",
    "promote-if",
)
#: the ways in which a request names its link; only commands about waiting swaps know the last one
_BY_TRANSACTION: Final = frozenset({"transaction"})
#: most guards of one request
_GUARDS: Final = 4
_OF_SHADOWS: Final = (Counter.AGREEMENTS, Counter.DISAGREEMENTS)
#: numbers of transactions, few enough for some to exist
_TRANSACTIONS: Final = 100
#: what is spelled as names are; few of them, so that some are taken
_NAMES: Final = ("name", "new-name", "key")
_WORDS: Final = ("web", "_", "a.b-c_9", "db", "x" * 31)
#: ids of links that are restored: few, so that some are taken, and one that is too high
_RESTORED: Final = (1, 2, 1 << 31)


class Generator:
    """Makes requests that the module should accept, from the schema and the current state."""

    def __init__(self, world: World, pick: random.Random) -> None:
        self._world = world
        self._pick = pick

    def request(self, operation: Operation | None = None) -> Request:
        """A valid request, of a random operation unless one is given."""
        pick = self._pick
        if operation is None:
            operation = pick.choices(REQUESTS, [self._weight(one) for one in REQUESTS])[0]
        if operation.command == Command.ATTACH:
            return Request(operation.command, self._attach())
        if operation.command == Command.RULESET:
            return Request(operation.command, self._table())
        link = self._world.some_link(pick)
        nodes = []
        other_ways = self._other_ways(operation.request, link)
        for name in operation.request:
            if name in other_ways or (name in _OPTIONAL and pick.random() >= _SOMETIMES):
                continue
            if name == "flags":
                flag = Top.by_name[name]
                nodes.append(Node(flag.number, _bytes(int(LinkFlag.EXCLUSIVE), 4), flag))
            else:
                nodes += self.nodes(Top.by_name[name], link)
        return Request(operation.command, nodes)

    def _weight(self, operation: Operation) -> float:
        """How often an operation comes up."""
        # where links are parked few can be made, and all that is about them is refused early
        if operation.command == Command.PARK:
            return 0.3
        if operation.command == Command.RESTORED and self._world.restoring:
            return 3
        # those that take a program set have the most to get wrong
        return 4 if {"programs", "change"} & {*operation.request} else 1

    def _other_ways(self, names: Collection[str], link: KnownLink) -> frozenset[str]:
        """The attributes by which a request does not name its link: its name, or its id."""
        if not {"link", "name"} <= {*names}:
            return frozenset()
        if {*names} >= _BY_TRANSACTION and self._pick.random() < _SOMETIMES:
            return frozenset({"link", "name", "expect-generation"})
        by_name = link.name and self._pick.random() < 0.5
        return _BY_TRANSACTION | {"link" if by_name else "name"}

    def _attach(self) -> list[Node]:
        """The attributes of an attach to a hook of any kind, in the schema's order."""
        pick = self._pick
        flags = pick.choice((0, int(LinkFlag.PERSISTENT), int(LinkFlag.EXCLUSIVE)))
        names: dict[str, bytes] = {}
        place: dict[str, int]
        kind = pick.choices(list(Hook), [4, 4, 2, 2, 1])[0]
        if kind == Hook.TABLE:
            flags |= pick.choice((0, int(LinkFlag.COUNT_RULES)))
            place = {"hook": Hook.TABLE, "family": pick.choice(_TABLE_FAMILIES), "flags": flags}
        elif kind == Hook.CHAIN:
            place, names = self._chain_place(flags)
        elif kind == Hook.SPINE:
            place = self._spine_place(flags)
        elif kind == Hook.JOURNEY:
            place = {"hook": int(Hook.JOURNEY), "flags": flags, "journey-ways": pick.choice((1, 2))}
        else:
            place = self._nf_place(flags)
        if kind not in {Hook.NF, Hook.JOURNEY} and pick.random() < _SOMETIMES:
            place["journey"] = self._journey()
        link = KnownLink(0, 1, {}, place["hook"], place.get("family", 0))
        nodes = []
        operation = next(o for o in REQUESTS if o.command == Command.ATTACH)
        for name in operation.request:
            attribute = Top.by_name[name]
            optional = name in {"name", "labels", "reason-text", "restore"}
            often = name == "restore" and self._world.restoring
            if name == "programs" or (optional and (often or pick.random() < _SOMETIMES)):
                nodes += self.nodes(attribute, link)
            elif name in place:
                nodes.append(Node(attribute.number, _bytes(place[name], 4), attribute))
            elif name in names:
                nodes.append(Node(attribute.number, names[name], attribute))
        return nodes

    def _table(self) -> list[Node]:
        """A legacy table, which may be there."""
        pick = self._pick
        values = {
            "netns-fd": _bytes(pick.choice(self._world.namespaces), 4),
            "family": _bytes(pick.choice(_TABLE_FAMILIES[1:]), 4),
            "table": pick.choice((b"raw\0", b"filter\0")),
        }
        attributes = [Top.by_name[name] for name in values]
        return [Node(one.number, values[one.name], one) for one in attributes]

    def _chain_place(self, flags: int) -> tuple[dict[str, int], dict[str, bytes]]:
        """The numbers and the names of a place at chains."""
        pick = self._pick
        place = {"hook": int(Hook.CHAIN), "flags": flags}
        place["family"] = int(pick.choice(list(NfFamily)))
        if pick.random() < 0.5:
            place["netns-fd"] = pick.choice(self._world.namespaces)
        # each name needs those before it; an empty one is refused
        words = [pick.choice((b"filter\0", b"t\0", b"\0")) for _ in range(pick.randrange(3))]
        return place, dict(zip(("table", "chain"), words, strict=False))

    def _spine_place(self, flags: int) -> dict[str, int]:
        pick = self._pick
        place = {"hook": int(Hook.SPINE), "flags": flags}
        place["family"] = int(pick.choice((0, *NfFamily)))
        if place["family"] and pick.random() < 0.5:
            # every family has this one
            place["hooknum"] = 1
        if pick.random() < 0.5:
            place["netns-fd"] = pick.choice(self._world.namespaces)
        return place

    def _journey(self) -> int:
        """A journey; if there is none, any link, which may not be there."""
        links = self._world.links.values()
        journeys = [link.id for link in links if link.hook == Hook.JOURNEY]
        return self._pick.choice(journeys or [self._world.some_link(self._pick).id])

    def _nf_place(self, flags: int) -> dict[str, int]:
        pick = self._pick
        family = pick.choice(list(HOOKS))
        hook, number = pick.choice(list(HOOKS[family].items()))
        mode = pick.choice(list(NfMode))
        if mode == NfMode.FILTER:
            flags |= pick.choice((0, int(LinkFlag.REPORT_DROPS)))
        place = {"hook": Hook.NF, "family": family, "flags": flags, "hooknum": number}
        optional = {
            "priority": pick.randint(-(1 << 31), (1 << 31) - 1),
            "netns-fd": pick.choice(self._world.namespaces),
            "mode": mode,
        }
        # the default mode is not the one that drops
        whole = flags & LinkFlag.REPORT_DROPS
        place |= {name: value for name, value in optional.items() if whole or pick.random() < 0.5}
        if hook == "ingress":
            place["ifindex"] = _LOOPBACK
        return place

    def nodes(self, attribute: Attribute, link: KnownLink | None = None) -> list[Node]:
        """The attribute with a valid value; several of them if it may be repeated."""
        link = link or self._world.some_link(self._pick)
        if attribute.nested is None:
            return [Node(attribute.number, self.value(attribute, link), attribute)]
        if attribute.nested is ProgramSet:
            return [nest(attribute.number, self._program_set(link), attribute)]
        if attribute.nested is Change:
            return [
                nest(attribute.number, self._change(other), attribute) for other in self._links()
            ]
        if attribute.nested is Condition:
            count = self._pick.randrange(1, _GUARDS + 1) if attribute.multi else 1
            of_shadow = attribute.name == "promote-if"
            return [
                nest(attribute.number, self._condition(of_shadow=of_shadow), attribute)
                for _ in range(count)
            ]
        if not attribute.multi:
            return [nest(attribute.number, self._content(attribute.nested, link, {}), attribute)]
        return [
            nest(attribute.number, self._content(attribute.nested, link, key), attribute)
            for key in self._keys(attribute.nested)
        ]

    def value(
        self, attribute: Attribute, link: KnownLink | None = None, slot: int | None = None
    ) -> bytes:
        """A valid value of an attribute that is not a nest."""
        pick = self._pick
        link = link or self._world.some_link(pick)
        # the name of a program is any text
        if attribute.name in _NAMES and (attribute.max_length or 0) >= max(map(len, _WORDS)):
            known = link.name if attribute.name == "name" else ""
            return (known or pick.choice(_WORDS)).encode() + b"\0"
        if attribute.type is STRING:
            length = pick.randrange((attribute.max_length or 20) + 1)
            return bytes(pick.randrange(33, 127) for _ in range(length)) + b"\0"
        if attribute.type is BINARY:
            return self._binary(attribute)
        return _bytes(self._number(attribute, link, slot), 8 if attribute.type is U64 else 4)

    def _links(self) -> list[KnownLink]:
        """A few different links; if there is none, one that may exist."""
        known = list(self._world.links.values())
        if not known:
            return [self._world.some_link(self._pick)]
        return self._pick.sample(known, min(len(known), self._pick.randrange(1, 5)))

    def _change(self, link: KnownLink) -> list[Node]:
        nodes = []
        other_ways = self._other_ways(Change.by_name, link)
        for attribute in Change.attributes:
            optional = attribute.name in _OPTIONAL
            left_out = attribute.name in other_ways
            if not left_out and (not optional or self._pick.random() < _SOMETIMES):
                nodes += self.nodes(attribute, link)
        return nodes

    def _program_set(self, link: KnownLink) -> list[Node]:
        """Programs for the hook of a link, with every other attribute that it takes."""
        pick = self._pick
        nf = link.hook == Hook.NF
        journey = link.hook == Hook.JOURNEY
        several = SPINE_SLOTS if link.hook == Hook.SPINE else TABLE_SLOTS
        slots = [Slot.PACKET] if nf else pick.sample(several, pick.randrange(1, 4))
        if journey:
            slots = [Slot.STEP]
        programs = self._world.packet_programs if nf else self._world.programs
        chosen = {slot: pick.choice(programs) for slot in slots}
        nodes: list[Node] = []
        users = [fd for fd in programs if fd in self._world.payloads]
        emitting = [slot for slot in slots if slot in _EMITTING]
        if users and emitting and pick.random() < _SOMETIMES:
            chosen[pick.choice(emitting)] = user = pick.choice(users)
            attribute = ProgramSet.by_name["payload-fd"]
            nodes.append(Node(attribute.number, _bytes(self._world.payloads[user], 4), attribute))
        for name in ("filter", "cookie"):
            attribute = ProgramSet.by_name[name]
            # ARP has no IP header; links that are on a journey have its filters
            if name != "filter" or (link.family != NfFamily.ARP and not journey):
                nodes.append(Node(attribute.number, self.value(attribute, link), attribute))
        if not journey and pick.random() < _SOMETIMES:
            nodes += self.nodes(ProgramSet.by_name["limits"], link)
        program = ProgramSet.by_name["program"]
        return [
            *(nest(program.number, _program(slot, fd), program) for slot, fd in chosen.items()),
            *nodes,
        ]

    def _condition(self, *, of_shadow: bool) -> list[Node]:
        """A condition that decides something; many are violated soon, or met.

        Now and then it is on a counter of the link where only those of its shadow are taken, or the
        other way round.
        """
        pick = self._pick
        right = pick.random() >= _SOMETIMES / _GUARDS
        counters = [one for one in Counter if (one in _OF_SHADOWS) == (of_shadow == right)]
        values = {
            "counter": int(pick.choice(counters)),
            "comparison": int(pick.choice(list(Comparison))),
            "threshold": pick.choice((1, 1, 100, (1 << 32) - 1)),
        }
        per = pick.choice(("per-time", "per-packets", "window"))
        values[per] = pick.choice((100, 100, 1000, 86_400_000))
        if per != "window" and pick.random() < 0.5:
            values["window"] = pick.choice((100, 1000, 86_400_000))
        if pick.random() < 0.5:
            values["minimum"] = pick.choice((1, 1, 1000, (1 << 32) - 1))
        attributes = [one for one in Condition.attributes if one.name in values]
        return [Node(one.number, _bytes(values[one.name], 4), one) for one in attributes]

    def _content(self, space: AttributeSet, link: KnownLink, key: Mapping[str, int]) -> list[Node]:
        nodes = []
        for attribute in space.attributes:
            if attribute.reply:
                continue
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
        """The keys that distinguish the items of a list: each its own member of an enumeration."""
        if space is Past:
            # long ones are most of a message, and of what is mutated in it
            most = limit("HISTORY_GENERATIONS")
            return [{} for _ in range(self._pick.choices((0, 1, 2, most + 1), (4, 4, 4, 1))[0])]
        for attribute in space.attributes:
            if attribute.enum:
                members = [int(member) for member in attribute.enum]
                chosen = self._pick.sample(members, self._pick.randrange(1, len(members) + 1))
                return [{attribute.name: member} for member in chosen]
        if space is Labels:
            return [{}]
        return [{} for _ in range(self._pick.randrange(1, 4))]

    def _binary(self, attribute: Attribute) -> bytes:
        if attribute.name == "filter":
            return self._pick.choice(self._world.filters)
        if attribute.name == "tag":
            return self._pick.randbytes(limit("PROG_TAG"))
        if attribute.record:
            return self._pick.randbytes(RECORDS[attribute.record][0].sizeof())
        return self._pick.randbytes(self._pick.randrange((attribute.max_length or 64) + 1))

    def _number(self, attribute: Attribute, link: KnownLink, slot: int | None) -> int:
        pick = self._pick
        # facts that the schema does not have
        known: dict[str, Callable[[], int]] = {
            "fd": lambda: pick.choice(self._world.programs + self._world.packet_programs),
            "payload-fd": lambda: pick.choice([*self._world.payloads.values(), 0]),
            "netns-fd": lambda: pick.choice(self._world.namespaces),
            "link": lambda: link.id or pick.choice((*self._world.links, *_RESTORED)),
            "transaction": lambda: pick.randrange(1, _TRANSACTIONS),
            # of a link that waits little else comes up
            "rollback-after": lambda: pick.choice((1, 1, 20, attribute.maximum or 1)),
            "expect-generation": lambda: link.generation,
            "expect-shadow": lambda: link.shadow,
            "id": lambda: link.programs.get(slot or 0, 0),
            "family": lambda: pick.choice(_TABLE_FAMILIES),
            "links-sequence": lambda: self._world.sequence,
        }
        if attribute.name in known:
            return max(known[attribute.name](), attribute.minimum or 0)
        if attribute.enum:
            least = attribute.minimum or 0
            return pick.choice([int(member) for member in attribute.enum if member >= least])
        assert isinstance(attribute.type, ScalarType)
        numbers = attribute.type.range
        least = numbers[0] if attribute.minimum is None else attribute.minimum
        most = numbers[-1] if attribute.maximum is None else attribute.maximum
        return pick.randint(least, most)


def _program(slot: int, fd: int) -> list[Node]:
    return [
        Node(Program.by_name[name].number, _bytes(value, 4), Program.by_name[name])
        for name, value in (("slot", slot), ("fd", fd))
    ]


def _bytes(number: int, size: int) -> bytes:
    """A number in wire format, whatever its sign."""
    return (number & ((1 << 8 * size) - 1)).to_bytes(size, "little")
