# SPDX-License-Identifier: GPL-2.0
"""A request as a tree that can be made invalid in every way that bytes allow."""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ipttproto import VERSION, Flag
from ipttproto.attributes import NLA_F_NESTED, Attribute, align

_ATTRIBUTE: Final = struct.Struct("=HH")
_HEADER: Final = struct.Struct("=IHHIIBBH")


@dataclass
class Node:
    """One attribute: its header, and its bytes or nested attributes.

    ``schema`` is the protocol's description, if the attribute began as one that the protocol has;
    ``length`` is the length claimed in its header instead of the real one.
    """

    number: int
    payload: bytes | list[Node]
    schema: Attribute | None = None
    length: int | None = None

    def build(self) -> bytes:
        """The attribute in wire format, padded."""
        payload = self.payload if isinstance(self.payload, bytes) else build_nodes(self.payload)
        length = _ATTRIBUTE.size + len(payload) if self.length is None else self.length
        header = _ATTRIBUTE.pack(length & 0xFFFF, self.number & 0xFFFF)
        return header + payload + bytes(align(len(payload)) - len(payload))


def build_nodes(nodes: list[Node]) -> bytes:
    """Attributes in wire format, one after the other."""
    return b"".join([node.build() for node in nodes])


def nest(number: int, nodes: list[Node], schema: Attribute | None = None) -> Node:
    """An attribute that nests others, with the flag that says so."""
    return Node(number | NLA_F_NESTED, nodes, schema)


@dataclass
class Request:
    """A message to the family. Everything except the attributes is valid unless set otherwise.

    ``lie`` is added to the length in the message's header, ``cut`` is a number of bytes to remove
    at its end, ``patches`` are bytes to set in the body, ``capable`` says whether the sender keeps
    the right to load programs.
    """

    command: int
    nodes: list[Node]
    version: int = VERSION
    reserved: int = 0
    flags: int = int(Flag.REQUEST | Flag.ACK)
    cut: int = 0
    tail: bytes = b""
    lie: int = 0
    patches: list[tuple[int, int]] = field(default_factory=list)
    capable: bool = True

    def build(self, family_id: int, sequence: int) -> bytes:
        """The message in wire format."""
        body = bytearray(build_nodes(self.nodes))
        if self.cut:
            del body[max(0, len(body) - self.cut) :]
        body += self.tail
        for place, value in self.patches:
            if body:
                body[place % len(body)] = value
        header = _HEADER.pack(
            max(0, _HEADER.size + len(body) + self.lie),
            family_id,
            self.flags,
            sequence,
            0,
            self.command,
            self.version,
            self.reserved,
        )
        return header + body

    @property
    def answered(self) -> bool:
        """Whether the kernel must answer: it passes over messages with a wrong length."""
        return not self.lie

    def copy(self) -> Request:
        """A copy to be changed independently; the schema's part is shared."""
        return Request(
            self.command,
            [_copied(node) for node in self.nodes],
            self.version,
            self.reserved,
            self.flags,
            self.cut,
            self.tail,
            self.lie,
            list(self.patches),
            self.capable,
        )

    def lists(self) -> Iterator[list[Node]]:
        """Every list of attributes, beginning with the message's own."""
        waiting = [self.nodes]
        while waiting:
            nodes = waiting.pop()
            yield nodes
            waiting += [node.payload for node in nodes if isinstance(node.payload, list)]

    def all_nodes(self) -> list[Node]:
        """Every attribute, nested ones included."""
        return [node for nodes in self.lists() for node in nodes]


def _copied(node: Node) -> Node:
    made = copy.copy(node)
    if isinstance(node.payload, list):
        made.payload = [_copied(inner) for inner in node.payload]
    return made
