# SPDX-License-Identifier: GPL-2.0
"""Messages that are nearly right, made from the protocol's own schema."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ipttproto.attributes import NLA_F_NESTED, AttributeHeader, AttributeSet, align
from ipttproto.family import OPERATIONS, Top
from ipttproto.messages import GenericHeader, MessageHeader

EXTREMES = (0, 1, 2, 3, 4, 9, 10, 127, 128, 255, 0x7FFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ACK, DUMP = 0x4, 0x300
#: values that the module takes, so that messages get past the first check
RIGHT = {"hook": (1,), "family": (0, 2, 10), "flags": (0, 1), "slot": (1, 2, 3), "link": (1, 2, 3)}


@dataclass
class Fuzzer:
    """Makes messages; the same seed makes the same ones.

    ``fds`` are descriptors that a message may name; a program among them makes it right, rarely.
    """

    family_id: int
    fds: tuple[int, ...]
    random: random.Random

    def message(self, sequence: int) -> bytes:
        """A request to the family with something wrong in it, or nothing."""
        pick = self.random
        requests = [operation for operation in OPERATIONS if operation.group is None]
        # attaching has the most to get wrong
        chosen = pick.choice([requests[0], requests[0], *requests])
        command: int = chosen.command if pick.random() < 0.97 else pick.randrange(256)
        attributes = self._attributes(Top, wanted=chosen.request)
        generic = GenericHeader.build(
            {"command": command, "version": pick.choice((1, 1, 1, 0, 2, 255)), "reserved": 0}
        )
        body = generic + attributes
        if pick.random() < 0.05:
            body = body[: pick.randrange(len(body) + 1)]
        if pick.random() < 0.05:
            body += pick.randbytes(pick.randrange(1, 9))
        flags = 1 | ACK | (DUMP if pick.random() < 0.05 else 0)
        header = {
            "length": 16 + len(body),
            "type": self.family_id,
            "flags": flags,
            "sequence": sequence,
            "portid": 0,
        }
        return MessageHeader.build(header) + body

    def _attributes(
        self, space: AttributeSet, wanted: tuple[str, ...] = (), depth: int = 0
    ) -> bytes:
        """Attributes of a set: those wanted mostly, others sometimes, some twice, some unknown."""
        pick = self.random
        names = [n for n in wanted or tuple(space.by_name) if pick.random() < 0.9]
        if pick.random() < 0.1:
            names.append(pick.choice(list(space.by_name)))
        if names and pick.random() < 0.1:
            names.append(pick.choice(names))
        pick.shuffle(names)
        out = b""
        for name in names:
            attribute = space.by_name[name]
            number = attribute.number
            if attribute.nested and depth < 6:
                payload = self._attributes(attribute.nested, depth=depth + 1)
                number |= NLA_F_NESTED if pick.random() < 0.9 else 0
            else:
                payload = self._value(name)
            out += self._attribute(number, payload)
        if pick.random() < 0.05:
            out += self._attribute(pick.randrange(0x10000), pick.randbytes(pick.randrange(40)))
        return out

    def _value(self, name: str) -> bytes:
        pick = self.random
        kind = pick.random()
        if name == "fd" and kind < 0.8:
            return pick.choice((*self.fds, 0, 1, 9999)).to_bytes(4, "little")
        if name == "filter" and kind < 0.8:
            return pick.randbytes(8 * pick.randrange(6))
        if name == "cookie" and kind < 0.8:
            return pick.randbytes(8)
        if name in RIGHT and kind < 0.7:
            return pick.choice(RIGHT[name]).to_bytes(4, "little")
        if kind < 0.9:
            return pick.choice(EXTREMES).to_bytes(4, "little")
        return pick.randbytes(pick.randrange(20))

    def _attribute(self, number: int, payload: bytes) -> bytes:
        pick = self.random
        length = 4 + len(payload)
        if pick.random() < 0.03:
            length = pick.choice((0, 1, 3, 4, length + 1, length - 1, 0xFFFF))
        header = AttributeHeader.build({"length": max(length, 0), "type": number & 0xFFFF})
        return header + payload + bytes(align(len(payload)) - len(payload))
