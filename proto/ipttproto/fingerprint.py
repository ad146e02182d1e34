# SPDX-License-Identifier: GPL-2.0
"""A checksum of the protocol's definition, by which two builds can tell whether they agree."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from ipttproto.enumerations import DEFINED
from ipttproto.family import ATTRIBUTE_SETS, FAMILY, LIMITS, MINOR, RECORDS, VERSION
from ipttproto.layout import fields
from ipttproto.operations import OPERATIONS


def _canonical() -> Iterator[str]:
    """Everything that both sides must agree on, one item a line, without the descriptions."""
    yield f"{FAMILY} {VERSION} {MINOR}"
    for enumeration in DEFINED:
        for member in enumeration:
            yield f"enum {enumeration.__name__} {member.name} {member.value}"
    for name, (value, _) in LIMITS.items():
        yield f"limit {name} {value}"
    for name, (record, _) in RECORDS.items():
        for field in fields(record):
            yield f"struct {name} {field.name} {field.offset} {field.c_type} {field.count}"
    for space in ATTRIBUTE_SETS:
        for a in space.attributes:
            kind = a.nested.name if a.nested else getattr(a.type, "policy", "")
            bounds = f"{a.minimum} {a.maximum} {a.reply}"
            yield f"attribute {space.name} {a.name} {a.number} {kind} {bounds}"
    for operation in OPERATIONS:
        yield f"operation {operation.command.name} {operation.request} {operation.dump}"


FINGERPRINT: Final = zlib.crc32("\n".join(_canonical()).encode())
